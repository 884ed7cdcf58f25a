"""A chat by documented knobs only (mode `replay`): what is written to a process, and what it knows already. Pure.

System prompt and tools are given with `initialize`, once for a process's life. The history is typed in turn by turn;
a process that has heard the beginning is told the rest alone, and one whose calls wait for their results gets these as
the answers to its calls. What has no knob is named in `ignored`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from ccd_daemon.claude import control
from ccd_daemon.claude.login import Mode
from ccd_daemon.request import chain, client_tools
from ccd_daemon.request.body import Script, Wish, bad, initialize, system_texts
from ccd_daemon.request.history import Speech, turns
from ccd_daemon.request.structured import ANSWER_SCHEMA
from ccd_protocol.chat.parameters import Fate, with_fate
from ccd_protocol.methods import ChatParams

#: What has no documented knob.
IGNORES = with_fate(Fate.IGNORED, Mode.REPLAY)
_ONE_CALL = "Call at most one tool in an answer."


@dataclass(frozen=True)
class ReplayTalk:
    """A conversation, as it is recognised.

    Attributes:
        root: whose it is, and all that a process cannot change: model, system prompt and tools; a place is
            `owner:fixed:link`.
        binding: the fields of `initialize`, as JSON.
        links: one for each turn (`chain`).
    """

    root: str
    binding: str
    turns: Sequence[Speech]
    links: Sequence[str]
    results: tuple[client_tools.Result, ...] | None = (
        None  # the last turn, where it can be given to a parked call
    )

    @property
    def places(self) -> list[str]:
        """Where a process may stand that has heard a part of this, the longest part first."""
        heard = [link for turn, link in zip(self.turns, self.links, strict=True) if turn.role == "assistant"]
        return [self.root + link for link in reversed(heard)]

    @property
    def parked_place(self) -> str | None:
        """Where a process stands whose calls are answered by the last turn."""
        return None if self.results is None else self.root + self.links[-2]

    def heard(self, place: str | None) -> int:
        """Returns how many of the turns a process knows that stands there."""
        if place is None or not place.startswith(self.root):
            return 0
        return self.links.index(place.removeprefix(self.root)) + 1


class Knobs(NamedTuple):
    """What can be set anew for each turn. None is the CLI's own default."""

    max_tokens: int | None = None
    thinks: bool = False
    budget_tokens: int | None = None
    effort: str | None = None


@dataclass(frozen=True)
class Standing:
    """What a process is when a turn is written to it.

    Attributes:
        place: of the conversation that it has heard; None when it has heard nothing.
        parked: it waits for the results of its calls.
        knobs: those in force, by the turn before.
    """

    place: str | None = None
    parked: bool = False
    knobs: Knobs | None = None


def talk(wish: Wish, *scope: str) -> ReplayTalk:
    """Returns what a wish is recognised by, checked to be writable.

    Args:
        scope: whose it is; nobody else's conversation has the same root.

    Raises:
        RpcError: BAD_PARAMS, for a history that contradicts itself, ends with an answer, or has no JSON form.
    """
    said = turns(wish.chat["messages"])
    last = said[-1]
    if last.role != "user":
        where = f"messages[{len(wish.chat['messages']) - 1}].role"
        raise bad(where, "with this login (mode replay) the last message must be the user's")
    fields = {
        "systemPrompt": system_texts(wish.chat.get("system")),
        **client_tools.published(wish.chat.get("tools") or ()),
    }
    if ANSWER_SCHEMA in wish.extra:
        fields["jsonSchema"] = wish.extra[ANSWER_SCHEMA]
    try:
        binding = json.dumps(fields, allow_nan=False, ensure_ascii=False)
        root = f"{chain.digest(scope)}:{chain.digest(wish.model, binding)}:"
        return ReplayTalk(root, binding, said, chain.links(said), _results(said))
    except (ValueError, TypeError, RecursionError) as error:
        raise bad("messages", f"the request has a value without a JSON form: {error}") from None


def _results(said: Sequence[Speech]) -> tuple[client_tools.Result, ...] | None:
    """The results of the last calls in the calls' order, where they are all that was said and can be passed on."""
    given = said[-1].results
    if not given or len(given) < len(said[-1].blocks):
        return None
    found = [client_tools.result(given[call]) for call in said[-2].calls]
    return None if None in found else tuple(result for result in found if result is not None)


def script(wish: Wish, conversation: ReplayTalk, request_id: str, standing: Standing) -> Script:
    """Returns what is written to a process for its next turn."""
    ids = (request_id, f"{request_id}s", f"{request_id}t")
    heard = conversation.heard(standing.place)
    knobs = _knobs(wish)
    # In a conversation that has begun, naming the model again would put a note about it before the next message.
    head = b"" if heard else initialize(ids[1], conversation.binding)
    if not heard or knobs != standing.knobs:  # it takes the CLI 6 ms, which the next turn need not wait for
        head += _turned(ids, knobs, standing.knobs or Knobs(), msgspec.UNSET if heard else wish.model)
    chunks = [b""] if standing.parked else _chunks(conversation.turns[heard:])
    return Script(
        head + chunks[0],
        wish.ignored,
        tuple(chunks[1:]),
        frozenset(ids),
        None if heard else ids[1],
        conversation.binding,
        place=(conversation.root, conversation.links[-1]),
        results=conversation.results if standing.parked else None,
        parks=bool(wish.chat.get("tools")),
        calls=bool(wish.chat.get("tools")),
        knobs=knobs,
        structured=ANSWER_SCHEMA in wish.extra,
    )


def _knobs(wish: Wish) -> Knobs:
    wanted = wish.extra.get("thinking") or wish.chat.get("thinking") or {}
    budget = wanted.get("budget_tokens")
    return Knobs(
        wish.chat.get("max_tokens"),
        wanted.get("type") in ("enabled", "adaptive"),
        budget if isinstance(budget, int) else None,
        (wish.extra.get("output_config") or {}).get("effort"),
    )


def _turned(ids: Sequence[str], to: Knobs, now: Knobs, model: str | msgspec.UnsetType | None) -> bytes:
    """Returns the lines that turn the knobs; what has been set stays so until it is set anew."""
    env = {
        "CLAUDE_CODE_DISABLE_THINKING": "" if to.thinks else "1",
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "" if to.max_tokens is None else str(to.max_tokens),
    }
    effort = msgspec.UNSET if to.effort == now.effort else to.effort
    lines = control.flags(ids[0], env=env, model=model, effort=effort)
    if to.budget_tokens != now.budget_tokens:
        lines += control.request(ids[2], "set_max_thinking_tokens", max_thinking_tokens=to.budget_tokens)
    return lines


def _chunks(said: Sequence[Speech]) -> list[bytes]:
    """Lines between two acknowledgements: an answer, if there is one, and the user line that will be acknowledged.

    Assistant lines are appended at once but user lines are queued, so every past user line waits for its
    acknowledgement before the assistant line after it may be written.
    """
    chunks: list[bytes] = []
    pending = b""
    for at, turn in enumerate(said):
        if turn.role == "assistant":
            pending += control.assistant_history_line(turn.blocks)
            continue
        chunks.append(pending + control.user_line(_content(turn), query=at == len(said) - 1))
        pending = b""
    return chunks


def _content(turn: Speech) -> str | list[dict[str, Any]]:
    """Returns a text alone as a text: it is what the CLI makes fewest words of."""
    if len(turn.blocks) == 1 and set(turn.blocks[0]) == {"type", "text"}:
        return str(turn.blocks[0]["text"])
    return turn.blocks


def choose_tools(chat: ChatParams, ignored: list[str]) -> None:
    """Do what there are knobs for about `tool_choice`: publish fewer tools; the model is told the rest in words.

    What can be disregarded by the model is named in `ignored`.
    """
    choice = chat.pop("tool_choice", None) or {"type": "auto"}
    words = []
    if choice["type"] == "none":
        chat.pop("tools", None)
        return
    if choice["type"] == "tool":
        chat["tools"] = [tool for tool in chat["tools"] if tool.get("name") == choice["name"]]
        words.append(f"Your next answer must call the tool {choice['name']}.")
    elif choice["type"] == "any":
        words.append("Your next answer must call one of the tools.")
    if words:
        ignored.append("tool_choice")
    if choice.get("disable_parallel_tool_use"):
        words.append(_ONE_CALL)
        ignored.append("tool_choice.disable_parallel_tool_use")
    ignored += client_tools.lost(chat.get("tools") or ())
    if words:
        system = chat.get("system") or []
        blocks = [{"type": "text", "text": system}] if isinstance(system, str) else list(system)
        chat["system"] = [*blocks, {"type": "text", "text": " ".join(words)}]
