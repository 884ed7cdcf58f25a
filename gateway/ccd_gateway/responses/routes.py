"""The resources of the Responses API; one instance of each per worker process."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from typing import Any

import falcon
import falcon.asgi
import msgspec

from ccd_gateway.access.caller import tenant_of
from ccd_gateway.answer.backend import Backend
from ccd_gateway.answer.caching import name_cache
from ccd_gateway.answer.turn import ChatTurn
from ccd_gateway.chat.parameters import header_value
from ccd_gateway.chat.sse import KEEPALIVE, ignored_comment
from ccd_gateway.edge.body import read_body
from ccd_gateway.edge.outlet import Body, Express, Outlet, outlet_of, stream_events
from ccd_gateway.errors import JSON, ApiError, bad_request, from_rpc
from ccd_gateway.images.remote import RemoteImages
from ccd_gateway.responses.events import ResponseEvents, complete
from ccd_gateway.responses.items import Item
from ccd_gateway.responses.job import (
    Job,
    history_of,
    ignored_by_daemon,
    in_clients_words,
    not_found,
    read_job,
)
from ccd_gateway.responses.resource import Response, cancelled, failed
from ccd_gateway.responses.runs import BackgroundRuns, obituary
from ccd_gateway.responses.schema import decode
from ccd_gateway.responses.store import ResponseStore
from ccd_gateway.responses.table import Bounds, ResponseTable, StoredResponse
from ccd_gateway.settings import GatewaySettings
from ccd_protocol.errors import RpcError

_DEFAULT_PAGE = 20
_MAX_PAGE = 100
_LAST_EVENT = 2**53 - 1  # far more than any stream has, and what every store and client can count to
_log = logging.getLogger(__name__)


class Responses:
    """`/v1/responses` and what is below it.

    Args:
        backend: for the answers.
        settings: limits, and how much is stored.
        environ: says where the data directory is, unless the settings do.
    """

    def __init__(self, backend: Backend, settings: GatewaySettings, environ: dict[str, str]) -> None:
        self._backend = backend
        self._settings = settings
        self._images = RemoteImages(settings)
        bounds = Bounds(settings.stored_responses, settings.stored_bytes, settings.stored_s)
        self._store = ResponseStore(settings.responses_path(environ), bounds, obituary)
        self._runs = BackgroundRuns(backend, self._store)

    async def process_shutdown(self, scope: object, event: object) -> None:
        """End the background responses and close the store, when the worker stops."""
        await self._runs.close()
        await self._store.close()

    # --- making a response ---

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Make a response: whole, streamed, or in the background."""
        decoded = decode(await read_body(req, self._settings.max_body_bytes))
        job = await read_job(req, decoded, self._store, self._images, self._settings)
        await self._check_store(job)
        answer = self._complete
        if job.request.background:
            answer = self._background
        elif job.request.stream:
            answer = self._stream
        try:
            await answer(job, req, resp)
        except RpcError as error:
            raise in_clients_words(error) from None

    async def _check_store(self, job: Job) -> None:
        """Not being able to store is an error only for those who asked for it; others are told."""
        if not job.response["store"]:
            return
        try:
            await self._store.do(ResponseTable.ready)
        except RpcError:
            if job.request.store or job.request.background:
                raise
            job.response["store"] = False
            job.ignored.append("store")

    async def _complete(self, job: Job, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        answer = await self._backend.complete(job.params)
        response = complete(
            job.response, answer, with_summary=job.with_summary, completed_at=int(time.time())
        )
        response["store"] = await self._keep(job, response)
        _name_ignored(resp, job.ignored + ignored_by_daemon(answer))
        name_cache(resp, [answer])
        _answer(resp, response)

    async def _stream(self, job: Job, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Begin to answer once the model does, or after a silence, so that most failures have a status."""
        turn = await self._backend.start(job.params, self._settings.keepalive_s)
        _name_ignored(resp, job.ignored)
        stream_events(req, resp, Body(self._events(job, turn, outlet_of(req)), turn.close))

    async def _events(self, job: Job, turn: ChatTurn, outlet: Outlet) -> AsyncGenerator[bytes, None]:
        """One piece for each write: all events of what arrived in one read."""
        events = job.events()
        express, keepalive_s = Express(outlet, events.pieces), self._settings.keepalive_s
        try:
            yield events.begin() + events.pieces(turn.first)
            while (deltas := await turn.deltas(keepalive_s, express)) is not None:
                if deltas and (made := events.pieces(deltas)):
                    yield made
                elif turn.silent:
                    yield KEEPALIVE
            made = events.finish(turn.result, int(time.time()))
            await self._keep(job, events.response)  # before the client can refer to it
            yield ignored_comment(ignored_by_daemon(turn.result)) + made
        except RpcError as error:
            yield await self._failed(job, events, from_rpc(in_clients_words(error)))
        except Exception:
            _log.exception("a streamed response failed")
            yield await self._failed(job, events, ApiError(500, "The gateway failed. See its log."))

    async def _failed(self, job: Job, events: ResponseEvents, error: ApiError) -> bytes:
        await self._keep(job, failed({**events.response, "output": []}, error.error))
        return events.fail(error.error)

    async def _keep(self, job: Job, response: Response) -> bool:
        """Store a response that has ended; an answer is not withheld because that fails."""
        if not response["store"]:
            return False
        try:
            await self._store.do(
                ResponseTable.put, job.tenant, job.row(response), job.item_ids(response), time.time()
            )
        except RpcError:
            return False
        return True

    async def _background(self, job: Job, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        queued = await self._runs.start(job)
        _name_ignored(resp, job.ignored)
        if job.request.stream:
            pieces = self._runs.follow(job.tenant, queued["id"], -1, self._settings.keepalive_s)
            stream_events(req, resp, Body(pieces))
        else:
            _answer(resp, queued)

    async def on_post_tokens(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Estimate the tokens of a request's input: instructions, tools and all that came before included."""
        decoded = decode(await read_body(req, self._settings.max_body_bytes), model_needed=False)
        job = await read_job(req, decoded, self._store, self._images, self._settings)
        resp.set_header("x-ccd-estimated", "true")
        _answer(resp, {"object": "response.input_tokens", "input_tokens": job.input_tokens})

    # --- stored responses ---

    async def on_get_one(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, response_id: str
    ) -> None:
        """A stored response, or the events of one that was made in the background."""
        row = await self._found(req, response_id)
        _name_ignored(resp, msgspec.json.decode(row.body, type=_Noted).ccd_ignored)
        if req.get_param_as_bool("stream"):
            if not row.background:
                raise bad_request("Only a background response can be streamed again.", "stream")
            after = req.get_param_as_int("starting_after", min_value=-1, max_value=_LAST_EVENT, default=-1)
            keepalive_s = self._settings.keepalive_s
            pieces = self._runs.follow(tenant_of(req), response_id, after, keepalive_s)
            stream_events(req, resp, Body(pieces))
            return
        resp.content_type = JSON
        resp.data = row.body

    async def on_delete_one(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, response_id: str
    ) -> None:
        """Forget a stored response; one that still runs is stopped."""
        if not await self._store.do(ResponseTable.delete, tenant_of(req), response_id):
            raise not_found(response_id)
        self._runs.cancelled(response_id)
        _answer(resp, {"id": response_id, "object": "response", "deleted": True})

    async def on_post_one(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, response_id: str
    ) -> None:
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
        _answer(resp, _page(req, items))

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


# --- answering ---


def _answer(resp: falcon.asgi.Response, body: dict[str, Any]) -> None:
    resp.content_type = JSON
    resp.data = msgspec.json.encode(body)


def _name_ignored(resp: falcon.asgi.Response, names: list[str]) -> None:
    if names:
        resp.set_header("x-ccd-ignored", header_value(names))
