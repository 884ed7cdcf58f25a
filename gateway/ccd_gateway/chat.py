"""`POST /v1/chat/completions`."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import NamedTuple

import falcon
import falcon.asgi
import msgspec

from ccd_client.messages import conversation
from ccd_gateway.backend import Backend
from ccd_gateway.body import read_body
from ccd_gateway.errors import JSON, ApiError, bad_request, from_rpc
from ccd_gateway.parameters import header_value, ignored_names, refuse_ignored, refuse_unsupported
from ccd_gateway.schema import ChatRequest, decode_chat
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.sse import DONE, KEEPALIVE, ChunkWriter, error_event
from ccd_gateway.translate import (
    Delta,
    LineReader,
    completion,
    finish_reason,
    ignored_by_daemon,
    sampling,
    target,
    usage,
)
from ccd_gateway.turn import ChatTurn
from ccd_protocol.errors import RpcError
from ccd_protocol.methods import ChatParams

FINGERPRINT = "fp_ccd"
_log = logging.getLogger(__name__)


class Job(NamedTuple):
    """A request that has been read and found good."""

    request: ChatRequest
    params: ChatParams
    ignored: list[str]


class ChatCompletions:
    """The resource; one instance per worker process."""

    def __init__(self, backend: Backend, settings: GatewaySettings) -> None:
        self._backend = backend
        self._settings = settings

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Answer a chat, streamed or whole."""
        job = read_job(req, await read_body(req, self._settings.max_body_bytes))
        if job.request.stream:
            await self._stream(job, resp)
        else:
            await self._complete(job, resp)

    async def _complete(self, job: Job, resp: falcon.asgi.Response) -> None:
        answer = await self._backend.complete(job.params)
        body = completion(
            answer,
            completion_id=_completion_id(),
            created=int(time.time()),
            model=job.request.model,
            fingerprint=FINGERPRINT,
        )
        _name_ignored(resp, job.ignored + ignored_by_daemon(answer))
        resp.content_type = JSON
        resp.data = msgspec.json.encode(body)

    async def _stream(self, job: Job, resp: falcon.asgi.Response) -> None:
        """Begin to answer once the model does, or after a silence, so that most failures have a status."""
        turn = await self._backend.start(job.params, self._settings.keepalive_s, LineReader)
        options = job.request.stream_options
        writer = ChunkWriter(
            _completion_id(),
            int(time.time()),
            job.request.model,
            FINGERPRINT,
            include_usage=bool(options and options.include_usage),
        )
        _name_ignored(resp, job.ignored)
        resp.content_type = "text/event-stream; charset=utf-8"
        resp.set_header("cache-control", "no-cache")
        resp.set_header("x-accel-buffering", "no")
        resp.stream = Events(
            turn, writer, self._settings.keepalive_s, bool(options and options.include_usage)
        )


def read_job(req: falcon.asgi.Request, body: bytes) -> Job:
    """Check a request and make the call's parameters of it.

    Raises:
        ApiError: 400, naming the parameter.
        RpcError: BAD_PARAMS, for the messages.
    """
    request, unknown = decode_chat(body)
    refuse_unsupported(request)
    if request.stream_options is not None and not request.stream:
        raise bad_request("'stream_options' is only allowed when 'stream' is on.", "stream_options")
    said = conversation(request.messages)
    ignored = ignored_names(request, unknown) + said.ignored
    if (req.get_header("x-ccd-strict") or "").lower() == "true":
        refuse_ignored(ignored)
    params = sampling(request)
    params["messages"] = said.messages
    if said.system is not None:
        params["system"] = said.system
    chosen = target(request.model, req.get_header("x-ccd-profile"))
    if chosen.profile is not None:
        params["profile"] = chosen.profile
    if chosen.model is not None:
        params["model"] = chosen.model
    return Job(request, params, ignored)


class Events:
    """The body of a streamed answer; closing it cancels the turn if that has not ended."""

    def __init__(
        self, turn: ChatTurn[LineReader], writer: ChunkWriter, keepalive_s: float, include_usage: bool
    ) -> None:
        self._turn = turn
        self._events = _events(turn, writer, keepalive_s, include_usage)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._events

    def __anext__(self) -> Awaitable[bytes]:
        return self._events.__anext__()

    async def close(self) -> None:
        """Called by the framework however the response ended."""
        await self._events.aclose()
        self._turn.close()


async def _events(
    turn: ChatTurn[LineReader], writer: ChunkWriter, keepalive_s: float, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """One piece for each write: all events of what arrived in one read."""
    try:
        yield writer.role() + _chunks(writer, turn.first)
        while (deltas := await turn.deltas(keepalive_s)) is not None:
            if deltas:
                yield _chunks(writer, deltas)
            elif turn.silent:
                yield KEEPALIVE
        tail = writer.usage(usage(turn.result["usage"])) if include_usage else b""
        yield writer.finish(finish_reason(turn.result)) + tail + DONE
    except RpcError as error:
        yield error_event(from_rpc(error).error)
    except Exception:
        _log.exception("a streamed answer failed")
        yield error_event(ApiError(500, "The gateway failed. See its log.").error)


def _chunks(writer: ChunkWriter, deltas: list[Delta]) -> bytes:
    events = [writer.reasoning(raw) if thinking else writer.content(raw) for thinking, raw in deltas]
    return events[0] if len(events) == 1 else b"".join(events)


def _name_ignored(resp: falcon.asgi.Response, names: list[str]) -> None:
    if names:
        resp.set_header("x-ccd-ignored", header_value(names))


def _completion_id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"
