"""`POST /v1/messages` and `POST /v1/messages/count_tokens`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import falcon
import falcon.asgi

from ccd_gateway.access.caller import caller_of
from ccd_gateway.answer.backend import Backend
from ccd_gateway.answer.turn import ChatTurn
from ccd_gateway.anthropic.events import EventReader, MessageEvent
from ccd_gateway.anthropic.message import Collector
from ccd_gateway.anthropic.request import IGNORED_HEADERS, ignored_by_daemon, read_betas, to_params
from ccd_gateway.anthropic.schema import MessagesRequest, decode, decode_message
from ccd_gateway.anthropic.sse import PING, EventWriter, framed
from ccd_gateway.edge.absent import unknown_route
from ccd_gateway.edge.body import read_body
from ccd_gateway.edge.description import (
    ADDRESS,
    ANSWERING,
    COUNT,
    NULLABLE,
    TEXT,
    Description,
    in_header,
    operation,
    record,
    ref,
    typed,
)
from ccd_gateway.edge.routing import ANY, Refusing, Route
from ccd_gateway.edge.work import apart
from ccd_gateway.errors import ApiError
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.shapes import MESSAGES
from ccd_gateway.surface.address import addressed
from ccd_gateway.surface.driver import Surface, Whole, send
from ccd_gateway.surface.ignored import in_last_event
from ccd_gateway.surface.prompt import Prompt
from ccd_gateway.surface.tokens import estimate
from ccd_protocol.errors import RpcError
from ccd_protocol.methods import ChatParams

_OVERLOADED = {529: "The model API is overloaded."}


class MessageJob(NamedTuple):
    """A message that has been asked for, read and found good."""

    model: str  # as the client named it
    streamed: bool
    params: ChatParams
    ignored: list[str]
    request_id: str

    @property
    def n(self) -> int:
        """How many answers are asked for."""
        return 1


class Messages(Surface[MessageJob]):
    """The resource."""

    reader = EventReader

    async def read(self, req: falcon.asgi.Request, body: bytes) -> MessageJob:
        """Read a request and the headers that belong to it."""
        request, values = await apart(body, decode_message, body)
        betas = read_betas(req.get_header("anthropic-beta"))
        ignored = (
            betas.ignored + [name for name in IGNORED_HEADERS if req.get_header(name) is not None] + values
        )
        params = addressed(req, self.settings, to_params(request, betas), request.model, ignored)
        return MessageJob(request.model, bool(request.stream), params, ignored, caller_of(req).request_id)

    async def whole(self, job: MessageJob) -> Whole:
        """A Message, of the same stream of the daemon's as a streamed one, so both have the same content."""
        patience_s = self.settings.request_timeout_s
        turn = await self.backend.start(job.params, patience_s, EventReader)
        collector = Collector(job.model)
        try:
            collector.add(turn.taken())
            while (events := await turn.deltas(patience_s)) is not None:
                collector.add(events)
        finally:
            turn.close()
        collector.add(_last(turn))
        return Whole(collector.message(), [turn.result], ignored_by_daemon(turn.result["ignored"]))

    def writer(self, job: MessageJob) -> MessageWriter:
        """Of the API's own events."""
        return MessageWriter(job.model, job.request_id)


class MessageWriter:
    """Writes the events of one message."""

    silence = PING

    def __init__(self, model: str, request_id: str) -> None:
        self._write = EventWriter(model).write
        self._request_id = request_id

    def begin(self, turns: Sequence[ChatTurn]) -> bytes:
        """What the API has said so far; a ping if nothing."""
        return self._write(turns[0].taken()) or PING

    def maker(self, number: int) -> Callable[[list[MessageEvent]], bytes]:
        """The events."""
        return self._write

    async def end(self, turns: Sequence[ChatTurn]) -> bytes:
        """What was ignored, and what is still missing of the message."""
        [turn] = turns
        return self._write(_last(turn, in_last_event(ignored_by_daemon(turn.result["ignored"]))))

    def in_clients_words(self, error: RpcError) -> RpcError:
        """The daemon's are this API's."""
        return error

    async def fail(self, error: ApiError) -> bytes:
        """An `error` event."""
        return framed("error", MESSAGES.render(error, self._request_id).body)


def _last(turn: ChatTurn, further: Mapping[str, Any] | None = None) -> list[MessageEvent]:
    return cast(EventReader, turn.reader).finish(turn.result, further)


class CountTokens:
    """The resource. The CLI cannot count a prompt of ours, so the answer is an estimate, and says so."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Estimate the tokens of a prompt."""
        body = await read_body(req, self._settings.max_body_bytes)
        prompt = await apart(body, decode, body, Prompt)
        resp.set_header("x-ccd-estimated", "true")
        send(resp, {"input_tokens": await apart(body, estimate, prompt)})


# --- where they are ---


def routes(backend: Backend, settings: GatewaySettings) -> list[Route]:
    """The two routes; what is not there below them is refused in this API's shape."""
    return [
        Route("/v1/messages", Messages(backend, settings), _message, shape=MESSAGES),
        Route("/v1/messages/count_tokens", CountTokens(settings), _count, shape=MESSAGES),
        Route("/v1/messages/{rest:path}", Refusing(_absent), scopes=ANY, shape=MESSAGES),
    ]


def _absent(method: str, path: str) -> ApiError:
    return unknown_route(method, path, ("/v1/messages", "/v1/messages/count_tokens"))


def _message() -> Description:
    beta = in_header("anthropic-beta", {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,100}$"})
    answer = {
        "id": TEXT,
        "type": {"const": "message"},
        "role": {"const": "assistant"},
        "model": TEXT,
        "content": {"type": "array", "items": record({"type": TEXT})},
        "stop_reason": NULLABLE,
        "usage": record({"input_tokens": COUNT, "output_tokens": COUNT}),
    }
    post = operation(
        "message",
        ref("Message"),
        {**ANSWERING, **_OVERLOADED},
        shape=MESSAGES,
        body=ref("MessagesRequest"),
        parameters=[*ADDRESS, beta],
        streams=True,
    )
    return Description({"post": post}, {**typed(MessagesRequest), "Message": record(answer)})


def _count() -> Description:
    refusals = {**ANSWERING, **_OVERLOADED}
    count = record({"input_tokens": COUNT})
    post = operation("count_tokens", count, refusals, shape=MESSAGES, body=ref("Prompt"))
    return Description({"post": post}, typed(Prompt))
