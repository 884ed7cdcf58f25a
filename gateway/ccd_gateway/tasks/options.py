"""What a request for durable work may say besides what is to be done. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import falcon.asgi

from ccd_gateway.errors import ApiError, bad_request
from ccd_gateway.surface.ignored import safe_name

#: Options of the whole (`ccd_tasks.spec.Options`), under the same names.
WHOLE = ("budget_usd", "deadline_s", "webhook", "metadata")
_MAX_WAIT_S = 3600


def refuse_unknown(given: Mapping[str, Any], known: Iterable[str], where: str = "") -> None:
    """Refuse a word that nobody reads.

    Raises:
        ApiError: 400, naming it.
    """
    for name in given:
        if name not in known:
            param = f"{where}{safe_name(name)}"
            there = ", ".join(sorted(known))
            raise bad_request(
                f"There is no option '{param}'; there are: {there}.", param, "unknown_parameter"
            )


def whole(given: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The options of the whole in a request; what is null is absent."""
    return {
        **{name: given[name] for name in WHOLE if given.get(name) is not None},
        **{name: value for name, value in more.items() if value is not None},
    }


def idempotency_key(req: falcon.asgi.Request, given: Mapping[str, Any]) -> str | None:
    """The header `Idempotency-Key`, or the field.

    Raises:
        ApiError: 400 for what cannot be one.
    """
    key = req.get_header("idempotency-key") or given.get("idempotency_key")
    if key is not None and (not isinstance(key, str) or not 0 < len(key) <= 255 or not key.isprintable()):
        raise bad_request("'idempotency_key': expected 1 to 255 printable characters.", "idempotency_key")
    return key


def wait_of(req: falcon.asgi.Request) -> float:
    """`?wait=SECONDS`: how long to wait for the end; 0 without.

    Raises:
        ApiError: 400.
    """
    text = req.get_param("wait")
    try:
        wait_s = 0.0 if text is None else float(text)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s <= _MAX_WAIT_S:
        raise bad_request(f"'wait': expected seconds, at most {_MAX_WAIT_S}.", "wait")
    return wait_s


def whole_number(req: falcon.asgi.Request, name: str, default: int, least: int, most: int) -> int:
    """A number in the query.

    Raises:
        ApiError: 400.
    """
    text = req.get_param(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not least <= int(text) <= most:
        raise bad_request(f"'{name}': expected a whole number from {least} to {most}.", name)
    return int(text)


def error_of(error: ApiError) -> dict[str, Any]:
    """A refusal as the error of a line."""
    return {
        "code": error.error.get("code") or "invalid_request",
        "message": error.error["message"],
        "param": error.error.get("param"),
        "http_status": error.status,
    }
