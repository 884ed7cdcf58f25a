"""`POST /v1/chat/completions`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import falcon
import falcon.asgi

from ccd_gateway.answer import choices
from ccd_gateway.answer.backend import Backend
from ccd_gateway.answer.lines import REFUSED, Delta
from ccd_gateway.answer.turn import ChatTurn
from ccd_gateway.chat.parameters import ignored_names, refuse_unsupported
from ccd_gateway.chat.schema import ChatBody, DecodedChat, decode_chat
from ccd_gateway.chat.sse import DONE, ChunkWriter, error_event
from ccd_gateway.chat.translate import (
    completion,
    finish_reason,
    ignored_by_daemon,
    in_clients_words,
    summed,
    to_call,
    usage,
)
from ccd_gateway.conversations.named import conversation_params, header_text
from ccd_gateway.edge.description import (
    ADDRESS,
    ANSWERING,
    COUNT,
    NULLABLE,
    TEXT,
    Description,
    operation,
    record,
    ref,
    typed,
)
from ccd_gateway.edge.routing import Route
from ccd_gateway.edge.work import apart
from ccd_gateway.errors import ApiError
from ccd_gateway.images.confined import Confined
from ccd_gateway.images.local import inline_local_images
from ccd_gateway.images.remote import RemoteImages
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.surface.address import addressed
from ccd_gateway.surface.driver import KEEPALIVE, Surface, Whole
from ccd_gateway.surface.ignored import in_last_event
from ccd_protocol.errors import RpcError
from ccd_protocol.methods import ChatParams

FINGERPRINT = "fp_ccd"


@dataclass(frozen=True, slots=True)
class ChatJob:
    """A chat completion that has been read and found good."""

    request: ChatBody
    params: ChatParams
    ignored: list[str]
    place: Callable[[str], str]  # where the client finds what the daemon calls `messages[1]`

    @property
    def conversation_id(self) -> str | None:
        """The conversation that the answer belongs to, if it belongs to one."""
        return self.params.get("conversation_id")

    @property
    def n(self) -> int:
        """How many answers are asked for."""
        return self.request.n or 1

    @property
    def streamed(self) -> bool:
        """Whether the answer is to come as a stream."""
        return bool(self.request.stream)


class ChatCompletions(Surface[ChatJob]):
    """The resource."""

    def __init__(self, backend: Backend, settings: GatewaySettings) -> None:
        super().__init__(backend, settings)
        self._files = Confined(settings.allowed_roots)
        self._images = RemoteImages(settings)

    async def read(self, req: falcon.asgi.Request, body: bytes) -> ChatJob:
        """Read a request, and the images that it names."""
        decoded = await apart(body, decode_chat, body)
        await inline_local_images(decoded.request.messages, self._files)
        await self._images.inline(decoded.request.messages)
        return await apart(body, read_job, req, decoded, self.settings)

    async def answer(self, job: ChatJob, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Answer, and say in which conversation."""
        await super().answer(job, req, resp)
        if job.conversation_id is not None:
            resp.set_header("x-conversation-id", header_text(job.conversation_id))

    async def whole(self, job: ChatJob) -> Whole:
        """A `chat.completion`."""
        answers = await choices.complete_all(self.backend, job.params, job.n)
        body = completion(
            answers,
            completion_id=_completion_id(),
            created=int(time.time()),
            model=job.request.model,
            fingerprint=FINGERPRINT,
            functions_form=job.request.functions_form,
        )
        if job.conversation_id is not None:
            body["conversation_id"] = job.conversation_id
        return Whole(body, answers, ignored_by_daemon(answers))

    def writer(self, job: ChatJob) -> ChatWriter:
        """Of `chat.completion.chunk`s."""
        options = job.request.stream_options
        return ChatWriter(job, include_usage=bool(options and options.include_usage))

    def in_clients_words(self, job: ChatJob, error: RpcError) -> RpcError:
        """Under OpenAI's names."""
        return in_clients_words(error, functions_form=job.request.functions_form, place=job.place)


def read_job(req: falcon.asgi.Request, decoded: DecodedChat, settings: GatewaySettings) -> ChatJob:
    """Check a request and make the call's parameters of it.

    Raises:
        ApiError: 400, naming the parameter.
        RpcError: BAD_PARAMS, for messages and tools.
    """
    request, unknown, fields = decoded
    refuse_unsupported(request)
    call = to_call(request)
    ignored = ignored_names(request, unknown) + call.ignored
    params = {**call.params, **conversation_params(req, request.conversation_id, request.n or 1, settings)}
    cached = None if request.stream else fields
    stored = "conversation_id" in params  # and stands before what the client has sent
    asked = addressed(req, settings, params, request.model, ignored, cached)
    return ChatJob(request, asked, ignored, str if stored else call.place)


class ChatWriter:
    """Writes the chunks of one completion, of one choice or more."""

    silence = KEEPALIVE

    def __init__(self, job: ChatJob, *, include_usage: bool) -> None:
        completion_id, created = _completion_id(), int(time.time())
        self._include_usage = include_usage
        self._functions_form = job.request.functions_form
        self._choices = [
            ChunkWriter(
                completion_id,
                created,
                job.request.model,
                FINGERPRINT,
                include_usage=include_usage,
                choice=choice,
                functions_form=job.request.functions_form,
                conversation_id=job.conversation_id,
            )
            for choice in range(job.n)
        ]

    def begin(self, turns: Sequence[ChatTurn]) -> bytes:
        """Each choice's role, and what it has said so far."""
        pairs = zip(self._choices, turns, strict=True)
        return b"".join(choice.role() + choice.chunks(turn.taken()) for choice, turn in pairs)

    def maker(self, number: int) -> Callable[[list[Delta]], bytes]:
        """The chunks of one choice."""
        return self._choices[number].chunks

    async def end(self, turns: Sequence[ChatTurn]) -> bytes:
        """Why each choice ended, what was ignored, the usage if it was asked for, and `[DONE]`."""
        results = [turn.result for turn in turns]
        ignored = in_last_event(ignored_by_daemon(results))
        last = None if self._include_usage else self._choices[-1]
        ends = [
            _end(choice, result, ignored if choice is last else {})
            for choice, result in zip(self._choices, results, strict=True)
        ]
        if self._include_usage:
            ends.append(self._choices[0].usage(usage(summed(results)), ignored))
        return b"".join((*ends, DONE))

    def in_clients_words(self, error: RpcError) -> RpcError:
        """Under OpenAI's names."""
        return in_clients_words(error, functions_form=self._functions_form)

    async def fail(self, error: ApiError) -> bytes:
        """An event that every client reports."""
        return error_event(error.error)


def _end(writer: ChunkWriter, result: Mapping[str, Any], further: Mapping[str, Any]) -> bytes:
    refusal = writer.refusal(REFUSED) if result.get("stop_reason") == "refusal" else b""
    return refusal + writer.finish(finish_reason(result, functions_form=writer.functions_form), further)


def _completion_id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"


# --- where it is ---


def routes(backend: Backend, settings: GatewaySettings) -> list[Route]:
    """The one route."""
    return [Route("/v1/chat/completions", ChatCompletions(backend, settings), _description)]


def _description() -> Description:
    message = record({"role": {"const": "assistant"}, "content": NULLABLE})
    choice = record({"index": COUNT, "message": message, "finish_reason": TEXT})
    answer = {
        "id": TEXT,
        "object": {"const": "chat.completion"},
        "created": COUNT,
        "model": TEXT,
        "choices": {"type": "array", "items": choice},
        "usage": record(dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), COUNT)),
    }
    chat = operation(
        "chat",
        ref("ChatCompletion"),
        ANSWERING,
        body=ref("ChatRequest"),
        parameters=ADDRESS,
        streams=True,
        cached=True,
    )
    return Description({"post": chat}, {**typed(ChatBody), "ChatCompletion": record(answer)})
