"""Scripts for an answer: what they can say, where they are found, which one applies. Pure but for its
counters.

A directive is a JSON object. It comes in the last user text, as `[[offline: {"text": "hi", "deltas": 3}]]`,
or is queued beforehand with `POST /_offline/script`. Its keys are the fields of `Directive`; unknown keys
are refused, so a misspelt script fails instead of passing for an echo. A queued entry that matches goes
before a directive in the text.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from ccd_offline.errors import RefusedError, invalid

_OPEN = "[[offline:"
_CLOSE = "]]"
MAX_COUNTERS = 10_000
MAX_QUEUE = 10_000

_T = TypeVar("_T")
_Count = Annotated[int, Meta(ge=0, le=1_000_000)]
_Milliseconds = Annotated[float, Meta(ge=0, le=3_600_000)]
_Text = Annotated[str, Meta(max_length=16_000_000)]


class ScriptedCall(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A call for the model to make. Without `input` one is made from the tool's schema, without `id` one is
    drawn.
    """

    name: str
    input: dict[str, Any] | None = None
    id: str | None = None
    input_json: str | None = None  # the input as JSON text, sent digit for digit


class Directive(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How to answer one request. Every field has a default that means "as an ordinary echo"."""

    text: _Text | None = None  # the answer; "" means no text block
    repeat: Annotated[int, Meta(ge=1, le=1_000_000)] = 1  # how often the answer's text is repeated
    deltas: _Count = 0  # the number of deltas that it is cut into; without `text` the answer is "w1 w2 … wN"
    thinking: _Text | None = None  # said first, in a request that has thinking on
    tool_calls: Annotated[list[ScriptedCall], Meta(max_length=1000)] = []
    stop_reason: str | None = None
    stop_details: dict[str, Any] | None = None
    usage: dict[str, Any] = {}  # replaces single figures

    # What the protocol allows and the real API does seldom or never; other Messages APIs do.
    whole_inputs: bool = False  # a call's input stands in the start of its block, and there are no deltas
    interleaved: bool = False  # the deltas of all blocks take turns

    delay_ms: _Milliseconds = 0  # before the first byte
    first_ms: _Milliseconds = 0  # between message_start and the first block
    delta_ms: _Milliseconds = 0  # before every delta but the first

    # Faults, in place of the answer or in the middle of it.
    status: Annotated[int, Meta(ge=400, le=599)] | None = None
    error_type: str | None = None
    message: str | None = None
    retry_after_s: Annotated[float, Meta(ge=0, le=86_400)] | None = None
    headers: dict[str, str] = {}
    cut_after_deltas: _Count | None = None  # the connection is closed in mid-stream
    error_after_deltas: _Count | None = None  # an `error` event ends the stream
    hang_after_deltas: _Count | None = None  # nothing more is sent, the connection stays open
    hang: bool = False  # not even headers are sent
    no_end: bool = False  # the stream ends in order, but without message_delta and message_stop
    times: Annotated[int, Meta(ge=1)] | None = None  # how many requests a fault hits; None: all

    @property
    def faulty(self) -> bool:
        """Whether any fault is asked for."""
        after = (self.cut_after_deltas, self.error_after_deltas, self.hang_after_deltas)
        return (
            self.hang or self.no_end or self.status is not None or any(count is not None for count in after)
        )

    def healed(self) -> Directive:
        """The same answer without its faults."""
        return msgspec.structs.replace(
            self,
            status=None,
            cut_after_deltas=None,
            error_after_deltas=None,
            hang_after_deltas=None,
            hang=False,
            no_end=False,
        )

    def refusal(self) -> RefusedError:
        """The error answer that `status` asks for."""
        headers = dict(self.headers)
        if self.retry_after_s is not None:
            headers["retry-after"] = f"{self.retry_after_s:g}"
        return RefusedError(self.status or 500, self.message or "", self.error_type or "", headers)


class Match(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which requests a queued directive is for; what is not given matches all."""

    model: str | None = None  # exact
    contains: str | None = None  # somewhere in the last user text

    def fits(self, model: str, text: str) -> bool:
        """Whether a request fits."""
        return (self.model is None or self.model == model) and (
            self.contains is None or self.contains in text
        )


class Queued(msgspec.Struct, forbid_unknown_fields=True):
    """A directive waiting for its request; `uses` -1 means that it is never used up."""

    reply: Directive
    match: Match = msgspec.field(default_factory=Match)
    uses: Annotated[int, Meta(ge=-1)] = 1


def find(text: str) -> tuple[str, Directive] | None:
    """The last directive in a text, with its source.

    Raises:
        RefusedError: it is no valid directive; the message says why.
    """
    start = text.rfind(_OPEN)
    if start < 0:
        return None
    brace = len(text) - len(text[start + len(_OPEN) :].lstrip())
    try:
        value, end = json.JSONDecoder().raw_decode(text, brace)
    except (ValueError, RecursionError) as error:
        raise invalid(f"offline directive: not valid JSON: {error}") from error
    if not text[end:].lstrip().startswith(_CLOSE):
        raise invalid("offline directive: it must end with ]] after its JSON object")
    return text[brace:end], parse(value, Directive)


def parse(value: Any, kind: type[_T]) -> _T:
    """Decoded JSON as a directive or queue entry, or a refusal that names the field."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise invalid(f"offline directive: {error}") from error


class Scripts:
    """The queue of scripted answers, and how often each faulty directive was met. Bounded."""

    def __init__(self) -> None:
        self._queue: list[Queued] = []
        self._met: OrderedDict[str, int] = OrderedDict()

    def reset(self) -> None:
        """Forget everything."""
        self._queue.clear()
        self._met.clear()

    def add(self, entries: list[Queued]) -> int:
        """Queue entries; the result is the queue's length."""
        if len(self._queue) + len(entries) > MAX_QUEUE:
            raise invalid(
                f"offline script: the queue holds at most {MAX_QUEUE} entries; POST /_offline/reset"
                " empties it"
            )
        self._queue += entries
        return len(self._queue)

    def pick(self, model: str, text: str) -> Directive:
        """The directive for a request: a queued one that matches, else the text's own, else the echo."""
        for index, entry in enumerate(self._queue):
            if entry.match.fits(model, text):
                return self._take(index, entry)
        found = find(text)
        return self._after(*found) if found else Directive()

    def _take(self, index: int, entry: Queued) -> Directive:
        directive = self._after(f"queued {id(entry)}", entry.reply)
        entry.uses -= entry.uses > 0
        if entry.uses == 0:
            del self._queue[index]
        return directive

    def _after(self, key: str, directive: Directive) -> Directive:
        """The directive as it is when met once more: healed when its faults have had their `times`."""
        if directive.times is None or not directive.faulty:
            return directive
        met = self._met.get(key, 0) + 1
        self._met[key] = met
        self._met.move_to_end(key)
        if len(self._met) > MAX_COUNTERS:
            self._met.popitem(last=False)
        return directive.healed() if met > directive.times else directive
