"""Inputs of calls come out of the events as the model wrote them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ccd_daemon.worker.inputs import ToolInputs, value_of


def line(event: dict[str, Any], parent: str | None = None) -> bytes:
    said = {"type": "stream_event", "event": event, "parent_tool_use_id": parent}
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"


def begins(index: int, **given: Any) -> bytes:
    block = {"type": "tool_use", "id": f"t{index}", "name": "f", "input": given}
    return line({"type": "content_block_start", "index": index, "content_block": block})


def piece(index: int, text: str, parent: str | None = None) -> bytes:
    delta = {"type": "input_json_delta", "partial_json": text}
    return line({"type": "content_block_delta", "index": index, "delta": delta}, parent)


def said(text: str) -> bytes:
    return line({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})


def test_texts_are_put_together_by_block() -> None:
    inputs = ToolInputs("m")
    for data in (
        said('a "tool_use" and an "input_json_delta"'),
        begins(2) + begins(1, late=True),
        piece(2, '{"n": 9007199254740993'),
        piece(7, "of no call") + piece(2, "of a sub-agent", "toolu_parent"),
        piece(3, "") + begins(3),
        piece(2, ', "x": 1.50}'),
    ):
        inputs.more(data)
    assert inputs.texts() == ['{"late":true}', '{"n": 9007199254740993, "x": 1.50}', "{}"]


def test_lines_about_nothing_else_are_kept() -> None:
    inputs = ToolInputs("m")
    for _ in range(1000):
        inputs.more(said("word"))
    assert inputs._data == []
    assert inputs.texts() == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 9007199254740993}', {"a": 9007199254740993}),
        ('{"a": [18446744073709551615, 18446744073709551616]}', {"a": [2**64 - 1, float(2**64)]}),
        ('{"a": ' + "9" * 400 + "}", {"a": None}),
        ('{"a": -1e999}', {"a": None}),
        ('{"cut', {}),
        ("[1]", {}),
    ],
)
def test_values_that_the_wire_can_carry(text: str, value: Any) -> None:
    assert value_of(text) == value
