"""`POST /v1/messages` and `POST /v1/messages/count_tokens`."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import NamedTuple, cast

import falcon
import falcon.asgi
import msgspec

from ccd_gateway.answer.backend import Backend
from ccd_gateway.answer.turn import ChatTurn
from ccd_gateway.anthropic.errors import error_event
from ccd_gateway.anthropic.events import Event, EventReader
from ccd_gateway.anthropic.message import Collector
from ccd_gateway.anthropic.request import IGNORED_HEADERS, ignored_by_daemon, read_betas, to_params
from ccd_gateway.anthropic.schema import MessagesRequest, Prompt, decode
from ccd_gateway.anthropic.sse import PING, EventWriter, ignored_comment
from ccd_gateway.chat.parameters import header_value, refuse_ignored
from ccd_gateway.edge.body import read_body
from ccd_gateway.edge.outlet import Body, Express, Outlet, outlet_of, stream_events
from ccd_gateway.errors import JSON, ApiError, from_rpc
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.surface.tokens import estimate
from ccd_protocol.errors import RpcError
from ccd_protocol.methods import ChatParams

_log = logging.getLogger(__name__)


class Job(NamedTuple):
    """A request that has been read and found good."""

    model: str  # as the client named it
    stream: bool
    params: ChatParams
    ignored: list[str]
    request_id: str


class Messages:
    """The resource; one instance per worker process."""

    def __init__(self, backend: Backend, settings: GatewaySettings) -> None:
        self._backend = backend
        self._settings = settings

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Answer a message, streamed or whole."""
        job = read_job(req, await read_body(req, self._settings.max_body_bytes), self._settings)
        _name_ignored(resp, job.ignored)
        if job.stream:
            await self._stream(job, req, resp)
        else:
            await self._complete(job, resp)

    async def _complete(self, job: Job, resp: falcon.asgi.Response) -> None:
        """The same stream of the daemon's as for a streamed answer, so both have the same content."""
        patience_s = self._settings.request_timeout_s
        turn = await self._backend.start(job.params, patience_s, EventReader)
        collector = Collector(job.model)
        try:
            collector.add(turn.first)
            while (events := await turn.deltas(patience_s)) is not None:
                collector.add(events)
        finally:
            turn.close()
        collector.add(_last(turn))
        _name_ignored(resp, job.ignored + ignored_by_daemon(turn.result["ignored"]))
        resp.content_type = JSON
        resp.data = msgspec.json.encode(collector.message())

    async def _stream(self, job: Job, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Begin to answer once the model does, or after a silence, so that most failures have a status."""
        turn = await self._backend.start(job.params, self._settings.keepalive_s, EventReader)
        pieces = _events(turn, job.model, job.request_id, outlet_of(req), self._settings.keepalive_s)
        stream_events(req, resp, Body(pieces, turn.close))


class CountTokens:
    """The resource. The CLI cannot count a prompt of ours, so the answer is an estimate, and says so."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Estimate the tokens of a prompt."""
        prompt = decode(await read_body(req, self._settings.max_body_bytes), Prompt)
        resp.set_header("x-ccd-estimated", "true")
        resp.content_type = JSON
        resp.data = msgspec.json.encode({"input_tokens": estimate(prompt)})


def read_job(req: falcon.asgi.Request, body: bytes, settings: GatewaySettings) -> Job:
    """Check a request and make the call's parameters of it.

    Raises:
        ApiError: 400, naming the parameter.
    """
    request = decode(body, MessagesRequest)
    betas = read_betas(req.get_header("anthropic-beta"))
    ignored = betas.ignored + [name for name in IGNORED_HEADERS if req.get_header(name) is not None]
    strict = (req.get_header("x-ccd-strict") or "").lower() == "true"
    if strict:
        refuse_ignored(ignored)
    params = to_params(
        request,
        betas,
        model=settings.model_for(request.model),
        profile_header=req.get_header("x-ccd-profile"),
        strict=strict,
    )
    request_id = req.get_header("x-request-id") or ""
    return Job(request.model, bool(request.stream), params, ignored, request_id)


async def _events(
    turn: ChatTurn, model: str, request_id: str, outlet: Outlet, keepalive_s: float
) -> AsyncGenerator[bytes, None]:
    """One piece for each write: all events of what arrived in one read."""
    made = EventWriter(model).write
    try:
        yield made(turn.first) or PING
        turn.first = []
        while (events := await turn.deltas(keepalive_s, Express(outlet, made))) is not None:
            if events:
                yield made(events)
            elif turn.silent:
                yield PING
        ignored = header_value(ignored_by_daemon(turn.result["ignored"]))
        yield (ignored_comment(ignored) if ignored else b"") + made(_last(turn))
    except RpcError as error:
        refused = from_rpc(error)
        yield error_event(refused.status, refused.error, request_id)
    except Exception:
        _log.exception("a streamed answer failed")
        fault = ApiError(500, "The gateway failed. See its log.")
        yield error_event(fault.status, fault.error, request_id)


def _last(turn: ChatTurn) -> list[Event]:
    return cast(EventReader, turn.reader).finish(turn.result)


def _name_ignored(resp: falcon.asgi.Response, names: list[str]) -> None:
    if names:
        resp.set_header("x-ccd-ignored", header_value(names))
