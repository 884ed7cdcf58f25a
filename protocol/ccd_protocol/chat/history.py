"""What the Messages API wants of a history, and how one that it would refuse is mended. Pure.

The one rule for every surface: the clients and the gateway apply it to what they have read, with the paths that their
callers know, and the daemon applies it to what is left, stored conversations included. A history that is as the API
wants it is not changed.

The user of a chat cannot mend its past: a turn that was stopped, a window that was trimmed, results that came in
another order. So nothing of that is refused. What is left out or made up is named, for strict callers to refuse; only
what cannot be understood at all, such as the result of a call that nobody made, is a BAD_PARAMS that names the place.

Not here: what depends on the model (an assistant's turn at the end, which some models go on with, and whose thinking a
turn holds), which only the daemon knows.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import Message

Block = dict[str, Any]

OPENING = "(The assistant begins.)"
MISSING_RESULT = "(The result of this call is not known.)"
_UNSAFE_IN_ID = re.compile(r"[^A-Za-z0-9_-]")
_WIRE_PATH = re.compile(r"messages\[(\d{1,9})\](?:\.content\[(\d{1,9})\])?")
_FIT_ID = re.compile(r"[A-Za-z0-9_-]+")
_REPEATED = re.compile(r"--\d+\Z")
_FOREIGN = {"user": "tool_use", "assistant": "tool_result"}
_THINKING = ("thinking", "redacted_thinking")


class Piece(NamedTuple):
    """A content block, and where its caller finds it."""

    block: Block
    path: str


class HistoryMessage(NamedTuple):
    """A message.

    Attributes:
        role: user or assistant.
        pieces: its blocks. Those of type `tool_use` and `tool_result` may have any ids.
        path: where its caller finds it.
        text: its content, where that is a plain text, which then stays one.
    """

    role: str
    pieces: list[Piece]
    path: str
    text: str | None = None

    def message(self) -> Message:
        """Returns the turn as the API has it."""
        return {
            "role": self.role,
            "content": [piece.block for piece in self.pieces] if self.text is None else self.text,
        }


class Mended(NamedTuple):
    """A history that the API takes.

    Attributes:
        messages: it.
        named: paths of what was left out, or of what something was made up for.
    """

    messages: list[Message]
    named: list[str]
    turns: Sequence[HistoryMessage] = ()  #: the messages with the paths that they and their blocks come from


def turns_of(messages: Iterable[Message]) -> list[HistoryMessage]:
    """Returns messages of the wire's own shape as turns."""
    found = []
    for index, message in enumerate(messages):
        path, content = f"messages[{index}]", message["content"]
        text = content if isinstance(content, str) else None
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        pieces = [Piece(block, f"{path}.content[{number}]") for number, block in enumerate(blocks)]
        found.append(HistoryMessage(message["role"], pieces, path, text))
    return found


def mended(turns: Sequence[HistoryMessage], *, continued: bool = False) -> Mended:
    """Make of a history one that the API takes.

    Args:
        turns: in order.
        continued: a stored conversation stands before it: the assistant may begin it, and so may results.

    Returns the messages, and the paths of all that had to be left out or made up.

    Raises:
        RpcError: BAD_PARAMS with `data["param"]`: a result without its call, two results of a call, an empty question,
            or nothing at all.
    """
    named: list[str] = []
    groups = _groups(_spoken(turns, named))
    calls = _Calls(groups, continued=continued)
    said: list[HistoryMessage] = []
    for number, group in enumerate(groups):
        if group[0].role == "assistant":
            said += _joined([calls.renamed(turn) for turn in group])
            said += calls.results_of(number, group, named)
        else:
            said += [rest for turn in group if (rest := _without_results(turn, calls)) is not None]
    said = _with_results_in_place(said)
    if said and said[0].role == "assistant" and not continued:
        said.insert(0, HistoryMessage("user", [], said[0].path, OPENING))
    if not said:
        _refuse("messages", "must hold at least one user message")
    return Mended([turn.message() for turn in said], named, said)


def is_sound(messages: Sequence[Message]) -> bool:
    """Returns whether a history is as the API wants it, and `mended` would change nothing, at a tenth of its cost."""
    seen: set[str] = set()
    waiting: list[str] = []
    if not messages or messages[0]["role"] != "user":
        return False
    for message in messages:
        role, content = message["role"], message["content"]
        if waiting and role != "user":
            return False
        if isinstance(content, str):
            if waiting or not content.strip():
                return False
            continue
        calls, results, says = _ids_in(content, role)
        if not says or not seen.isdisjoint(calls) or len(set(calls)) < len(calls):
            return False
        if sorted(results) != sorted(waiting):
            return False
        seen.update(calls)
        waiting = calls
    return not waiting


def _ids_in(content: Sequence[Block], role: str) -> tuple[list[str], list[str], bool]:
    """Ids of calls, ids of the results at the head, and whether all of it is in place and says something."""
    calls: list[str] = []
    results: list[str] = []
    says = others = False
    for block in content:
        kind = block.get("type")
        if kind == "tool_use":
            call_id = block.get("id")
            if role != "assistant" or not isinstance(call_id, str) or not _FIT_ID.fullmatch(call_id):
                return [], [], False
            calls.append(call_id)
        elif kind == "tool_result":
            if role != "user" or others:
                return [], [], False
            results.append(str(block.get("tool_use_id")))
        else:
            others = True
        if kind == "text" and not str(block.get("text") or "").strip():
            return [], [], False
        says = says or kind not in _THINKING
    return calls, results, says


def place(turns: Sequence[HistoryMessage], param: str) -> str:
    """Returns the caller's path of what is `messages[1].content[0]…` in the mended history; other names stay."""
    found = _WIRE_PATH.match(param)
    if found is None or int(found[1]) >= len(turns):
        return param
    turn = turns[int(found[1])]
    if found[2] is None or int(found[2]) >= len(turn.pieces):
        return turn.path
    return turn.pieces[int(found[2])].path


def original_id(call_id: str) -> str:
    """Returns the id that a call had before it was made unique."""
    return _REPEATED.sub("", call_id)


# --- turns that say nothing ---


def _spoken(turns: Sequence[HistoryMessage], named: list[str]) -> list[HistoryMessage]:
    """Returns the turns that say something; of the others the question that is to be answered now is refused."""
    found: list[HistoryMessage] = []
    for turn in turns:
        for piece in turn.pieces:
            if piece.block.get("type") == _FOREIGN[turn.role]:
                _refuse(piece.path, f"is a {_FOREIGN[turn.role]}, which is not the {turn.role}'s")
        kept = turn._replace(pieces=[piece for piece in turn.pieces if _says_something(piece.block)])
        if any(piece.block.get("type") not in _THINKING for piece in kept.pieces):
            found.append(kept)
            continue
        if turn is turns[-1] and turn.role == "user" and not (found and found[-1].role == "user"):
            _refuse(f"{turn.path}.content", "must not be empty")
        named.append(f"{turn.path}.content")
    return found


def _says_something(block: Block) -> bool:
    """The API refuses texts without a visible character."""
    return block.get("type") != "text" or bool(str(block.get("text") or "").strip())


# --- calls and their results ---


class _HistoryCall:
    """A tool call: its id on the wire, where it is, and its result."""

    __slots__ = ("group", "id", "path", "result")

    def __init__(self, id: str, group: int, path: str) -> None:
        self.id = id
        self.group = group
        self.path = path
        self.result: Piece | None = None


class _Ids:
    """Ids as they go over the wire: fit for the API, and each only once."""

    def __init__(self, given: Iterable[str]) -> None:
        self._given = set(given)
        self._used: set[str] = set()
        self._repeats: dict[str, int] = {}

    def unique(self, fitted: str) -> str:
        """Returns the id itself the first time, and then others that nobody has."""
        found = fitted
        while found in self._used or (found != fitted and found in self._given):
            self._repeats[fitted] = self._repeats.get(fitted, 1) + 1
            found = f"{fitted}--{self._repeats[fitted]}"
        self._used.add(found)
        return found


class _Calls:
    """Which result belongs to which call: of calls with the same id, to one of the latest turn that waits for it."""

    def __init__(self, groups: Sequence[Sequence[HistoryMessage]], *, continued: bool) -> None:
        self._of: dict[int, _HistoryCall] = {}  # by piece
        self._waiting: dict[
            str, list[deque[_HistoryCall]]
        ] = {}  # by id: the calls of each group without a result
        self._answered: dict[int, list[_HistoryCall]] = {}  # by group, in the order of the results
        self._foreign: set[int] = set()  # results of calls that a stored conversation holds
        ids = _Ids(
            _fit_id(piece) for group in groups for turn in group for piece in turn.pieces if _is_call(piece)
        )
        begun = False
        for number, group in enumerate(groups):
            begun = begun or group[0].role == "assistant"
            for piece in (piece for turn in group for piece in turn.pieces):
                if _is_call(piece):
                    self._add(piece, _HistoryCall(ids.unique(_fit_id(piece)), number, piece.path))
                elif _is_result(piece):
                    self._match(piece, foreign=continued and not begun)

    def _add(self, piece: Piece, call: _HistoryCall) -> None:
        self._of[id(piece)] = call
        waiting = self._waiting.setdefault(piece.block["id"], [])
        if not waiting or waiting[-1][0].group != call.group:
            waiting.append(deque())
        waiting[-1].append(call)

    def _match(self, piece: Piece, *, foreign: bool) -> None:
        given = piece.block.get("tool_use_id")
        if not isinstance(given, str) or not given:
            _refuse(_id_path(piece), "must be the id of a tool call")
        waiting = self._waiting.get(given)
        if waiting is None and foreign:
            self._foreign.add(id(piece))
        elif waiting is None:
            _refuse(_id_path(piece), f"{given[:80]!r} is not the id of a tool call before it")
        elif not waiting:
            _refuse(_id_path(piece), f"{given[:80]!r} has its result already")
        else:
            call = waiting[-1].popleft()
            if not waiting[-1]:
                waiting.pop()
            call.result = piece
            self._answered.setdefault(call.group, []).append(call)

    def is_foreign(self, piece: Piece) -> bool:
        """Returns whether a result belongs to a call that is not in the list."""
        return id(piece) in self._foreign

    def renamed(self, turn: HistoryMessage) -> HistoryMessage:
        """Returns the turn with its calls' ids as they go over the wire."""
        pieces = [
            piece._replace(block={**piece.block, "id": self._of[id(piece)].id}) if _is_call(piece) else piece
            for piece in turn.pieces
        ]
        return turn._replace(pieces=pieces)

    def results_of(
        self, number: int, group: Sequence[HistoryMessage], named: list[str]
    ) -> list[HistoryMessage]:
        """Returns the turn of results that must follow a group of the assistant's, none where it called no tool."""
        pieces = [
            Piece({**call.result.block, "tool_use_id": call.id}, call.result.path)
            for call in self._answered.get(number, ())
            if call.result is not None
        ]
        made = (self._of[id(piece)] for turn in group for piece in turn.pieces if _is_call(piece))
        for call in made:
            if call.result is None:
                named.append(call.path)
                pieces.append(
                    Piece(
                        {"type": "tool_result", "tool_use_id": call.id, "content": MISSING_RESULT}, call.path
                    )
                )
        return [HistoryMessage("user", pieces, group[-1].path)] if pieces else []


def _is_call(piece: Piece) -> bool:
    return piece.block.get("type") == "tool_use"


def _is_result(piece: Piece) -> bool:
    return piece.block.get("type") == "tool_result"


def _groups(turns: Sequence[HistoryMessage]) -> list[list[HistoryMessage]]:
    """Neighbours of one role together."""
    groups: list[list[HistoryMessage]] = []
    for turn in turns:
        if groups and groups[-1][0].role == turn.role:
            groups[-1].append(turn)
        else:
            groups.append([turn])
    return groups


def _joined(group: list[HistoryMessage]) -> list[HistoryMessage]:
    """A group of the assistant's as one turn where it calls a tool: the results must follow all of it directly."""
    if len(group) == 1 or not any(_is_call(piece) for turn in group for piece in turn.pieces):
        return group
    return [HistoryMessage("assistant", [piece for turn in group for piece in turn.pieces], group[0].path)]


def _without_results(turn: HistoryMessage, calls: _Calls) -> HistoryMessage | None:
    """Returns a user's turn without the results that have gone to their calls; None where nothing is left of it."""
    left = [piece for piece in turn.pieces if not _is_result(piece) or calls.is_foreign(piece)]
    if len(left) == len(turn.pieces):
        return turn
    return turn._replace(pieces=left) if left else None


def _with_results_in_place(said: Sequence[HistoryMessage]) -> list[HistoryMessage]:
    """Results stand at the head of the turn that follows them, if the user goes on speaking."""
    found: list[HistoryMessage] = []
    heads = 0  # results at the head of the last turn, where it is the user's and still takes more
    for turn in said:
        results = [piece for piece in turn.pieces if _is_result(piece)] if turn.role == "user" else []
        if heads and turn.role == "user":
            others = [piece for piece in turn.pieces if not _is_result(piece)] if results else turn.pieces
            found[-1].pieces[heads:heads] = results
            found[-1].pieces.extend(others)
            heads += len(results)
            continue
        heads = len(results)
        ordered = sorted(turn.pieces, key=lambda piece: not _is_result(piece))
        found.append(HistoryMessage("user", ordered, turn.path) if results else turn)
    return found


def _fit_id(piece: Piece) -> str:
    """Returns a call's id as the API takes it; other providers' ids may hold more kinds of characters."""
    value = piece.block.get("id")
    if not isinstance(value, str) or not value:
        _refuse(f"{piece.path}.id", "must be the id of a tool call")
    return _UNSAFE_IN_ID.sub("_", value)


def _id_path(piece: Piece) -> str:
    """Returns where a caller finds the id of a result: a message of its own has another word for it than a block."""
    inside = piece.path.endswith("]") and ".content[" in piece.path
    return f"{piece.path}.tool_use_id" if inside else f"{piece.path}.tool_call_id"


def _refuse(param: str, problem: str) -> NoReturn:
    raise RpcError(Code.BAD_PARAMS, f"{param} {problem}", {"param": param})
