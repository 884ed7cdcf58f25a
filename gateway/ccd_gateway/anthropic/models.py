"""`GET /v1/models` and `GET /v1/models/{id}` as the Messages API has them, for clients that name its version."""

from __future__ import annotations

import datetime
from typing import Any, Protocol

import falcon
import falcon.asgi
import msgspec

from ccd_gateway.access.caller import caller_of
from ccd_gateway.answer.backend import Backend
from ccd_gateway.errors import JSON, bad_request
from ccd_gateway.models import find_usable, usable
from ccd_gateway.settings import GatewaySettings
from ccd_protocol.methods import ModelsResult

Row = dict[str, Any]
_VERSION = "anthropic-version"
_DEFAULT_LIMIT, _MAX_LIMIT = 20, 1000


class ModelRoutes(Protocol):
    """Both resources in another API's shape."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """The list."""

    async def on_get_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, model: str) -> None:
        """One model."""


class Models:
    """Both resources; requests without a version of the Messages API are another's."""

    def __init__(self, backend: Backend, settings: GatewaySettings, others: ModelRoutes) -> None:
        self._backend = backend
        self._settings = settings
        self._others = others

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """A page of the models."""
        if req.get_header(_VERSION) is None:
            await self._others.on_get(req, resp)
            return
        found = usable(await self._backend.call("model.list"), caller_of(req).key, self._settings)
        rows = [to_anthropic(row) for row in found]
        _send(resp, page(rows, req.get_param("limit"), req.get_param("after_id"), req.get_param("before_id")))

    async def on_get_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, model: str) -> None:
        """One model; `profile/model` is one too."""
        if req.get_header(_VERSION) is None:
            await self._others.on_get_one(req, resp, model)
            return
        found: ModelsResult = await self._backend.call("model.list")
        _send(resp, to_anthropic(find_usable(found, model, caller_of(req).key, self._settings)))


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
