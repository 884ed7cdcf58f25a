"""Cuts a CLI's stdout into whole lines without looking at them, and tells token lines from the few that matter.

Theory of operation. The token path is one read of the pipe: `all_tokens` says with one C-level scan whether it is
whole token lines and nothing else, and then nobody looks at it again. Otherwise `LineCutter.feed` returns all whole
lines of the read as ONE bytes object (the very object that was read, when it ends in a newline). A partial last line
is added to one growing buffer and copied out once, so a giant line costs one copy, not one per read, and leaves no
holes behind in the heap.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

#: How every token line begins, in the CLI's order of keys. The start and the end of a message do not begin like this,
#: and a line in any other form just takes the slow path.
TOKEN_PREFIX = b'{"type":"stream_event","event":{"type":"content_block_'

#: Whether bytes are one or more whole token lines and nothing else (a match object or None). One scan, 0.1 µs a line.
all_tokens: Callable[[bytes], object] = re.compile(rb"(?:%b[^\n]*\n)+" % re.escape(TOKEN_PREFIX)).fullmatch

_GIANT_BYTES = 1 << 20  # from here on copying costs more than looking for the ends of lines


class LineTooLong(Exception):
    """A line passed the limit before it ended."""


class LineCutter:
    """Collects reads into whole lines; holds at most `max_line_bytes` of an unfinished one."""

    def __init__(self, max_line_bytes: int) -> None:
        self.max_line_bytes = max_line_bytes
        self._held = bytearray()
        self.unfinished_bytes = 0  # of the unfinished last line

    def feed(self, data: bytes) -> bytes:
        """Whole lines, newline included, or `b""` when none has ended yet.

        Raises:
            LineTooLong: the unfinished line is over the limit; the stream cannot be trusted any further.
        """
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._hold(data)
            return b""
        lines = data if cut == len(data) else data[:cut]
        if self.unfinished_bytes:
            if self.unfinished_bytes + data.find(b"\n") > self.max_line_bytes:
                raise LineTooLong(f"a line is longer than {self.max_line_bytes} bytes")
            self._held += lines
            lines = bytes(self._held)
            self._held = bytearray()
            self.unfinished_bytes = 0
        if cut < len(data):
            self._hold(data[cut:])
        return lines

    def _hold(self, piece: bytes) -> None:
        self._held += piece
        self.unfinished_bytes += len(piece)
        if self.unfinished_bytes > self.max_line_bytes:
            raise LineTooLong(f"a line is longer than {self.max_line_bytes} bytes")


def each(lines: bytes) -> Iterator[bytes]:
    """The lines one by one, newline included; blank ones are left out."""
    if len(lines) > _GIANT_BYTES:
        yield from _each_copied_once(lines)
        return
    for line in lines.split(b"\n"):
        if line and not line.isspace():
            yield line + b"\n"


def _each_copied_once(lines: bytes) -> Iterator[bytes]:
    """The same, slower for each line but not for each byte; a giant line that comes alone is not copied at all."""
    start = 0
    while end := lines.find(b"\n", start) + 1:
        line = lines[start:end]
        start = end
        if not line.isspace():
            yield line
