"""The models under all their names, as OpenAI's objects. Pure."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

from ccd_gateway.access.keyfile import Key
from ccd_gateway.access.permission import Known, may_use
from ccd_gateway.errors import ApiError
from ccd_gateway.settings import GatewaySettings
from ccd_protocol.chat.choice import chosen
from ccd_protocol.errors import RpcError
from ccd_protocol.methods import Model, ModelsResult

_DEFAULT_PROFILE = "chat"  # what a model without a profile is asked for
_WILD = re.compile(r"[*?\[]")
_LONG = "[1m]"  # asks for the long context of the same model
_PINNED = re.compile(r"claude-[a-z0-9.-]{1,80}-\d{8}(\[1m\])?")
_DATE = re.compile(r"-(\d{4})(\d{2})(\d{2})\b")


def listing(found: ModelsResult) -> dict[str, dict[str, Any]]:
    """OpenAI's model objects by id, aliases included."""
    rows: dict[str, dict[str, Any]] = {}
    for model in found["models"]:
        rows.setdefault(model["id"], _row(model["id"], model))
        if model["alias"]:
            rows.setdefault(model["alias"], _row(model["alias"], model))
    return rows


def with_other_names(found: ModelsResult, model_map: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """`listing`, and mapped names without wildcards, and `profile/model` for each further profile."""
    own = listing(found)
    rows = dict(own)
    for name, to in model_map.items():
        if not _WILD.search(name):
            row = own.get(to) or _row(to, {"id": to, "alias": None, "display_name": to})
            rows.setdefault(name, {**row, "id": name})
    for profile in found["profiles"]:
        for row in own.values() if profile != _DEFAULT_PROFILE else ():
            rows.setdefault(f"{profile}/{row['id']}", {**row, "id": f"{profile}/{row['id']}"})
    return rows


def usable(found: ModelsResult, key: Key | None, settings: GatewaySettings) -> list[dict[str, Any]]:
    """The models that the holder of a key may use; all of them without one."""
    known = Known.of(found)
    rows = with_other_names(found, settings.model_map)
    return [row for name, row in rows.items() if _may_ask(key, known, settings.model_for(name))]


def find_usable(found: ModelsResult, name: str, key: Key | None, settings: GatewaySettings) -> dict[str, Any]:
    """`find`, where a model that a key is not for is like one that does not exist.

    Raises:
        ApiError: 404 `model_not_found`.
    """
    meant = settings.model_for(name)
    if not _may_ask(key, Known.of(found), meant):
        raise _unknown(name)
    return find(found, name, meant)


def _may_ask(key: Key | None, known: Known, model: str) -> bool:
    try:
        return may_use(key, known, *chosen(None, model, known.profiles))
    except RpcError:  # no such name: it names two profiles
        return False


def find(found: ModelsResult, name: str, means: str | None = None) -> dict[str, Any]:
    """One model object, under the id that was asked for.

    Args:
        found: what the daemon has.
        name: what was asked for.
        means: what the settings make of the name, where that is another.

    Raises:
        ApiError: 404 `model_not_found`.
    """
    rows = with_other_names(found, {})
    meant = means or name
    prefix, slash, model = meant.partition("/")
    if slash and prefix == _DEFAULT_PROFILE and prefix in found["profiles"]:
        meant = model
    for known in (meant, _stem(meant)):
        if known in rows:
            return {**rows[known], "id": name}
    if _PINNED.fullmatch(meant):  # one that the CLI knows, or passes on, and does not list
        return _row(name, {"id": meant, "alias": None, "display_name": meant})
    if meant != name and not slash:  # the settings may name models that the CLI knows and does not list
        return _row(name, {"id": meant, "alias": None, "display_name": meant})
    raise _unknown(name)


def _stem(name: str) -> str:
    """A model's name without the day that it is of, and without the size of its context."""
    return _DATE.sub("", name.removesuffix(_LONG))


def _unknown(name: str) -> ApiError:
    text = f"The model {name[:200]!r} does not exist. GET /v1/models lists those that do."
    return ApiError(404, text, param="model", code="model_not_found")


def _row(name: str, model: Model) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": _created(model["id"]),
        "owned_by": "anthropic",
        "display_name": model["display_name"],
    }


def _created(model_id: str) -> int:
    """The day in the model's name as seconds since 1970, or 0: nothing else is known about it."""
    match = _DATE.search(model_id)
    if match is None:
        return 0
    try:
        day = datetime.datetime(*map(int, match.groups()), tzinfo=datetime.UTC)  # type: ignore[misc, arg-type]
    except ValueError:
        return 0
    return int(day.timestamp())
