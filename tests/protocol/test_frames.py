"""Framing: every split, random chunks, limits, and bytes that are not frames."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccd_protocol import frames as f
from ccd_protocol.errors import Code
from ccd_protocol.frames import FrameReader, Limits, Violation

SMALL = Limits(max_frame_bytes=f.MIN_FRAME_BYTES)
VALUES: list[Any] = [
    [0, 1, 0, "agent/1", {"max_frame_bytes": 65536}],
    [1, 1, "chat.stream", {"messages": [{"role": "user", "content": "ä😀"}]}, 1000, 262144, 0],
    [2, 1, b"\x00\xff" * 300],
    [3, 4294967295, {"float": 0.25, "none": None, "yes": True, "neg": -(2**63)}],
]
STREAM = b"".join(map(msgpack.packb, VALUES))
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner, max_size=5),
    max_leaves=20,
)


def reader(limits: Limits = SMALL, *, strict: bool = True) -> FrameReader:
    return FrameReader(limits, strict=strict)


def read_in(chunks: list[bytes], one: FrameReader | None = None) -> list[Any]:
    one = one or reader()
    values = [value for chunk in chunks for value in one.read(chunk)]
    assert one.violation is None
    return values


def violation(data: bytes, limits: Limits = SMALL) -> Violation:
    one = reader(limits)
    one.read(data)
    assert one.violation is not None
    return one.violation


def test_split_at_every_byte() -> None:
    for cut in range(len(STREAM) + 1):
        assert read_in([STREAM[:cut], STREAM[cut:]]) == VALUES


def test_byte_by_byte() -> None:
    assert read_in([STREAM[index : index + 1] for index in range(len(STREAM))]) == VALUES


@given(st.lists(plain, max_size=6), st.data())
def test_random_values_in_random_chunks(values: list[Any], data: st.DataObject) -> None:
    stream = b"".join(map(msgpack.packb, values))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read_in(chunks) == values


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_garbage_yields_values_or_a_violation_and_no_exception(chunks: list[bytes]) -> None:
    one = reader()
    for chunk in chunks:
        one.read(chunk)
        if one.violation is not None:
            assert one.violation.code in (Code.PROTOCOL, Code.TOO_LARGE)
            break


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xc1", "msgpack"),
        (b"\x91" * 100_000, "nested too deeply"),
        (b"\x81\xa1a" * 100_000, "nested too deeply"),
        (b"\xd4\x01\x00", "ext"),
        (b"\xc7\x00\x05", "extension type 5"),
        (b"\xd6\xff\x00\x00\x00\x00", "ext"),
        (b"\xdd\xff\xff\xff\xff", "max_array_len"),
        (b"\xdc\xff\xff", "max_array_len"),
        (b"\xdf\xff\xff\xff\xff", "max_map_len"),
        (b"\x92\x03\xa2\xff\xfe", "not UTF-8"),
        (b"\x81\x01\x01", "map key"),
        (b"\x81\x90\x01", "map key"),
    ],
)
def test_what_is_not_a_frame(data: bytes, text: str) -> None:
    found = violation(data)
    assert found.code is Code.PROTOCOL
    assert text in found.message


def test_a_bad_string_is_not_quoted() -> None:
    assert "secret" not in violation(b"\xa8secret\xff\xfe").message


def test_values_before_the_bad_one_are_kept() -> None:
    one = reader()
    assert one.read(msgpack.packb([1]) + msgpack.packb([2]) + b"\xc1") == [[1], [2]]
    assert one.violation is not None


def test_frame_of_exactly_the_limit_is_accepted_and_a_larger_payload_is_not() -> None:
    payload = b"x" * (SMALL.max_frame_bytes - f.ITEM_OVERHEAD_BYTES)
    frame = b"".join(f.item_buffers(f.item_prefix(f.MAX_U32), payload))
    assert len(frame) <= SMALL.max_frame_bytes
    assert read_in([frame]) == [[2, f.MAX_U32, payload]]
    assert "max_bin_len" in violation(msgpack.packb([2, 1, b"x" * (SMALL.max_frame_bytes + 1)])).message


def test_unfinished_frame_is_refused_at_the_limit_and_not_buffered_on() -> None:
    one = reader()
    tracemalloc.start()
    one.read(b"\x93\x02\x01\xc6\xff\xff\xff\xff")
    sent = 0
    while one.violation is None:
        one.read(b"x" * 65_536)
        sent += 65_536
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert one.violation.code is Code.TOO_LARGE
    assert sent < SMALL.max_frame_bytes + (1 << 20)
    assert peak < 4 << 20


def test_the_buffer_of_a_large_frame_is_given_back() -> None:
    one = FrameReader(Limits(), strict=True)
    frame = msgpack.packb([2, 1, b"x" * (8 << 20)])
    assert read_in([frame], one)  # whatever is allocated once
    tracemalloc.start()
    for _ in range(3):
        for start in range(0, len(frame), 65_536):
            one.read(frame[start : start + 65_536])
    assert read_in([msgpack.packb([1])], one) == [[1]]
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 4 << 20


def test_unfinished_frame_of_small_parts_is_refused_too() -> None:
    # msgpack gives back the bytes of every part that it has decoded, so its own limit would never be reached
    one = reader(strict=False)
    row = b"\xdc\x40\x00" + b"\xa4abcd" * 16_384
    one.read(b"\xdc\x40\x00")
    sent = 0
    while one.violation is None:
        one.read(row)
        sent += len(row)
    assert one.violation.code is Code.TOO_LARGE
    assert sent < SMALL.max_frame_bytes + (1 << 20)


@pytest.mark.parametrize("part", [b"\x80", b"\x90", b"\x91\xc0", b"\x81\xa0\xc0"])
def test_objects_are_counted_so_that_few_bytes_cannot_become_much_memory(part: bytes) -> None:
    limits = Limits(max_nodes=100_000)
    rows = b"\xdc\x40\x00" + part * 16_384
    assert violation(b"\x9f" + rows * 15, limits).code is Code.TOO_LARGE
    assert read_in([rows], reader(limits)) != []


loose = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.binary() | st.integers(0, 9), inner, max_size=4)
    ),
)


@given(loose, st.booleans())
def test_what_would_be_refused_is_known_before_it_is_sent(value: Any, strict: bool) -> None:
    frame = msgpack.packb([value])
    one = FrameReader(Limits(), strict=strict)
    one.read(frame)
    assert (f.unacceptable(frame, strict=strict) is None) == (one.violation is None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([0] * 16_385, "too many elements: 16385"),
        (dict.fromkeys(map(str, range(16_385))), "too many elements: 16385"),
        ({1: 2}, "map key"),
        (msgpack.ExtType(1, b""), "extension type"),
        ([[0] * 16_000] * 63, "more than 1000000 objects"),
    ],
)
def test_what_only_the_accepting_side_refuses(value: Any, text: str) -> None:
    frame = msgpack.packb([value])
    found = f.unacceptable(frame, strict=True)
    assert found is not None
    assert text in found.message
    one = FrameReader(Limits(), strict=True)
    one.read(frame)
    assert one.violation is not None
    if "objects" in text or "elements" in text:
        assert f.unacceptable(frame, strict=False) is None


def test_counting_starts_again_with_every_frame() -> None:
    one = reader(Limits(max_nodes=5000))
    for _ in range(10):
        assert len(read_in([msgpack.packb([0] * 4000)], one)) == 1


@settings(max_examples=50)
@given(st.integers(1, f.MAX_U32), st.sampled_from([0, 1, 255, 256, 4096, 4097, 65_535, 65_536, 70_000]))
def test_item_buffers_are_one_frame(call_id: int, size: int) -> None:
    payload = b"p" * size
    buffers = f.item_buffers(f.item_prefix(call_id), payload)
    assert msgpack.unpackb(b"".join(buffers)) == [f.ITEM, call_id, payload]
    if size > 4096:
        assert buffers[1] is payload  # passed on, not copied


@given(st.binary(max_size=100), st.integers(1, 40))
def test_pieces_are_the_payload(payload: bytes, max_bytes: int) -> None:
    cut = list(f.pieces(payload, max_bytes))
    assert b"".join(cut) == payload
    assert all(len(piece) <= max_bytes for piece in cut)
    assert len(cut) == max(1, -(-len(payload) // max_bytes))


def test_limits_are_announced_and_read_back() -> None:
    limits = Limits(max_frame_bytes=100_000, max_open_calls=7)
    assert f.announced(limits.caps()) == limits
    assert f.announced({}) == Limits()
    assert f.announced({"new_in_a_later_version": [1]}) == Limits()


@pytest.mark.parametrize(
    "caps",
    [
        {"max_frame_bytes": 65_535},
        {"max_frame_bytes": True},
        {"max_frame_bytes": "1"},
        {"max_frame_bytes": 2**32},
        {"max_open_calls": 0},
        {"max_open_calls": -1},
        {"max_open_calls": None},
    ],
)
def test_limits_that_make_no_sense(caps: dict[str, Any]) -> None:
    with pytest.raises(Violation) as caught:
        f.announced(caps)
    assert caught.value.code is Code.PROTOCOL


@pytest.mark.parametrize("value", [True, False, -1, 2**32, 1.0, "1", None])
def test_is_u32_refuses(value: object) -> None:
    assert not f.is_u32(value)


def test_is_u32_accepts() -> None:
    assert f.is_u32(0) and f.is_u32(f.MAX_U32)
