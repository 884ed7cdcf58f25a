import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_daemon.claude.ndjson import TOKEN_PREFIX, LineCutter, LineTooLong, all_tokens, each

TEXT = b'{"type":"stream_event","event":{"text":"caf\xc3\xa9"}}\n{"type":"result"}\n\n{"x":1}\n'


def test_a_read_that_ends_in_a_newline_is_passed_on_without_a_copy() -> None:
    assert LineCutter(1000).feed(TEXT) is TEXT


@pytest.mark.parametrize("cut", range(len(TEXT) + 1))
def test_lines_are_the_same_wherever_the_read_is_cut(cut: int) -> None:
    cutter = LineCutter(1000)
    assert cutter.feed(TEXT[:cut]) + cutter.feed(TEXT[cut:]) == TEXT
    assert cutter.unfinished_bytes == 0


@given(st.lists(st.binary(max_size=30)))
def test_nothing_is_lost_or_made_up(pieces: list[bytes]) -> None:
    cutter = LineCutter(10_000)
    out = [cutter.feed(piece) for piece in pieces]
    whole = b"".join(pieces)
    assert b"".join(out) == whole[: whole.rfind(b"\n") + 1]
    assert all(lines == b"" or lines.endswith(b"\n") for lines in out)
    assert cutter.unfinished_bytes == len(whole) - len(b"".join(out))


@pytest.mark.parametrize(
    "pieces", [[b"x" * 11], [b"x" * 6, b"x" * 5], [b"x" * 6, b"x" * 5 + b"\n"], [b"\n" + b"x" * 11]]
)
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


def stream_event(kind: str, text: str = "") -> bytes:
    """A line as the CLI writes it."""
    event = {"type": kind, "index": 0, "delta": {"type": "text_delta", "text": text}}
    return json.dumps({"type": "stream_event", "event": event}, separators=(",", ":")).encode() + b"\n"


TOKEN = stream_event("content_block_delta", "caf\u00e9")


@pytest.mark.parametrize(
    ("lines", "tokens"),
    [
        (TOKEN, True),
        (TOKEN * 16, True),
        (stream_event("content_block_start") + TOKEN + stream_event("content_block_stop"), True),
        (b"", False),
        (TOKEN[:-1], False),
        (TOKEN + TOKEN[:-1], False),
        (TOKEN + b'{"type":"result"}\n', False),
        (b'{"type":"result"}\n' + TOKEN, False),
        (TOKEN + b'{"type":"result"}\n' + TOKEN, False),
        (TOKEN + b"\n", False),
        (b"\n" + TOKEN, False),
        (TOKEN.replace(b":", b": "), False),
        (stream_event("message_start"), False),
        (TOKEN + stream_event("message_delta"), False),
        (stream_event("message_stop") + TOKEN, False),
    ],
)
def test_token_lines_are_told_by_their_prefix(lines: bytes, tokens: bool) -> None:
    assert bool(all_tokens(lines)) is tokens
    assert all(line.startswith(TOKEN_PREFIX) for line in each(lines)) or not tokens


@pytest.mark.parametrize("giant", [b"", b"x" * (2 << 20) + b"\n"])
def test_each_leaves_blank_lines_out(giant: bytes) -> None:
    text = giant + TEXT + b" \n" + giant + TEXT
    assert list(each(text)) == [line + b"\n" for line in text.split(b"\n") if line.strip()]


def test_a_giant_line_that_comes_alone_is_not_copied() -> None:
    giant = b"x" * (2 << 20) + b"\n"
    assert [line is giant for line in each(giant)] == [True]


@given(st.text())
def test_nothing_that_a_model_writes_looks_like_another_line(text: str) -> None:
    assert all_tokens(stream_event("content_block_delta", text))
    assert all_tokens(
        stream_event("content_block_delta", text + '"type":"message_start"\n{"type":"result"}\n')
    )
