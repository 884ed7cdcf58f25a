"""The resources of responses that are stored: shown, streamed again, cancelled, deleted, and what went into them."""

from __future__ import annotations

import time
from typing import Any

import falcon
import falcon.asgi
import msgspec

from ccd_gateway.access.caller import tenant_of
from ccd_gateway.edge.outlet import Body, stream_events
from ccd_gateway.errors import JSON, ApiError, bad_request
from ccd_gateway.responses.job import history_of, not_found
from ccd_gateway.responses.parts import Item
from ccd_gateway.responses.resource import cancelled
from ccd_gateway.responses.runs import BackgroundRuns
from ccd_gateway.responses.storage.store import ResponseStore
from ccd_gateway.responses.storage.table import ResponseTable, StoredResponse
from ccd_gateway.surface.driver import send
from ccd_gateway.surface.ignored import name_ignored

_DEFAULT_PAGE = 20
_MAX_PAGE = 100
_LAST_EVENT = 2**53 - 1  # far more than any stream has, and what every store and client can count to


class StoredResponses:
    """One stored response and what is below it; one instance per worker process.

    Args:
        store: where they are.
        runs: the background responses of this process.
        keepalive_s: silence after which a stream gets a comment.
    """

    def __init__(self, store: ResponseStore, runs: BackgroundRuns, keepalive_s: float) -> None:
        self._store = store
        self._runs = runs
        self._keepalive_s = keepalive_s

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, response_id: str) -> None:
        """A stored response, or the events of one that was made in the background."""
        row = await self._found(req, response_id)
        name_ignored(resp, msgspec.json.decode(row.body, type=_Noted).ccd_ignored)
        if req.get_param_as_bool("stream"):
            if not row.background:
                raise bad_request("Only a background response can be streamed again.", "stream")
            after = req.get_param_as_int("starting_after", min_value=-1, max_value=_LAST_EVENT, default=-1)
            pieces = self._runs.follow(tenant_of(req), response_id, after, self._keepalive_s)
            stream_events(req, resp, Body(pieces))
            return
        resp.content_type = JSON
        resp.data = row.body

    async def on_delete(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, response_id: str) -> None:
        """Forget a stored response; one that still runs is stopped."""
        if not await self._store.do(ResponseTable.delete, tenant_of(req), response_id):
            raise not_found(response_id)
        self._runs.cancelled(response_id)
        send(resp, {"id": response_id, "object": "response", "deleted": True})

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, response_id: str) -> None:
        """There is nothing here; `compact` is asked for by some clients, which understand a 404."""
        raise ApiError(404, f"Unknown route: POST {req.path[:200]}.", code="unknown_url")

    async def on_post_cancel(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, response_id: str
    ) -> None:
        """Stop a background response; once it has ended, this changes nothing."""
        row = await self._found(req, response_id)
        if not row.background:
            raise bad_request(
                "Cannot cancel a synchronous response.", "response_id", "response_not_cancellable"
            )
        if row.running:
            body = msgspec.json.encode(cancelled(msgspec.json.decode(row.body)))
            await self._store.do(ResponseTable.end, response_id, tenant_of(req), "cancelled", body)
            self._runs.cancelled(response_id)
            row = await self._found(req, response_id)
        resp.content_type = JSON
        resp.data = row.body

    async def on_get_items(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, response_id: str
    ) -> None:
        """All that the model was given, a page at a time; the items of earlier responses included."""
        tenant = tenant_of(req)
        row = await self._found(req, response_id)
        items: list[Item] = msgspec.json.decode(row.input)
        if row.previous is not None:
            items = await history_of(tenant, row.previous, self._store) + items
        send(resp, _page(req, items))

    async def _found(self, req: falcon.asgi.Request, response_id: str) -> StoredResponse:
        row = await self._store.do(ResponseTable.get, tenant_of(req), response_id, time.monotonic())
        if row is None:
            raise not_found(response_id)
        return row


class _Noted(msgspec.Struct):
    """What a stored response says that had no effect."""

    ccd_ignored: list[str] = []


def _page(req: falcon.asgi.Request, items: list[Item]) -> dict[str, Any]:
    order = req.get_param("order") or "desc"
    if order not in ("asc", "desc"):
        raise bad_request("'order': expected asc or desc.", "order")
    limit = req.get_param_as_int("limit", default=_DEFAULT_PAGE)
    if not 1 <= limit <= _MAX_PAGE:
        raise bad_request(f"'limit': expected 1 to {_MAX_PAGE}.", "limit")
    if order == "desc":
        items = items[::-1]
    ids = [item["id"] for item in items]
    start = _place(req, "after", ids) + 1 if req.get_param("after") else 0
    stop = _place(req, "before", ids) if req.get_param("before") else len(items)
    page = items[start : min(stop, start + limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + limit < stop,
    }


def _place(req: falcon.asgi.Request, name: str, ids: list[str]) -> int:
    item_id = req.get_param(name)
    if item_id not in ids:
        raise bad_request(f"'{name}': there is no item with this id.", name)
    return ids.index(item_id)
