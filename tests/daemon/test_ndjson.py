import json

import pytest
from ccd_daemon.ndjson import HOT_PREFIX, MESSAGE_MARK, LineCutter, LineTooLong, all_hot, each
from hypothesis import given
from hypothesis import strategies as st

TEXT = b'{"type":"stream_event","event":{"text":"caf\xc3\xa9"}}\n{"type":"result"}\n\n{"x":1}\n'


def test_a_read_that_ends_in_a_newline_is_passed_on_without_a_copy() -> None:
    assert LineCutter(1000).feed(TEXT) is TEXT


@pytest.mark.parametrize("cut", range(len(TEXT) + 1))
def test_lines_are_the_same_wherever_the_read_is_cut(cut: int) -> None:
    cutter = LineCutter(1000)
    assert cutter.feed(TEXT[:cut]) + cutter.feed(TEXT[cut:]) == TEXT
    assert cutter.held_bytes == 0


@given(st.lists(st.binary(max_size=30)))
def test_nothing_is_lost_or_made_up(pieces: list[bytes]) -> None:
    cutter = LineCutter(10_000)
    out = [cutter.feed(piece) for piece in pieces]
    whole = b"".join(pieces)
    assert b"".join(out) == whole[: whole.rfind(b"\n") + 1]
    assert all(lines == b"" or lines.endswith(b"\n") for lines in out)
    assert cutter.held_bytes == len(whole) - len(b"".join(out))


@pytest.mark.parametrize("pieces", [[b"x" * 11], [b"x" * 6, b"x" * 5], [b"x" * 6, b"x" * 5 + b"\n"], [b"\n" + b"x" * 11]])
def test_a_line_over_the_limit_is_refused(pieces: list[bytes]) -> None:
    cutter = LineCutter(10)
    with pytest.raises(LineTooLong):
        for piece in pieces:
            cutter.feed(piece)


def test_a_64_mib_line_in_small_reads_is_joined_once() -> None:
    cutter = LineCutter(64 * 1024 * 1024)
    piece = b"x" * 65536
    for _ in range(1023):
        assert cutter.feed(piece) == b""
    line = cutter.feed(piece[:-1] + b"\n")
    assert len(line) == 64 * 1024 * 1024


HOT = HOT_PREFIX + b',"event":{}}\n'


@pytest.mark.parametrize(
    ("lines", "hot"),
    [
        (HOT, True),
        (HOT * 16, True),
        (HOT + b'{"type":"result"}\n', False),
        (b'{"type":"result"}\n' + HOT, False),
        (HOT + b"\n", False),
        (b'{"type": "stream_event"}\n', False),
    ],
)
def test_hot_lines_are_told_by_their_prefix(lines: bytes, hot: bool) -> None:
    assert all_hot(lines) is hot


def test_each_leaves_blank_lines_out() -> None:
    assert list(each(TEXT)) == [line + b"\n" for line in TEXT.split(b"\n") if line]


@given(st.text())
def test_the_message_mark_cannot_occur_in_what_a_model_wrote(text: str) -> None:
    line = json.dumps({"delta": {"text": text + '"type":"message_start"'}}, separators=(",", ":"))
    assert MESSAGE_MARK not in line.encode()
