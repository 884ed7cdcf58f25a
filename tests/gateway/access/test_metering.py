"""What an answer that was left early is booked with: what has passed, and no more."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from ccd_gateway.access.caller import Caller
from ccd_gateway.access.keyfile import make
from ccd_gateway.access.ledger import UsageRow, read_usage
from ccd_gateway.access.metering import Books, begin

MODEL = "claude-haiku-5-5"
_TAIL = {
    "session_id": "0d7e0ab4-0fbc-40c5-a83b-0e4529abdeac",
    "parent_tool_use_id": None,
    "uuid": "c5dcf691-d42a-4e28-ae90-af280c6dc934",
    "api_message_id": "msg_0c22de73d2232a9fac4e0e7d",
}


def line(event: dict[str, Any]) -> bytes:
    """As the CLI writes it, with all that is no part of the answer."""
    return json.dumps({"type": "stream_event", "event": event, **_TAIL}).encode() + b"\n"


def delta(**fields: str) -> bytes:
    return line({"type": "content_block_delta", "index": 0, "delta": fields})


USAGE = {"input_tokens": 13, "cache_creation_input_tokens": 0, "output_tokens": 1}
START = line(
    {"type": "message_start", "message": {"id": "msg_1", "model": MODEL, "content": [], "usage": USAGE}}
)
BLOCK = line({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
SYSTEM = json.dumps({"type": "system", "subtype": "init", "tools": ["x" * 5000]}).encode() + b"\n"


def booked(folder: Path, *payloads: bytes) -> UsageRow:
    async def main() -> None:
        books = Books(folder / "usage.sqlite3")
        key, _ = make("app", usd_per_day=1.0)
        run = await begin(books, Caller(key=key), key, {"messages": []})
        for payload in payloads:
            run.saw(payload)
        run.cut()
        books.close()

    asyncio.run(main())
    [row] = read_usage(folder / "usage.sqlite3", "2000-01-01")
    return row


THREE = [delta(type="text_delta", text=word) for word in ("Hello", " there", "!")]


@pytest.mark.parametrize(
    "payloads",
    [
        [SYSTEM, START, BLOCK, *THREE],
        [SYSTEM + START + BLOCK + b"".join(THREE)],
        [START + BLOCK, THREE[0] + SYSTEM, b"".join(THREE[1:]) + SYSTEM],
    ],
    ids=["a read each", "one read", "with other lines"],
)
def test_three_deltas_are_three_tokens(tmp_path: Path, payloads: list[bytes]) -> None:
    row = booked(tmp_path, *payloads)
    assert (row.model, row.input_tokens, row.output_tokens) == (MODEL, 13, 3)


def test_long_deltas_count_by_their_text(tmp_path: Path) -> None:
    said = [delta(type="text_delta", text="x" * 400), delta(type="thinking_delta", thinking="y" * 400)]
    said.append(delta(type="input_json_delta", partial_json="z" * 400))
    assert booked(tmp_path, START, *said).output_tokens == 300


def test_a_signature_is_no_word(tmp_path: Path) -> None:
    signed = delta(type="signature_delta", signature="s" * 4000)
    assert booked(tmp_path, START, THREE[0], signed).output_tokens == 1


def test_what_the_api_has_counted_is_believed(tmp_path: Path) -> None:
    end = line(
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 22}}
    )
    assert booked(tmp_path, START, *THREE, end).output_tokens == 22
