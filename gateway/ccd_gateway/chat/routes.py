"""`POST /v1/chat/completions`."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import falcon
import falcon.asgi
import msgspec

from ccd_gateway.answer import choices
from ccd_gateway.answer.backend import Backend
from ccd_gateway.answer.caching import cache_use, name_cache
from ccd_gateway.answer.turn import ChatTurn
from ccd_gateway.chat.parameters import header_value, ignored_names, refuse_ignored, refuse_unsupported
from ccd_gateway.chat.schema import ChatRequest, Decoded, decode_chat
from ccd_gateway.chat.sse import DONE, KEEPALIVE, ChunkWriter, error_event, ignored_comment
from ccd_gateway.chat.translate import (
    REFUSED,
    completion,
    finish_reason,
    ignored_by_daemon,
    in_clients_words,
    summed,
    target,
    to_call,
    usage,
)
from ccd_gateway.conversations.named import conversation_params, header_text
from ccd_gateway.edge.body import read_body
from ccd_gateway.edge.outlet import Body, Express, Outlet, outlet_of, stream_events
from ccd_gateway.errors import JSON, ApiError, from_rpc
from ccd_gateway.images.confined import Confined
from ccd_gateway.images.local import inline_local_images
from ccd_gateway.images.remote import RemoteImages
from ccd_gateway.settings import GatewaySettings
from ccd_protocol.errors import RpcError
from ccd_protocol.methods import ChatParams

FINGERPRINT = "fp_ccd"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """A request that has been read and found good."""

    request: ChatRequest
    params: ChatParams
    ignored: list[str]

    @property
    def conversation_id(self) -> str | None:
        """The conversation that the answer belongs to, if it belongs to one."""
        return self.params.get("conversation_id")

    @property
    def wanted(self) -> int:
        """How many answers are wanted."""
        return self.request.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        options = self.request.stream_options
        return bool(options and options.include_usage)


class ChatCompletions:
    """The resource; one instance per worker process."""

    def __init__(self, backend: Backend, settings: GatewaySettings) -> None:
        self._backend = backend
        self._settings = settings
        self._files = Confined(settings.allowed_roots)
        self._images = RemoteImages(settings)

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Answer a chat, streamed or whole."""
        decoded = decode_chat(await read_body(req, self._settings.max_body_bytes))
        await inline_local_images(decoded.request.messages, self._files)
        await self._images.inline(decoded.request.messages)
        job = read_job(req, decoded, self._settings)
        try:
            if job.request.stream:
                await self._stream(job, req, resp)
            else:
                await self._complete(job, resp)
            if job.conversation_id is not None:
                resp.set_header("x-conversation-id", header_text(job.conversation_id))
        except RpcError as error:
            raise in_clients_words(error, legacy=job.request.legacy) from None

    async def _complete(self, job: Job, resp: falcon.asgi.Response) -> None:
        answers = await choices.complete_all(self._backend, job.params, job.wanted)
        body = completion(
            answers,
            completion_id=_completion_id(),
            created=int(time.time()),
            model=job.request.model,
            fingerprint=FINGERPRINT,
            legacy=job.request.legacy,
        )
        if job.conversation_id is not None:
            body["conversation_id"] = job.conversation_id
        _name_ignored(resp, job.ignored + ignored_by_daemon(answers))
        name_cache(resp, answers)
        resp.content_type = JSON
        resp.data = msgspec.json.encode(body)

    async def _stream(self, job: Job, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Begin to answer once the model does, or after a silence, so that most failures have a status."""
        turns = await choices.start_all(self._backend, job.params, job.wanted, self._settings.keepalive_s)
        _name_ignored(resp, job.ignored)
        answer = Answer(turns, _writers(job), outlet_of(req), self._settings.keepalive_s)
        stream_events(req, resp, Body(answer.pieces(job.include_usage), answer.close))


def read_job(req: falcon.asgi.Request, decoded: Decoded, settings: GatewaySettings) -> Job:
    """Check a request and make the call's parameters of it.

    Raises:
        ApiError: 400, naming the parameter.
        RpcError: BAD_PARAMS, for messages and tools.
    """
    request, unknown, fields = decoded
    refuse_unsupported(request)
    call = to_call(request)
    ignored = ignored_names(request, unknown) + call.ignored
    params: dict[str, Any] = {**call.params}
    if (req.get_header("x-ccd-strict") or "").lower() == "true":
        refuse_ignored(ignored)
        params["strict"] = True
    chosen = target(settings.model_for(request.model), req.get_header("x-ccd-profile"))
    for name, value in (("profile", chosen.profile), ("model", chosen.model)):
        if value is not None:
            params[name] = value
    params |= conversation_params(req, request, settings)
    if not request.stream:
        params["cache"] = cache_use(req, fields)
    return Job(request, params, ignored)  # type: ignore[arg-type]  # built by key; the daemon checks it


class Answer:
    """A streamed answer of one choice or more. It keeps nothing of the request, which may be large."""

    __slots__ = ("_keepalive_s", "_outlet", "_turns", "_writers")

    def __init__(
        self, turns: Sequence[ChatTurn], writers: Sequence[ChunkWriter], outlet: Outlet, keepalive_s: float
    ) -> None:
        self._turns = turns
        self._writers = writers
        self._outlet = outlet
        self._keepalive_s = keepalive_s

    def close(self) -> None:
        """Cancel the turns that have not ended."""
        for turn in self._turns:
            turn.close()

    async def pieces(self, include_usage: bool) -> AsyncGenerator[bytes, None]:
        """One piece for each write: all events of what arrived in one read."""
        legacy = self._writers[0].legacy
        try:
            yield self._begin()
            if len(self._turns) == 1:
                turn, made = self._turns[0], self._writers[0].chunks
                while (
                    found := await turn.deltas(self._keepalive_s, Express(self._outlet, made))
                ) is not None:
                    if piece := made(found) if found else KEEPALIVE if turn.silent else b"":
                        yield piece
            else:
                async with contextlib.aclosing(self._merged()) as merged:
                    async for piece in merged:
                        yield piece
            yield self._end(include_usage)
        except RpcError as error:
            yield error_event(from_rpc(in_clients_words(error, legacy=legacy)).error)
        except Exception:
            _log.exception("a streamed answer failed")
            yield error_event(ApiError(500, "The gateway failed. See its log.").error)

    def _begin(self) -> bytes:
        pairs = list(zip(self._writers, self._turns, strict=True))
        begin = b"".join(writer.role() + writer.chunks(turn.first) for writer, turn in pairs)
        for turn in self._turns:
            turn.first = []
        return begin

    async def _merged(self) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(choices.deltas(self._turns, self._keepalive_s)) as found:
            async for number, deltas in found:
                if deltas is not None:
                    yield self._writers[number].chunks(deltas) if deltas else KEEPALIVE

    def _end(self, include_usage: bool) -> bytes:
        results = [turn.result for turn in self._turns]
        ends = [_end(writer, result) for writer, result in zip(self._writers, results, strict=True)]
        tail = self._writers[0].usage(usage(summed(results))) if include_usage else b""
        return b"".join((*ends, ignored_comment(ignored_by_daemon(results)), tail, DONE))


def _writers(job: Job) -> list[ChunkWriter]:
    """One for each answer; they make chunks of one completion."""
    completion_id, created = _completion_id(), int(time.time())
    return [
        ChunkWriter(
            completion_id,
            created,
            job.request.model,
            FINGERPRINT,
            include_usage=job.include_usage,
            choice=choice,
            legacy=job.request.legacy,
            conversation_id=job.conversation_id,
        )
        for choice in range(job.wanted)
    ]


def _end(writer: ChunkWriter, result: Mapping[str, Any]) -> bytes:
    refusal = writer.refusal(REFUSED) if result.get("stop_reason") == "refusal" else b""
    return refusal + writer.finish(finish_reason(result, legacy=writer.legacy))


def _name_ignored(resp: falcon.asgi.Response, names: list[str]) -> None:
    if names:
        resp.set_header("x-ccd-ignored", header_value(names))


def _completion_id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"
