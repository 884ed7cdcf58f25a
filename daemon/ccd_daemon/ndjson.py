"""Cuts a CLI's stdout into whole lines without looking at them, and tells hot lines from the few that matter.

Theory of operation. The token path is one read of the pipe: `LineCutter.feed` returns all whole lines of the read
as ONE bytes object (the very object that was read, when it ends in a newline), and `all_hot` says with two C-level
scans whether every line is a `stream_event`. Only when it is not does anybody split or decode. A partial last line
is kept as a list of pieces and joined once, so a giant line costs one copy, not one per read.
"""

from __future__ import annotations

from collections.abc import Iterator

#: How every token line begins. The CLI writes this key first; a line in any other form just takes the slow path.
HOT_PREFIX = b'{"type":"stream_event"'
_NEXT_HOT = b"\n" + HOT_PREFIX

#: Marks the start or end of a message inside hot lines. A quote inside JSON text is always escaped, so these
#: bytes cannot occur in what a model wrote.
MESSAGE_MARK = b'"type":"message_'


class LineTooLong(Exception):
    """A line passed the limit before it ended."""


class LineCutter:
    """Collects reads into whole lines; holds at most `max_line_bytes` of an unfinished one."""

    def __init__(self, max_line_bytes: int) -> None:
        self.max_line_bytes = max_line_bytes
        self._pieces: list[bytes] = []
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of the unfinished last line."""
        return self._held_bytes

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
        if self._pieces:
            if self._held_bytes + data.find(b"\n") > self.max_line_bytes:
                raise LineTooLong(f"a line is longer than {self.max_line_bytes} bytes")
            self._pieces.append(lines)
            lines = b"".join(self._pieces)
            self._pieces.clear()
            self._held_bytes = 0
        if cut < len(data):
            self._hold(data[cut:])
        return lines

    def _hold(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes > self.max_line_bytes:
            raise LineTooLong(f"a line is longer than {self.max_line_bytes} bytes")


def all_hot(lines: bytes) -> bool:
    """Whether every line is a token line in the CLI's usual form."""
    return lines.startswith(HOT_PREFIX) and lines.count(_NEXT_HOT) + 1 == lines.count(b"\n")


def each(lines: bytes) -> Iterator[bytes]:
    """The lines one by one, newline included; blank ones are left out."""
    for line in lines.split(b"\n"):
        if line and not line.isspace():
            yield line + b"\n"
