"""Server-sent events of a streamed chat completion, as bytes.

Everything that is the same in all chunks of a stream is encoded once; a delta then costs one
concatenation. Texts come as the JSON strings that they already are on the wire (quotes and escapes
included) and are never decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keep-alive\n\n"


def error_event(error: Mapping[str, Any]) -> bytes:
    """The event that ends a stream which fails after it began; every client reports its message."""
    return b"data: " + msgspec.json.encode({"error": error}) + b"\n\n"


class ChunkWriter:
    """Makes the chunks of one stream.

    Args:
        completion_id: the completion's `id`.
        created: seconds since 1970.
        model: what the client asked for.
        fingerprint: `system_fingerprint`.
        include_usage: whether chunks have a `usage` key, null until the last.
    """

    def __init__(
        self, completion_id: str, created: int, model: str, fingerprint: str, *, include_usage: bool
    ) -> None:
        head = {
            "id": completion_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "service_tier": "default",
            "system_fingerprint": fingerprint,
        }
        start = b"data: " + msgspec.json.encode(head)[:-1] + b',"choices":['
        self._start = start
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._delta = start + b'{"index":0,"delta":'
        self._open = b',"logprobs":null,"finish_reason":null}]' + self._end
        self._content = self._delta + b'{"content":'
        self._reasoning = self._delta + b'{"reasoning_content":'
        self._close = b"}" + self._open

    def role(self) -> bytes:
        """The first chunk."""
        return self._delta + b'{"role":"assistant","content":"","refusal":null}' + self._open

    def content(self, raw: bytes) -> bytes:
        """A piece of the answer; `raw` is a JSON string."""
        return b"%b%b%b" % (self._content, raw, self._close)

    def reasoning(self, raw: bytes) -> bytes:
        """A piece of the model's thinking; `raw` is a JSON string."""
        return b"%b%b%b" % (self._reasoning, raw, self._close)

    def finish(self, reason: str) -> bytes:
        """The chunk that says why the answer ended."""
        return self._delta + b'{},"logprobs":null,"finish_reason":"' + reason.encode() + b'"}]' + self._end

    def usage(self, usage: Mapping[str, Any]) -> bytes:
        """The last chunk of a stream with `include_usage`."""
        return self._start + b'],"usage":' + msgspec.json.encode(usage) + b"}\n\n"
