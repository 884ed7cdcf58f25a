"""How a chat is answered over HTTP, whichever API it was asked in: whole or streamed, with all that can go wrong.

A surface says what is its own: how a request is read (`Surface.read`), what a whole answer looks like (`Surface.whole`)
and how a stream is written (`Writer`). What is the same for all stands here and nowhere else: when an answer begins,
what is said during a silence, what was ignored, where it came from, how a failure ends it, and that its turns are
closed. A surface that did one of these itself would do it differently one day.
"""

from __future__ import annotations

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import falcon
import falcon.asgi
import msgspec

from ccd_gateway.answer import choices
from ccd_gateway.answer.backend import Backend
from ccd_gateway.answer.caching import name_cache
from ccd_gateway.answer.lines import LineReader
from ccd_gateway.answer.turn import ChatTurn, PieceReader
from ccd_gateway.edge.body import read_body
from ccd_gateway.edge.outlet import Body, Express, Outlet, outlet_of, stream_events
from ccd_gateway.errors import JSON, ApiError, fault, from_rpc
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.surface.ignored import header_value, name_ignored
from ccd_protocol.errors import RpcError
from ccd_protocol.methods import ChatParams

#: A comment, with one line end: after two some clients would read an event without data.
KEEPALIVE = b": keep-alive\n"
REFUSED = "The model refused to answer."
_log = logging.getLogger(__name__)


class Job(Protocol):
    """A request that has been read and found good; each surface has a job of its own."""

    @property
    def params(self) -> ChatParams:
        """What to ask the daemon."""

    @property
    def ignored(self) -> list[str]:
        """Parameters without effect, as the client knows them."""

    @property
    def streamed(self) -> bool:
        """Whether the answer is to come as a stream."""

    @property
    def n(self) -> int:
        """How many answers are asked for."""


class Writer(Protocol):
    """Writes one stream. It keeps nothing of the request, which may be large."""

    silence: bytes  #: what is sent when nothing has come for a while

    def begin(self, turns: Sequence[ChatTurn]) -> bytes:
        """The beginning, with what each turn has `taken` until then."""

    def maker(self, number: int) -> Callable[[list[Any]], bytes]:
        """What makes bytes of the pieces of one of the answers; it is called for each read of the socket."""

    async def end(self, turns: Sequence[ChatTurn]) -> bytes:
        """The end, when every turn has its result."""

    def in_clients_words(self, error: RpcError) -> RpcError:
        """A refusal of the daemon's, with the parameter under the name that the client used."""

    async def fail(self, error: ApiError) -> bytes:
        """The end of a stream that fails."""


class Whole(NamedTuple):
    """An answer that is not streamed, and the daemon's results that it was made of."""

    body: Mapping[str, Any]
    results: Sequence[Mapping[str, Any]]
    ignored: Sequence[str] = ()


J = TypeVar("J", bound=Job)


class Surface(ABC, Generic[J]):
    """The resource of one API; one instance per worker process.

    Attributes:
        reader: makes of the CLI's lines what the writer takes.
    """

    reader: Callable[[], PieceReader] = LineReader

    def __init__(self, backend: Backend, settings: GatewaySettings) -> None:
        self.backend = backend
        self.settings = settings

    # --- what a surface fills in ---

    @abstractmethod
    async def read(self, req: falcon.asgi.Request, body: bytes) -> J:
        """Read a request and check it.

        Raises:
            ApiError: 400, naming the parameter.
            RpcError: BAD_PARAMS, likewise.
        """

    @abstractmethod
    async def whole(self, job: J) -> Whole:
        """The whole answer."""

    @abstractmethod
    def writer(self, job: J) -> Writer:
        """What writes a stream."""

    def in_clients_words(self, job: J, error: RpcError) -> RpcError:
        """A refusal of the daemon's, with the parameter under the name that the client used."""
        return error

    # --- what is the same for all ---

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Answer a chat, streamed or whole."""
        job = await self.read(req, await read_body(req, self.settings.max_body_bytes))
        name_ignored(resp, job.ignored)
        try:
            await self.answer(job, req, resp)
        except RpcError as error:
            raise self.in_clients_words(job, error) from None

    async def answer(self, job: J, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Answer a request that has been read."""
        if job.streamed:
            await self._stream(job, req, resp)
            return
        body, results, ignored = await self.whole(job)
        name_ignored(resp, [*job.ignored, *ignored])
        name_cache(resp, results)
        _name_model(resp, [str(result.get("model") or "") for result in results])
        send(resp, body)

    async def _stream(self, job: J, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Begin to answer once the model does, or after a silence, so that most failures have a status."""
        silence_s = self.settings.keepalive_s
        turns = await choices.start_all(self.backend, job.params, job.n, silence_s, self.reader)
        _name_model(resp, [turn.reader.model for turn in turns])
        answer = _Streamed(turns, self.writer(job), outlet_of(req), silence_s)
        stream_events(req, resp, Body(answer.pieces(), answer.close))


class _Streamed:
    """A streamed answer of one turn or more."""

    __slots__ = ("_outlet", "_silence_s", "_turns", "_writer")

    def __init__(self, turns: Sequence[ChatTurn], writer: Writer, outlet: Outlet, silence_s: float) -> None:
        self._turns = turns
        self._writer = writer
        self._outlet = outlet
        self._silence_s = silence_s

    def close(self) -> None:
        """Cancel the turns that have not ended."""
        for turn in self._turns:
            turn.close()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """One piece for each write: all events of what arrived in one read."""
        writer, turns = self._writer, self._turns
        try:
            yield writer.begin(turns)
            if len(turns) == 1:
                made, turn = writer.maker(0), turns[0]
                express = Express(self._outlet, made)
                while (found := await turn.deltas(self._silence_s, express)) is not None:
                    if piece := made(found) if found else writer.silence if turn.silent else b"":
                        yield piece
            else:
                async with contextlib.aclosing(self._merged()) as merged:
                    async for piece in merged:
                        yield piece
            yield await writer.end(turns)
        except RpcError as error:
            yield await writer.fail(from_rpc(writer.in_clients_words(error)))
        except Exception:
            _log.exception("a streamed answer failed")
            yield await writer.fail(fault())

    async def _merged(self) -> AsyncGenerator[bytes, None]:
        makers = [self._writer.maker(number) for number in range(len(self._turns))]
        async with contextlib.aclosing(choices.deltas(self._turns, self._silence_s)) as found:
            async for number, deltas in found:
                if deltas is not None:
                    yield makers[number](deltas) if deltas else self._writer.silence


def _name_model(resp: falcon.asgi.Response, models: Sequence[str]) -> None:
    """Say in `X-CCD-Model` who answers, which may be the fallback model; nothing where it is not known yet."""
    found = header_value(model for model in models if model)
    if found:
        resp.set_header("x-ccd-model", found)


def send(resp: falcon.asgi.Response, body: object) -> None:
    """Answer with JSON."""
    resp.content_type = JSON
    resp.data = msgspec.json.encode(body)
