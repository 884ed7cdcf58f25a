"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

import datetime
import re
from typing import Any

import falcon
import falcon.asgi
import msgspec

from ccd_gateway.backend import Backend
from ccd_gateway.errors import JSON, ApiError
from ccd_protocol.methods import Model, ModelsResult

_DATE = re.compile(r"-(\d{4})(\d{2})(\d{2})\b")


class Models:
    """Both resources; one instance per worker process."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Every model, by name and by alias."""
        found: ModelsResult = await self._backend.call("model.list")
        _send(resp, {"object": "list", "data": list(listing(found).values())})

    async def on_get_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, model: str) -> None:
        """One model; `profile/model` is one too."""
        found: ModelsResult = await self._backend.call("model.list")
        _send(resp, find(found, model))


def listing(found: ModelsResult) -> dict[str, dict[str, Any]]:
    """OpenAI's model objects by id, aliases included."""
    rows: dict[str, dict[str, Any]] = {}
    for model in found["models"]:
        rows.setdefault(model["id"], _row(model["id"], model))
        if model["alias"]:
            rows.setdefault(model["alias"], _row(model["alias"], model))
    return rows


def find(found: ModelsResult, name: str) -> dict[str, Any]:
    """One model object, under the id that was asked for.

    Raises:
        ApiError: 404 `model_not_found`.
    """
    rows = listing(found)
    if name in rows:
        return rows[name]
    profile, slash, model = name.partition("/")
    if slash and profile in found["profiles"] and model in rows:
        return {**rows[model], "id": name}
    raise ApiError(
        404,
        f"The model {name[:200]!r} does not exist. GET /v1/models lists those that do.",
        param="model",
        code="model_not_found",
    )


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


def _send(resp: falcon.asgi.Response, body: dict[str, Any]) -> None:
    resp.content_type = JSON
    resp.data = msgspec.json.encode(body)
