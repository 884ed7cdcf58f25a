"""Server-sent events of a streamed chat completion, as bytes.

Everything that is the same in all chunks of a choice is encoded once; a delta then costs one concatenation.
Texts come as the JSON strings that they already are on the wire (quotes and escapes included) and are never
decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ccd_gateway.answer.lines import CALL, END, TEXT, THINKING, Delta

DONE = b"data: [DONE]\n\n"
_json = msgspec.json.encode

_NOTHING: Mapping[str, Any] = {}
_END = b"}\n\n"
_END_WITH_USAGE = b',"usage":null}\n\n'
_OPEN = b',"logprobs":null,"finish_reason":null}]' + _END
_OPEN_WITH_USAGE = b',"logprobs":null,"finish_reason":null}]' + _END_WITH_USAGE


def error_event(error: Mapping[str, Any]) -> bytes:
    """The event that ends a stream which fails after it began; every client reports its message."""
    return b"data: " + _json({"error": error}) + b"\n\n"


def _keys(further: Mapping[str, Any]) -> bytes:
    """Keys to go on with inside of an object."""
    return b"," + _json(further)[1:-1] if further else b""


class ChunkWriter:
    """Makes the chunks of one choice of a stream.

    Args:
        completion_id: the completion's `id`.
        created: seconds since 1970.
        model: what the client asked for.
        fingerprint: `system_fingerprint`.
        include_usage: whether chunks have a `usage` key, null until the last.
        choice: which of `n` answers.
        functions_form: tool calls have the deprecated form of one `function_call`.
        conversation_id: in the first and the last chunk, where the answer belongs to a conversation.
    """

    __slots__ = ("_delta", "_end", "_functions_form", "_named", "_open", "_start_bytes")

    def __init__(
        self,
        completion_id: str,
        created: int,
        model: str,
        fingerprint: str,
        *,
        include_usage: bool,
        choice: int = 0,
        functions_form: bool = False,
        conversation_id: str | None = None,
    ) -> None:
        head = {
            "id": completion_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "service_tier": "default",
            "system_fingerprint": fingerprint,
        }
        start = b"data: " + _json(head)[:-1] + b',"choices":['
        self._start_bytes = len(start)
        self._end = _END_WITH_USAGE if include_usage else _END
        self._delta = start + b'{"index":%d,"delta":' % choice
        self._open = _OPEN_WITH_USAGE if include_usage else _OPEN
        self._functions_form = functions_form
        self._named = b"" if conversation_id is None else b',"conversation_id":' + _json(conversation_id)

    @property
    def functions_form(self) -> bool:
        """Whether tool calls have the deprecated form."""
        return self._functions_form

    def chunks(self, deltas: list[Delta]) -> bytes:
        """The chunks for pieces of the answer."""
        if len(deltas) == 1:
            return self.chunk(deltas[0])
        return b"".join([self.chunk(delta) for delta in deltas])

    def role(self) -> bytes:
        """The first chunk."""
        role = b'{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}]'
        return self._delta + role + self._named + self._end

    def chunk(self, delta: Delta) -> bytes:
        """The chunk for a piece of the answer; nothing where the form has no place for it."""
        kind, raw = delta.kind, delta.raw
        if kind == TEXT:
            return b'%b{"content":%b}%b' % (self._delta, raw, self._open)
        if kind == THINKING:
            return b'%b{"reasoning_content":%b,"reasoning":%b}%b' % (self._delta, raw, raw, self._open)
        return b"" if kind == END else self._call(delta)

    def refusal(self, text: str) -> bytes:
        """The chunk that says that the model refuses."""
        return self._delta + b'{"refusal":' + _json(text) + b"}" + self._open

    def finish(self, reason: str, further: Mapping[str, Any] = _NOTHING) -> bytes:
        """The chunk that says why the answer ended, with further keys where there are some."""
        end = b'{},"logprobs":null,"finish_reason":"' + reason.encode() + b'"}]'
        return self._delta + end + self._named + _keys(further) + self._end

    def usage(self, usage: Mapping[str, Any], further: Mapping[str, Any] = _NOTHING) -> bytes:
        """The last chunk of a stream with `include_usage`, with further keys where there are some."""
        return self._delta[: self._start_bytes] + b'],"usage":' + _json(usage) + _keys(further) + b"}\n\n"

    def _call(self, delta: Delta) -> bytes:
        """The first fragment of a call has its id and name, the later ones neither: all clients take that."""
        if self._functions_form:
            return self._function_call(delta)
        if delta.kind == CALL:
            function = b'{"name":%b,"arguments":""}' % _json(delta.name)
            fragment = b'"id":%b,"type":"function","function":%b' % (_json(delta.id), function)
        else:
            fragment = b'"function":{"arguments":%b}' % delta.raw
        return b'%b{"tool_calls":[{"index":%d,%b}]}%b' % (self._delta, delta.number, fragment, self._open)

    def _function_call(self, delta: Delta) -> bytes:
        if delta.number > 0:
            return b""
        if delta.kind == CALL:
            fragment = b'"name":%b,"arguments":""' % _json(delta.name)
        else:
            fragment = b'"arguments":%b' % delta.raw
        return b'%b{"function_call":{%b}}%b' % (self._delta, fragment, self._open)
