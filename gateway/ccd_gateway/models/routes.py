"""`GET /v1/models` and `GET /v1/models/{id}`, as OpenAI has them and as the Messages API does."""

from __future__ import annotations

import datetime
from typing import Any

import falcon
import falcon.asgi
import msgspec

from ccd_gateway.access.caller import caller_of
from ccd_gateway.answer.backend import Backend
from ccd_gateway.edge.description import (
    ANSWERING,
    COUNT,
    FAILING,
    TEXT,
    Description,
    in_path,
    operation,
    record,
    ref,
)
from ccd_gateway.edge.routing import Route
from ccd_gateway.errors import JSON, bad_request
from ccd_gateway.models.listing import find_usable, usable
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.shapes import MESSAGES
from ccd_protocol.methods import ModelsResult

Row = dict[str, Any]
_VERSION = "anthropic-version"
_DEFAULT_LIMIT, _MAX_LIMIT = 20, 1000


class Models:
    """Both resources, each in two shapes; clients that name a version of the Messages API get that API's."""

    def __init__(self, backend: Backend, settings: GatewaySettings) -> None:
        self._backend = backend
        self._settings = settings

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Every model that the caller may use: by name, by alias, under other vendors' names, and by profile."""
        rows = usable(await self._backend.call("model.list"), caller_of(req).key, self._settings)
        if req.get_header(_VERSION) is None:
            _send(resp, {"object": "list", "data": rows})
            return
        asked = (req.get_param(name) for name in ("limit", "after_id", "before_id"))
        _send(resp, page([to_anthropic(row) for row in rows], *asked))

    async def on_get_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, model: str) -> None:
        """One model; `profile/model` is one too, and so is any name that the settings map to one."""
        found: ModelsResult = await self._backend.call("model.list")
        row = find_usable(found, model, caller_of(req).key, self._settings)
        _send(resp, row if req.get_header(_VERSION) is None else to_anthropic(row))


def to_anthropic(row: Row) -> Row:
    """The Messages API's object for one of OpenAI's; a day that is not known is 1970, as that API has it."""
    day = datetime.datetime.fromtimestamp(row["created"], datetime.UTC)
    return {
        "type": "model",
        "id": row["id"],
        "display_name": row["display_name"] or row["id"],
        "created_at": day.isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
    }


def page(rows: list[Row], limit: str | None, after_id: str | None, before_id: str | None) -> Row:
    """The part of the list that is asked for.

    Raises:
        ApiError: 400 for a limit out of range, or an id that is not in the list.
    """
    size = _limit(limit)
    if after_id is not None:
        rows = rows[_position(rows, after_id, "after_id") + 1 :]
    if before_id is not None:
        rows = rows[: _position(rows, before_id, "before_id")]
        data = rows[-size:]
    else:
        data = rows[:size]
    return {
        "data": data,
        "has_more": len(rows) > len(data),
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= _MAX_LIMIT):
        raise bad_request(f"limit: expected 1 to {_MAX_LIMIT}")
    return int(text)


def _position(rows: list[Row], model: str, name: str) -> int:
    for index, row in enumerate(rows):
        if row["id"] == model:
            return index
    raise bad_request(f"{name}: there is no such model in the list")


def _send(resp: falcon.asgi.Response, body: Row) -> None:
    resp.content_type = JSON
    resp.data = msgspec.json.encode(body)


# --- where they are ---


def routes(backend: Backend, settings: GatewaySettings) -> list[Route]:
    """The list and the models in it."""
    models = Models(backend, settings)
    return [
        Route("/v1/models", models, _list, versioned=MESSAGES),
        Route("/v1/models/{model:path}", models, _one, "one", versioned=MESSAGES),
    ]


def _list() -> Description:
    listed = record({"object": {"const": "list"}, "data": {"type": "array", "items": ref("Model")}})
    return Description({"get": operation("models", listed, FAILING)})


def _one() -> Description:
    model = {"id": TEXT, "object": {"const": "model"}, "created": COUNT, "owned_by": TEXT}
    get = operation("model", ref("Model"), {**ANSWERING, 405: "No model, but a route."})
    return Description({"get": get, "parameters": [in_path("model")]}, {"Model": record(model)})
