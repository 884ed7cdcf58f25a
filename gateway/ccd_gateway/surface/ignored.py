"""Parameters without effect: named in a header or in the answer, or refused where the client asked for that. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

import falcon.asgi

from ccd_gateway.errors import ApiError, bad_request

_TOKEN = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")
_MAX_NAMES = 32
_MAX_LOOKED_AT = 1000
IGNORED = "ccd_ignored"


def is_strict(req: falcon.asgi.Request) -> bool:
    """Whether the client would have what cannot be honoured refused."""
    return (req.get_header("x-ccd-strict") or "").lower() == "true"


def refuse_ignored(names: Iterable[str]) -> None:
    """What `X-CCD-Strict: true` asks for.

    Raises:
        ApiError: 400 naming the first.
    """
    for name in names:
        raise _strict(name)


def _strict(name: str) -> ApiError:
    if name == "temperature":
        return bad_request("'temperature' above 1 cannot be honoured (X-CCD-Strict is on).", name)
    shown = safe_name(name)
    message = f"'{shown}' cannot be honoured, and X-CCD-Strict is on."
    return bad_request(message, shown, "unsupported_parameter")


def name_ignored(resp: falcon.asgi.Response, names: Iterable[str]) -> None:
    """Say in `X-CCD-Ignored` what had no effect."""
    found = header_value(names)
    if found:
        resp.set_header("x-ccd-ignored", found)


def in_last_event(names: Iterable[str]) -> dict[str, list[str]]:
    """Returns the same for what is known only after the headers: a key of the last event that has JSON in it."""
    found = [safe_name(name) for name in dict.fromkeys(names)]
    return {IGNORED: found[:_MAX_NAMES]} if found else {}


def header_value(names: Iterable[str]) -> str:
    """The names as the value of `X-CCD-Ignored`: safe in a header whatever the client sent, and bounded."""
    looked_at = list(itertools.islice(names, _MAX_LOOKED_AT + 1))
    unique = list(dict.fromkeys(map(safe_name, looked_at)))
    more = len(unique) > _MAX_NAMES or len(looked_at) > _MAX_LOOKED_AT
    return ", ".join(unique[:_MAX_NAMES] + (["..."] if more else []))


def safe_name(name: str) -> str:
    """The name, with everything replaced that may not stand in a header."""
    return name if _TOKEN.fullmatch(name) else re.sub(r"[^A-Za-z0-9_.\[\]-]", "?", name[:64]) or "?"
