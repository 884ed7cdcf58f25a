"""Lines of a batch file as steps; a wrong one is a step with its error, so it fails alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ccd_client.tasks.requests import step_of
from ccd_protocol.errors import RpcError


def steps(lines: Iterable[str], options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One step for each line that is not blank.

    A line is a string, or an object with `prompt` or `messages`, options of a chat, and perhaps an `id` that comes
    back with the answer.

    Args:
        lines: of the file.
        options: for lines that do not say otherwise.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            name, step = _step(line, number, options)
            yield {"name": name, "meta": {"line": number}, **step}


def _step(line: str, number: int, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    name = f"{number}"
    try:
        value = json.loads(line)
        if isinstance(value, str):
            value = {"prompt": value}
        if not isinstance(value, dict):
            raise ValueError("expected a string, or an object with prompt or messages")
        own = dict(value)
        if "id" in own:
            given = str(own.pop("id"))
            name = given[:200] if given.isprintable() and given else name
        if ("prompt" in own) == ("messages" in own):
            raise ValueError("expected either prompt or messages")
        messages = own.pop("messages", None) or own.pop("prompt", None)
        return name, step_of(messages, {**options, **own})
    except (ValueError, TypeError, RpcError) as error:
        said = error.message if isinstance(error, RpcError) else str(error)
        return name, {"error": {"code": "bad_line", "message": f"line {number}: {said}", "line": number}}


def row(item: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a line, as it is printed."""
    head = {"id": item["name"], "line": (item["meta"] or {}).get("line"), "status": item["status"]}
    if item["status"] != "completed":
        return {**head, "error": item["error"]}
    answer = item["result"]
    calls = [block for block in answer["content"] if block.get("type") == "tool_use"]
    told = {name: value for name, value in answer.items() if name not in ("content", "text")}
    return {**head, "text": answer["text"], **({"tool_calls": calls} if calls else {}), **told}
