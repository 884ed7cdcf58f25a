"""Recognises a conversation by what was said in it: a hash chain over its turns, in a form that outlives an echo. Pure.

Theory of operation. Clients send the whole conversation with every request, and seldom as they got it: text becomes a
list of parts or the other way round, tool calls get ids of the client's, thinking is dropped, cache marks move from
turn to turn, results come in another order. `canonical` leaves out what an echo may change and keeps what an edit would
change. Each link depends on all that was said up to it, so two conversations that differ anywhere have no link in
common from there on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from ccd_daemon.request.history import Block, Speech, blocks_of

_DIGEST_BYTES = 16
_UNSAID = ("thinking", "redacted_thinking")
START = ""


def digest(*parts: object) -> str:
    """Returns a digest of values that have a JSON form.

    Raises:
        ValueError, TypeError, RecursionError: one of them has none (NaN, a lone surrogate, bytes).
    """
    text = json.dumps(parts, sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def links(turns: Sequence[Speech]) -> list[str]:
    """Returns one link for each turn. Raises as `digest` does."""
    found: list[str] = []
    for at, turn in enumerate(turns):
        calls = turns[at - 1].calls if at else []
        found.append(digest(found[-1] if found else START, turn.role, canonical(turn, calls)))
    return found


def after(link: str, answer: Sequence[Block]) -> str:
    """Returns the link that follows when this is answered."""
    return digest(link, "assistant", canonical(Speech("assistant", list(answer)), []))


def canonical(turn: Speech, calls: Sequence[str]) -> object:
    """Returns what was said, whatever form it has.

    Args:
        calls: the ids of the calls of the turn before, whose places stand for them.
    """
    said = [block for block in turn.blocks if block["type"] not in _UNSAID]
    texts: list[object] = []
    for is_text, run in groupby(said, lambda block: block["type"] == "text"):
        if is_text and turn.role == "user":
            texts.append("".join(str(block.get("text", "")) for block in run))
        elif not is_text:
            texts += [_other(block) for block in run if block["type"] not in ("tool_use", "tool_result")]
    if turn.role == "assistant":
        # OpenAI's form has one text beside the calls, so where it stood among them is lost.
        texts.insert(0, "".join(str(b.get("text", "")) for b in said if b["type"] == "text").strip())
    made = [[block.get("name"), _plain(block.get("input"))] for block in said if block["type"] == "tool_use"]
    places = {call: place for place, call in reversed(list(enumerate(calls)))}
    results = (_result(block, places) for block in said if block["type"] == "tool_result")
    return [texts, made, sorted(results)]


def _result(block: Block, places: Mapping[str, int]) -> list[Any]:
    place = places.get(str(block.get("tool_use_id")), len(places))
    content = blocks_of(block.get("content") or [])
    return [place, bool(block.get("is_error")), digest(canonical(Speech("user", content), []))]


def _other(block: Block) -> Block:
    return {key: value for key, value in block.items() if key != "cache_control"}


def _plain(value: Any) -> Any:
    """Arguments as any JSON library would write them: 1.0 and 1 are the same number."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
