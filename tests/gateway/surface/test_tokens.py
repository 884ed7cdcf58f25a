from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_gateway.anthropic.schema import Prompt, decode
from ccd_gateway.surface.tokens import estimate, image_size

PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">II", 300, 200)
GIF = b"GIF89a" + struct.pack("<HH", 300, 200)
JPEG = (
    b"\xff\xd8\xff\xe0"
    + struct.pack(">H", 16)
    + bytes(14)
    + b"\xff\xc0"
    + struct.pack(">HBHH", 17, 8, 200, 300)
)
WEBP = b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(8) + (299).to_bytes(3, "little") + (199).to_bytes(3, "little")


def count(content: Any, **more: Any) -> int:
    body = {"model": "m", "messages": [{"role": "user", "content": content}], **more}
    return estimate(decode(json.dumps(body).encode(), Prompt))


def image(data: bytes) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(data).decode()}
    return {"type": "image", "source": source}


@pytest.mark.parametrize("data", [PNG, GIF, JPEG, WEBP])
def test_the_size_of_an_image_is_read_from_its_beginning(data: bytes) -> None:
    assert image_size(base64.b64encode(data + bytes(99)).decode()) == (300, 200)


@given(
    st.text()
    | st.sampled_from([PNG, GIF, JPEG, WEBP]).flatmap(
        lambda data: st.integers(0, len(data)).map(lambda end: base64.b64encode(data[:end]).decode())
    )
)
def test_no_image_breaks_it(data: str) -> None:
    assert image_size(data) in (None, (300, 200))


def test_english_text_has_a_token_for_three_or_four_letters() -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 100
    assert len(text) / 4 < count(text) < len(text) / 2.5


def test_more_of_anything_counts_for_more() -> None:
    tool = {"name": "t", "description": "d" * 90, "input_schema": {"type": "object"}}
    base = count("hello")
    assert base >= 5
    assert count("hello", system="be brief") > base
    assert count("hello", tools=[tool]) > base + 346
    assert count("hello", output_config={"format": {"type": "json_schema", "schema": {"a": 1}}}) > base
    assert count("漢字" * 50) > count("ab" * 50)
    assert count([{"type": "text", "text": "hello"}, {"type": "text", "text": "hello"}]) > base


def test_blocks() -> None:
    assert 60 < count([image(PNG)]) < 120
    assert count([image(b"not an image")]) > 1600
    assert count([{"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}]) > 1600
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "A" * 400_000}
    assert count([{"type": "document", "source": pdf}]) > 10_000
    plain = {"type": "text", "media_type": "text/plain", "data": "word " * 300}
    assert 300 < count([{"type": "document", "source": plain, "title": "t"}]) < 700
    nested = {"type": "content", "content": [{"type": "text", "text": "word " * 300}]}
    assert count([{"type": "document", "source": nested}]) > 300
    results = [
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "word " * 300}]}
    ]
    assert count(results) > 300
    call = {"type": "tool_use", "id": "t", "name": "n", "input": {"text": "word " * 300}}
    assert count([call]) > 300
