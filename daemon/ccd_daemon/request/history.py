"""The turns of a conversation as the CLI is to hear them, and whether they make sense. Pure.

A client may split a turn into several messages (one for each tool result, say); the model API makes one of them, and so
does `turns`. A call and its results must be neighbours: what contradicts itself is refused before anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ccd_daemon.request.body import bad
from ccd_protocol.methods import Message

Block = dict[str, Any]

#: What the model is told of a call that the client has left without a result, while others have one.
NO_RESULT = "The client gave no result for this call."


class Speech(NamedTuple):
    """What one side said before the other spoke."""

    role: str
    blocks: list[Block]

    @property
    def calls(self) -> list[str]:
        """The ids of its tool calls, in their order."""
        return [str(block.get("id")) for block in self.blocks if block["type"] == "tool_use"]

    @property
    def results(self) -> dict[str, Block]:
        """Its tool results by the id of their call."""
        return {
            str(block.get("tool_use_id")): block for block in self.blocks if block["type"] == "tool_result"
        }


def blocks_of(content: str | list[Block]) -> list[Block]:
    """Content as blocks, whatever form it came in."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def turns(messages: Sequence[Message]) -> list[Speech]:
    """The messages with neighbours of one role joined, and a word for every result that is missing beside others.

    Raises:
        RpcError: BAD_PARAMS, naming the message that contradicts what was said before it.
    """
    found: list[Speech] = []
    pairs = _Pairs([])
    for index, message in enumerate(messages):
        _check_kinds(index, message)
        role, blocks = _as_said(message)
        if found and found[-1].role == role:
            found[-1].blocks.extend(blocks)
        elif blocks:
            pairs = _Pairs(found[-1].calls if found else [])
            found.append(Speech(role, list(blocks)))
            _check_answered(index, found)
        pairs.check(index, blocks)
    return [_completed(found, at) for at in range(len(found))]


def _as_said(message: Message) -> tuple[str, list[Block]]:
    """Returns a system note among the messages as the CLI itself tells it to older models: by the user, and marked."""
    blocks = blocks_of(message["content"])
    if message["role"] != "system":
        return message["role"], blocks
    texts = [str(block.get("text", "")) for block in blocks if block["type"] == "text"]
    return "user", [
        {"type": "text", "text": f"<system-reminder>\n{text}\n</system-reminder>"} for text in texts if text
    ]


def _check_kinds(index: int, message: Message) -> None:
    where = f"messages[{index}]"
    kinds = {block["type"] for block in blocks_of(message["content"])}
    if message["role"] == "user" and "tool_use" in kinds:
        raise bad(f"{where}.content", "a user message cannot call tools")
    if message["role"] == "assistant" and "tool_result" in kinds:
        raise bad(f"{where}.content", "an assistant message cannot have tool results")


class _Pairs:
    """The results and calls of a turn, looked at message by message: a turn may be made of thousands of them."""

    def __init__(self, before: Sequence[str]) -> None:
        self._before = frozenset(before)  # calls of the turn before
        self._given: set[str] = set()
        self._made: set[str] = set()

    def check(self, index: int, blocks: Sequence[Block]) -> None:
        """Check what the message with this index adds."""
        for call in (str(block.get("tool_use_id")) for block in blocks if block["type"] == "tool_result"):
            if call not in self._before:
                text = (
                    f"there is a result for the call {call[:80]!r}, which the message before it did not make"
                )
                raise bad(f"messages[{index}].content", text)
            if call in self._given:
                raise bad(f"messages[{index}].content", f"there are two results for the call {call[:80]!r}")
            self._given.add(call)
        for call in (str(block.get("id")) for block in blocks if block["type"] == "tool_use"):
            if call in self._made:
                raise bad(f"messages[{index}].content", "two tool calls have the same id")
            self._made.add(call)


def _check_answered(index: int, found: Sequence[Speech]) -> None:
    """Check that the turn that has just begun does not leave calls without results behind it."""
    if found[-1].role == "assistant" and len(found) > 2 and found[-3].calls and not found[-2].results:
        raise bad(f"messages[{index - 1}].content", "the tool calls before it have no results")


def _completed(found: Sequence[Speech], at: int) -> Speech:
    """Returns a turn of results with a word for each that is missing, so that every call has one."""
    turn = found[at]
    calls = found[at - 1].calls if at and turn.role == "user" else []
    if not calls:
        return turn
    given = turn.results
    if not given:
        raise bad("messages", "the last tool calls have no results")
    missing = [
        {"type": "tool_result", "tool_use_id": call, "is_error": True, "content": NO_RESULT}
        for call in calls
        if call not in given
    ]
    others = [block for block in turn.blocks if block["type"] != "tool_result"]
    return Speech("user", [*given.values(), *missing, *others])
