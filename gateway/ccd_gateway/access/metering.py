"""Limits and budgets around every answer that is asked for with a key.

The backend begins a `Run` before each chat call, whatever surface it is for, so no surface can forget it.
Requests without a key pass by here at the cost of one comparison.

What an answer has cost is known when it ends. While it runs, and when its client leaves early, the cost
is worked out from the tokens that have passed and the price that the ledger has learned for the model, or
that is usual for its family; the prices of cached, written and generated tokens relate to that of input
tokens alike for all models. All open answers of a key count together, also those of other processes.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
from msgspec import Raw, Struct

from ccd_gateway.access.caller import Caller
from ccd_gateway.access.keyfile import Key
from ccd_gateway.access.ledger import Ledger, Used, Verdict
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatAnswer, ChatParams, ChatResult
from ccd_settings.sqlite_file import OneThread

T = TypeVar("T")
_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0
_OUTPUT_WEIGHT = 5.0
_WRITTEN_WEIGHT = 1.25
_CACHED_WEIGHT = 0.1
_FAMILY_USD = {"haiku": 1e-6, "sonnet": 3e-6}  # an input token of a model that has never answered here
_UNKNOWN_USD = 5e-6
_NOTHING_USD = 1e-12  # what sums of fractions leave over
_BYTES_PER_TOKEN = 4
_REFUSED = {
    "concurrent": (Code.UPSTREAM_LIMIT, "This key has as many answers open as it may have"),
    "requests": (Code.UPSTREAM_LIMIT, "This key's limit of requests per minute is reached"),
    "tokens": (Code.UPSTREAM_LIMIT, "This key's limit of tokens per minute is reached"),
    "budget": (Code.BUDGET, "This key's budget for today is used up; days end at 00:00 UTC"),
}


class Books:
    """The ledger, on a thread of its own; opened at the first use in each process.

    Args:
        path: the ledger's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = OneThread("ccd-ledger", self._open, Ledger.close)
        self._prices: dict[str, float] = {}
        self._running: defaultdict[str, float] = defaultdict(float)  # by key

    def price(self, model: str) -> float:
        """USD per unit of weight; a guess for a model that has not answered yet."""
        known = self._prices.get(model)
        if known is not None:
            return known
        return next((usd for name, usd in _FAMILY_USD.items() if name in model), _UNKNOWN_USD)

    def running_usd(self, key: Key) -> float:
        """What the key's open answers in this process have cost so far."""
        return self._running.get(key.id, 0.0)

    def runs_up(self, key: Key, usd: float) -> None:
        """An open answer of the key has cost so much more; less than 0 when it is over."""
        self._running[key.id] += usd
        if self._running[key.id] < _NOTHING_USD:
            del self._running[key.id]

    async def begin(self, key: Key) -> Verdict:
        """See `Ledger.begin`."""
        running_usd = self.running_usd(key)
        return await self._do(lambda ledger: ledger.begin(key, time.time(), running_usd))

    async def spent(self, key: Key) -> float:
        """See `Ledger.spent`."""
        running_usd = self.running_usd(key)
        return await self._do(lambda ledger: ledger.spent(key, time.time(), running_usd))

    def end(self, key: Key, used: Used | None) -> asyncio.Future[None]:
        """See `Ledger.end`. It happens whether or not the result is awaited."""

        running_usd = self.running_usd(key)

        def book(ledger: Ledger) -> None:
            ledger.end(key, used, time.time(), running_usd)
            self._prices = (
                ledger.prices(time.time()) if used and used.model not in self._prices else self._prices
            )

        return self._do(book)

    def close(self) -> None:
        """Write what is still to be written, and close the file."""
        self._file.close()

    def _do(self, work: Callable[[Ledger], T]) -> asyncio.Future[T]:
        def run(ledger: Ledger) -> T:
            with self._told():
                return work(ledger)

        return self._file.do(run)

    def _open(self) -> Ledger:
        with self._told():
            ledger = Ledger(self._path)
            self._prices = ledger.prices(time.time())
            return ledger

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What is wrong with the file is logged, also when nobody waits for the result."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            _log.error("the usage file %s cannot be used: %s", self._path, error)
            raise RpcError(
                Code.STORAGE,
                "The file of what keys have used cannot be written. The gateway's log says more.",
            ) from error


class MeteredAnswer:
    """One answer that was admitted. `end` or `cut` it once; more does no harm."""

    def __init__(self, books: Books, caller: Caller, key: Key, params: ChatParams, spent_usd: float) -> None:
        self._books = books
        self._caller = caller
        self._key = key
        self._params = params
        self._spent_usd = spent_usd  # today, but for the key's open answers in this process
        self._running_usd = 0.0
        self._seen = _Seen()
        self._ended = False
        self._next_look_s = time.monotonic() + _LOOK_EVERY_S
        self._look: asyncio.Future[float] | None = None

    def saw(self, payload: bytes) -> None:
        """Count what passes.

        Raises:
            RpcError: BUDGET, as soon as it can be told that the key's budget is used up.
        """
        self._seen.add(payload)
        if self._key.usd_per_day is not None:
            self._look_at_others()
            self._runs_up_to(self._cost_usd())
            if self._spent_usd + self._books.running_usd(self._key) >= self._key.usd_per_day:
                raise _over_budget()

    async def whole(self, call: Awaitable[Any]) -> ChatAnswer:
        """Wait for an answer that comes in one piece, and book it.

        Raises:
            RpcError: what the call raises; BUDGET when the key's other answers use its budget up meanwhile.
        """
        task = asyncio.ensure_future(call)
        try:
            while not (await asyncio.wait([task], timeout=_LOOK_EVERY_S))[0]:
                if (
                    self._key.usd_per_day is not None
                    and await self._books.spent(self._key) + self._books.running_usd(self._key)
                    >= self._key.usd_per_day
                ):
                    raise _over_budget()
            answer = cast(ChatAnswer, task.result())
            await self.end(answer)
            return answer
        except RpcError as error:
            if not error.data.get("output_started"):
                self._nothing()  # refused or failed before the model was asked, as far as is known
            raise
        finally:
            task.cancel()
            self.cut(asked=True)

    async def end(self, result: ChatResult | ChatAnswer) -> None:
        """Book what the daemon says that the answer has cost."""
        if self._ended:
            return
        self._over()
        # Nobody was asked for an answer from the cache; its usage is that of the first who asked.
        tokens = _Tokens() if result.get("cache") == "hit" else _Tokens.of(result["usage"])
        used = tokens.used(result["model"] or self._model(), result["cost_usd"])
        self._note(used)
        await self._books.end(self._key, used)

    def cut(self, *, asked: bool = False) -> None:
        """Book an answer that was left early, by what has passed.

        Args:
            asked: the model was asked for sure, although nothing has passed here: its input is booked.
        """
        if self._ended:
            return
        self._over()
        tokens = self._seen.tokens()
        if tokens is None and asked:
            tokens = _Tokens(input_tokens=_text_bytes(self._params) // _BYTES_PER_TOKEN)
        used = None
        if tokens is not None:
            used = tokens.used(self._model(), tokens.weight * self._books.price(self._model()))
            self._note(used)
        self._books.end(self._key, used)

    def _over(self) -> None:
        self._ended = True
        self._runs_up_to(0.0)

    def _nothing(self) -> None:
        self._over()
        self._books.end(self._key, None)

    def _model(self) -> str:
        return self._seen.model or self._params.get("model") or "default"

    def _note(self, used: Used) -> None:
        caller = self._caller
        caller.model = used.model
        caller.input_tokens += used.input_tokens + used.cached_tokens
        caller.output_tokens += used.output_tokens
        caller.cost_usd += used.cost_usd

    def _cost_usd(self) -> float:
        tokens = self._seen.tokens()
        return tokens.weight * self._books.price(self._model()) if tokens is not None else 0.0

    def _runs_up_to(self, usd: float) -> None:
        before, self._running_usd = self._running_usd, usd
        if usd != before:
            self._books.runs_up(self._key, usd - before)

    def _look_at_others(self) -> None:
        """Ask the ledger now and then; the answer is used when it is there."""
        if self._look is not None and self._look.done():
            self._spent_usd = self._look.result()
            self._look = None
        now_s = time.monotonic()
        if now_s >= self._next_look_s and self._look is None:
            self._next_look_s = now_s + _LOOK_EVERY_S
            self._look = asyncio.ensure_future(self._books.spent(self._key))


async def begin(books: Books, caller: Caller, key: Key, params: ChatParams) -> MeteredAnswer:
    """Admit one answer.

    Raises:
        RpcError: UPSTREAM_LIMIT or BUDGET, with `retry_after_ms` where waiting helps; STORAGE.
    """
    if not key.limited:
        return MeteredAnswer(books, caller, key, params, 0.0)
    verdict = await books.begin(key)
    caller.headers[:] = verdict.headers
    if verdict.refused is not None:
        code, message = _REFUSED[verdict.refused]
        data = {"retry_after_ms": max(1, round(verdict.wait_s * 1000))} if code is not Code.BUDGET else None
        raise RpcError(code, f"{message}.", data)
    return MeteredAnswer(books, caller, key, params, verdict.spent_usd)


def _over_budget() -> RpcError:
    code, message = _REFUSED["budget"]
    return RpcError(code, f"{message}.", {"output_started": True})


# --- what passes ---


class _Tokens(Struct):
    input_tokens: int = 0
    cache_creation_input_tokens: int | None = 0
    cache_read_input_tokens: int | None = 0
    output_tokens: int = 0

    @classmethod
    def of(cls, usage: Mapping[str, Any]) -> _Tokens:
        return msgspec.convert(dict(usage), cls)

    @property
    def weight(self) -> float:
        written, cached = self.cache_creation_input_tokens or 0, self.cache_read_input_tokens or 0
        weighed = _WRITTEN_WEIGHT * written + _CACHED_WEIGHT * cached + _OUTPUT_WEIGHT * self.output_tokens
        return self.input_tokens + weighed

    def used(self, model: str, cost_usd: float) -> Used:
        written, cached = self.cache_creation_input_tokens or 0, self.cache_read_input_tokens or 0
        return Used(model, self.input_tokens + written, cached, self.output_tokens, self.weight, cost_usd)


class _UsageMessage(Struct):
    model: str = ""
    usage: _Tokens | None = None


class _Spoken(Struct):
    """What a delta adds to the answer; the signature of a thought is no word of it."""

    text: Raw = Raw()
    thinking: Raw = Raw()
    partial_json: Raw = Raw()


class _Counted(Struct):
    output_tokens: int | None = None


class _UsageEvent(Struct):
    type: str = ""
    message: _UsageMessage | None = None
    delta: _Spoken | None = None
    usage: _Counted | None = None


class _UsageLine(Struct):
    event: _UsageEvent | None = None


_decode = msgspec.json.Decoder(_UsageLine).decode
_QUOTES = 2


class _Seen:
    """The tokens of one stream: the input as its first event says, the output by its deltas until the last one says."""

    def __init__(self) -> None:
        self.model = ""
        self._start: _Tokens | None = None
        self._deltas = 0
        self._bytes = 0
        self._counted = 0

    def add(self, payload: bytes) -> None:
        for line in payload.splitlines():
            if b'"content_block_delta"' in line or b'"message_start"' in line or b'"message_delta"' in line:
                try:
                    event = _decode(line).event
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue  # a part of a line, or one of another kind
                if event is not None:
                    self._saw(event)

    def tokens(self) -> _Tokens | None:
        if self._start is None:
            return None
        spoken = self._counted or max(self._deltas, self._bytes // _BYTES_PER_TOKEN)
        return msgspec.structs.replace(self._start, output_tokens=max(self._start.output_tokens, spoken))

    def _saw(self, event: _UsageEvent) -> None:
        if event.type == "message_start" and event.message is not None and self._start is None:
            self.model = event.message.model
            self._start = event.message.usage or _Tokens()
        elif event.type == "message_delta" and event.usage is not None:
            self._counted = max(self._counted, event.usage.output_tokens or 0)
        elif event.type == "content_block_delta" and event.delta is not None:
            said = event.delta
            size = len(bytes(said.text) or bytes(said.partial_json) or bytes(said.thinking)) - _QUOTES
            if size > 0:
                self._deltas += 1
                self._bytes += size


def _text_bytes(value: Any) -> int:
    """Bytes of text in a request; the data of images and files is no text."""
    size, unseen = 0, [value]
    while unseen:
        value = unseen.pop()
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, Mapping):
            unseen += [item for name, item in value.items() if name != "data"]
        elif isinstance(value, list):
            unseen += value
    return size
