"""CCDP/1 on the byte level: the kinds of frame, the packer, the bounded reader, and the limits.

Theory of operation. A connection carries msgpack arrays one after the other, with no length prefix: the
decoder finds the end of each by decoding it. Three things therefore have to be bounded here, because
msgpack's own `max_buffer_size` bounds only the bytes *not yet decoded*:

- bytes of a frame that is not finished, counted per read;
- the length that a container may announce, because lists are allocated when announced;
- the number of objects in a frame, because one byte on the wire can become 72 bytes of object.

The accepting side is the strict one: whoever connects has chosen whom to trust. What it would refuse is found out
before it is sent (`unacceptable`), because a refused frame costs the connection and every other call on it.

Not here: which frame may come when (`peer`). A length before each frame would be the obvious way to bound it, and
costs 259 to 383 ns per frame where the decoder alone needs 100 (DECISIONS, "CCDP/1 is a bare stream").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from ccd_protocol.errors import Code

MAJOR: Final = 1
MINOR: Final = 0

HELLO: Final = 0
CALL: Final = 1
ITEM: Final = 2
END: Final = 3
FAIL: Final = 4
CANCEL: Final = 5
CREDIT: Final = 6
GOAWAY: Final = 7
KIND_NAMES: Final = ("HELLO", "CALL", "ITEM", "END", "FAIL", "CANCEL", "CREDIT", "GOAWAY")

MAX_U32: Final = 0xFFFF_FFFF
MIN_FRAME_BYTES: Final = 65_536  # every peer accepts frames of this size, so it may be assumed before HELLO
ITEM_OVERHEAD_BYTES: Final = 16  # array header, kind, id and bin header of an ITEM need at most 12
MAX_CONTAINER_LEN: Final = 16_384  # in a frame to the accepting side
MAX_ANSWER_LEN: Final = 1 << 20  # in a frame from it: an array that a model has written may be long
MAX_METHOD_CHARS: Final = 128
MAX_AGENT_CHARS: Final = 256
HELLO_TIMEOUT_S: Final = 2.0  # for the program around the peer, which alone has a clock

_PIECE_BYTES: Final = 1 << 15
#: The decoder's buffer at first, for two pieces; it grows with a frame. It is filled from end to end before it is used
#: anew, so the usual size of 1 MB would cost every connection as much memory, and the core's caches.
_BUFFER_BYTES: Final = 1 << 16
KEPT_BYTES: Final = 1 << 20  # a buffer that has grown larger is not worth keeping
_NOTHING: Final = object()
_JOIN_BYTES: Final = 4096  # below this, copying a payload costs less than handing the kernel one more buffer


class Violation(Exception):
    """The other side broke the protocol; ends the connection with this code and message."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Limits:
    """What this side accepts. The first two are announced in HELLO.

    Attributes:
        max_frame_bytes: the largest frame that is surely accepted; never below `MIN_FRAME_BYTES`.
        max_open_calls: calls that the other side may have open at once; one more is answered BUSY.
        max_nodes: objects in one frame, counted by the accepting side.
    """

    max_frame_bytes: int = 64 << 20
    max_open_calls: int = 256
    max_nodes: int = 1_000_000

    def __post_init__(self) -> None:
        if not MIN_FRAME_BYTES <= self.max_frame_bytes <= MAX_U32:
            raise ValueError(f"max_frame_bytes must be {MIN_FRAME_BYTES} to {MAX_U32}")
        if not 1 <= self.max_open_calls <= MAX_U32:
            raise ValueError("max_open_calls must be at least 1")

    def caps(self) -> dict[str, int]:
        """Returns the part that HELLO announces."""
        return {"max_frame_bytes": self.max_frame_bytes, "max_open_calls": self.max_open_calls}


def announced(caps: Mapping[str, Any]) -> Limits:
    """Returns the other side's limits, read from its HELLO; keys that are absent mean the defaults.

    Raises:
        Violation: a limit is not a number in range.
    """
    usual = Limits()
    values = [caps.get(name, getattr(usual, name)) for name in ("max_frame_bytes", "max_open_calls")]
    if not all(is_u32(value) for value in values):
        raise Violation(Code.PROTOCOL, "a limit in HELLO is not a number")
    try:
        return Limits(*values)
    except ValueError as error:
        raise Violation(Code.PROTOCOL, f"HELLO: {error}") from None


def is_u32(value: object) -> bool:
    """Returns whether a decoded value is an unsigned 32-bit number; `True` is not."""
    return type(value) is int and 0 <= value <= MAX_U32


def new_packer() -> Any:
    """Returns a packer to keep and reuse: making one costs more than packing a frame."""
    return msgpack.Packer(use_bin_type=True, autoreset=True)


def item_prefix(call_id: int) -> bytes:
    """Returns the part of an ITEM frame that is the same for every ITEM of a call."""
    packed: bytes = new_packer().pack(call_id)
    return b"\x93\x02" + packed


def item_buffers(prefix: bytes, payload: bytes | memoryview) -> tuple[bytes | memoryview, ...]:
    """Returns an ITEM frame as buffers for `writelines`; a large payload is passed on and never copied."""
    size = len(payload)
    if size <= 0xFF:
        head = prefix + b"\xc4" + size.to_bytes(1, "big")
    elif size <= 0xFFFF:
        head = prefix + b"\xc5" + size.to_bytes(2, "big")
    else:
        head = prefix + b"\xc6" + size.to_bytes(4, "big")
    return (head + payload,) if size <= _JOIN_BYTES else (head, payload)


def pieces(payload: bytes | memoryview, max_bytes: int) -> Iterator[bytes | memoryview]:
    """A payload cut to what fits into one frame each; a payload that fits is passed on as it is."""
    if len(payload) <= max_bytes:
        yield payload
        return
    view = memoryview(payload)
    for start in range(0, len(view), max_bytes):
        yield view[start : start + max_bytes]


class FrameReader:
    """Cuts received bytes into decoded values and refuses what is malformed or too large."""

    def __init__(self, limits: Limits, *, strict: bool) -> None:
        self._max_unfinished_bytes = limits.max_frame_bytes + _PIECE_BYTES
        self._max_nodes = limits.max_nodes
        self._fed_bytes = 0
        self._unfinished_bytes = 0
        self._nodes = 0  # since the last read that completed a frame
        self.violation: Violation | None = None
        self._max_frame_bytes = limits.max_frame_bytes
        self._strict = strict
        self._unpacker = self._new_unpacker()

    def _new_unpacker(self) -> Any:
        hooks = {"object_hook": self._count, "list_hook": self._count} if self._strict else {}
        longest = MAX_CONTAINER_LEN if self._strict else MAX_ANSWER_LEN
        return msgpack.Unpacker(
            read_size=_BUFFER_BYTES,
            max_buffer_size=self._max_frame_bytes + 2 * _PIECE_BYTES,
            max_bin_len=self._max_frame_bytes,
            max_str_len=self._max_frame_bytes,
            max_array_len=longest,
            max_map_len=longest,
            max_ext_len=0,
            ext_hook=_refuse_ext,
            **hooks,
        )

    def close(self) -> None:
        """Let go of what is unfinished, now instead of when the cycle is collected; nothing more may be read."""
        self._unpacker = None

    def read(self, data: bytes) -> list[Any]:
        """Returns every value that is complete with this read, oldest first; each may still be of any shape.

        When the bytes are not msgpack, or a value is larger than the limits allow, `violation` says so
        afterwards and nothing more may be read.
        """
        values: list[Any] = []
        try:
            if len(data) <= _PIECE_BYTES:
                self._read_piece(data, values)
            else:
                for piece in pieces(data, _PIECE_BYTES):
                    self._read_piece(piece, values)
        except Violation as violation:
            self.violation = violation
        except (ValueError, msgpack.UnpackException) as error:
            self.violation = Violation(Code.PROTOCOL, f"not a valid msgpack stream: {_described(error)}")
        return values

    def _read_piece(self, piece: bytes | memoryview, values: list[Any]) -> None:
        unpacker = self._unpacker
        unpacker.feed(piece)
        size = len(piece)
        self._fed_bytes += size
        value = next(unpacker, _NOTHING)
        if value is not _NOTHING:
            values.append(value)
            # Most reads hold one frame; asking a decoder that is empty costs more than decoding that frame.
            if unpacker.tell() != self._fed_bytes:
                values.extend(unpacker)  # what was decoded before an error stays in the list
            if self._unfinished_bytes > KEPT_BYTES and unpacker.tell() == self._fed_bytes:
                self._unpacker = self._new_unpacker()  # the old one keeps its buffer for ever
                self._fed_bytes = 0
            self._unfinished_bytes = size
            self._nodes = 0
        else:
            self._unfinished_bytes += size
            if self._unfinished_bytes > self._max_unfinished_bytes:
                raise Violation(Code.TOO_LARGE, f"a frame is larger than {self._max_unfinished_bytes} bytes")

    def _count(self, container: Any) -> Any:
        self._nodes += 1 + len(container)
        if self._nodes > self._max_nodes:
            raise Violation(Code.TOO_LARGE, f"a frame holds more than {self._max_nodes} objects")
        return container


def unacceptable(frame: bytes, *, strict: bool) -> Violation | None:
    """Returns why the other side would refuse a frame that this side has packed, whatever its size; None: it takes it.

    Args:
        frame: one packed frame.
        strict: the other side is the accepting one.
    """
    longest = MAX_CONTAINER_LEN if strict else MAX_ANSWER_LEN
    if len(frame) > Limits().max_nodes:
        reader = FrameReader(Limits(max_frame_bytes=MAX_U32), strict=strict)
        reader.read(frame)
        return reader.violation
    try:
        msgpack.unpackb(
            frame, max_array_len=longest, max_map_len=longest, max_ext_len=0, ext_hook=_refuse_ext
        )
    except (ValueError, msgpack.UnpackException) as error:
        return Violation(Code.PROTOCOL, _described(error))
    return None


def _refuse_ext(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code} is not part of the protocol")


def _described(error: Exception) -> str:
    # Python's own text would quote the bytes that could not be decoded, which may be a prompt.
    if isinstance(error, UnicodeDecodeError):
        return "a string is not UTF-8"
    if isinstance(error, msgpack.StackError):
        return "nested too deeply"
    if "max_array_len" in str(error) or "max_map_len" in str(error):
        return "an array or map has too many elements: " + str(error)
    return str(error)[:200] or type(error).__name__
