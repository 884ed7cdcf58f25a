"""The rules of a conversation: roles, content blocks, and tool calls paired with their results. Pure."""

from __future__ import annotations

import base64
import itertools
from typing import Any, NamedTuple

from ccd_offline.errors import RefusedError, invalid
from ccd_offline.models import PretendedModel
from ccd_offline.rules import blocks, shape

_MANY_IMAGES = 20
_PIXELS_OF_MANY = 2000


class HistoryTurn(NamedTuple):
    """Neighbouring messages of one role, joined as the API joins them."""

    role: str
    first: int  # index of the first message
    content: list[dict[str, Any]]


def check(value: Any, *, model: PretendedModel, thinking: str) -> None:
    """Refuse a `messages` array that the real API would refuse; `thinking` is off, enabled or adaptive."""
    given = shape.sequence(value, "messages")
    if not given:
        raise invalid("messages: at least one message is required")
    for index, message in enumerate(given):
        _message(message, index, model, last=index == len(given) - 1)
    turns = _turns(given)
    _images(turns, model)
    if turns[0].role != "user":
        raise invalid('messages: first message must use the "user" role')
    _pairs(turns)
    _prefill(turns[-1], model, thinking)
    if thinking == "enabled":
        _signed(turns)


def _message(value: Any, index: int, model: PretendedModel, *, last: bool) -> None:
    path = f"messages.{index}"
    message = shape.mapping(value, path)
    shape.keys(message, path, required=("role", "content"), optional=("output_config",))
    role = message["role"]
    if role == "system" and model.notes and index > 0:
        _note(message, index)
        return
    if role not in ("user", "assistant"):
        raise _unexpected(role)
    if "output_config" in message:
        raise invalid(f"{path}.output_config: Extra inputs are not permitted")
    content = message["content"]
    if not isinstance(content, (str, list)):
        raise invalid(f"{path}.content: Input should be a valid list")
    if not content and not (last and role == "assistant"):
        raise invalid(
            f"{path}: all messages must have non-empty content except for the optional final assistant"
            " message"
        )
    if isinstance(content, list):
        for number, block in enumerate(content):
            blocks.check(block, role, f"{path}.content.{number}", model.id)


def _images(turns: list[HistoryTurn], model: PretendedModel) -> None:
    """How many there are, and that none of many is large."""
    found = [block for turn in turns for block in _images_in(turn.content)]
    most = 100 if model.context_tokens <= 200_000 else 600
    if len(found) > most:
        raise invalid(f"messages: too many images and documents: {len(found)} + 0 > {most}")
    for block in found if len(found) > _MANY_IMAGES else ():
        source = block["source"]
        if (
            source["type"] == "base64"
            and max(blocks.pixels(base64.b64decode(source["data"]))) > _PIXELS_OF_MANY
        ):
            raise invalid(
                "messages: At least one of the image dimensions exceed max allowed size for many-image requests:"
                f" {_PIXELS_OF_MANY} pixels"
            )


def _images_in(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    nested = [block["content"] for block in content if isinstance(block.get("content"), list)]
    return [block for block in content if block["type"] == "image"] + [
        image for inner in nested for image in _images_in(inner)
    ]


def _unexpected(role: Any) -> RefusedError:
    if role == "system":
        return invalid(
            'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, not'
            ' "system" as an input message role.'
        )
    return invalid(f"messages: Unexpected role {str(role)[:40]!r}. Allowed roles are 'user' or 'assistant'")


def _note(message: dict[str, Any], index: int) -> None:
    """What the CLI tells newer models in mid-conversation: text, blocks, or only an effort and no content."""
    if isinstance(message["content"], str):
        return
    path = f"messages.{index}.content"
    for number, block in enumerate(shape.sequence(message["content"], path)):
        blocks.check(block, "system", f"{path}.{number}")


def _turns(given: list[dict[str, Any]]) -> list[HistoryTurn]:
    spoken = [(index, message) for index, message in enumerate(given) if message["role"] != "system"]
    turns: list[HistoryTurn] = []
    for role, group in itertools.groupby(spoken, key=lambda pair: str(pair[1]["role"])):
        members = list(group)
        turns.append(
            HistoryTurn(
                role, members[0][0], [block for _, message in members for block in as_blocks(message)]
            )
        )
    return turns


def as_blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    """A message's content as blocks, a plain string as one text block."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _ids(turn: HistoryTurn | None, kind: str, key: str) -> list[str]:
    return [block[key] for block in turn.content if block["type"] == kind] if turn else []


def _pairs(turns: list[HistoryTurn]) -> None:
    """Every call has its result at the head of the next turn, every result its call in the turn before."""
    seen: set[str] = set()
    for before, turn, after in zip([None, *turns], turns, [*turns[1:], None], strict=False):
        if turn.role == "assistant":
            calls = _ids(turn, "tool_use", "id")
            if len(set(calls)) < len(calls) or seen & set(calls):
                raise invalid("messages: `tool_use` ids must be unique")
            seen.update(calls)
            _answered(calls, turn, after)
        else:
            _asked(turn, before)


def _answered(calls: list[str], turn: HistoryTurn, after: HistoryTurn | None) -> None:
    head = itertools.takewhile(lambda block: block["type"] == "tool_result", after.content if after else [])
    answered = {block["tool_use_id"] for block in head}
    missing = [call for call in calls if call not in answered]
    if missing:
        raise invalid(
            f"messages.{turn.first}: `tool_use` ids were found without `tool_result` blocks immediately"
            " after:"
            f" {', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block"
            " in the"
            " next message."
        )


def _asked(turn: HistoryTurn, before: HistoryTurn | None) -> None:
    calls = set(_ids(before, "tool_use", "id"))
    results = _ids(turn, "tool_result", "tool_use_id")
    for number, result in enumerate(results):
        if result not in calls:
            raise invalid(
                f"messages.{turn.first}.content.{number}: unexpected `tool_use_id` found in `tool_result`"
                " blocks:"
                f" {result}. Each `tool_result` block must have a corresponding `tool_use` block in the"
                " previous"
                " message."
            )
    if len(set(results)) < len(results):
        raise invalid(
            "messages: each tool_use must have a single result. Found multiple `tool_result` blocks."
        )


def _prefill(last: HistoryTurn, model: PretendedModel, thinking: str) -> None:
    if last.role != "assistant":
        return
    if model.adaptive or thinking != "off":
        raise invalid(
            "This model does not support assistant message prefill. The conversation must end with a"
            " user message."
        )
    text = last.content[-1].get("text", "") if last.content else ""
    if text != text.rstrip():
        raise invalid("messages: final assistant content cannot end with trailing whitespace")


def _signed(turns: list[HistoryTurn]) -> None:
    """With a thinking budget, a tool loop in progress must begin with the thinking that led to it."""
    if len(turns) < 2 or not _ids(turns[-1], "tool_result", "tool_use_id"):
        return
    turn = turns[-2]
    first = turn.content[0]["type"] if turn.content else "nothing"
    if first not in ("thinking", "redacted_thinking"):
        raise invalid(
            f"messages.{turn.first}.content.0.type: Expected `thinking` or `redacted_thinking`, but found"
            f" `{first}`."
            " When `thinking` is enabled, a final `assistant` message must start with a thinking block"
            " (preceding the"
            " lastmost set of `tool_use` and `tool_result` blocks). To avoid this requirement, disable"
            " `thinking`."
        )
