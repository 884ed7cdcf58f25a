"""Between the OpenAI API and the wire, without I/O: requests to call parameters, CLI lines to answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from ccd_gateway.errors import bad_request
from ccd_gateway.schema import ChatRequest
from ccd_protocol.methods import ChatAnswer, ChatParams, ChatResult, Usage

_PROFILE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_STOPS = 64

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class Target(NamedTuple):
    """Which profile and model a request is for; None is the daemon's default."""

    profile: str | None
    model: str | None


def target(model: str, profile_header: str | None) -> Target:
    """Read `profile/model`, or a plain model with the profile from `X-CCD-Profile`.

    What stands before the first slash is a profile only if it looks like one, so that a provider's resource
    name with slashes stays whole. With the header the model is taken as it is.

    Raises:
        ApiError: 400 for a profile name that cannot be one.
    """
    if profile_header is not None:
        if not _PROFILE.fullmatch(profile_header):
            raise bad_request("X-CCD-Profile: expected letters, digits, '-' and '_'.", "X-CCD-Profile")
        return Target(profile_header, model)
    prefix, slash, rest = model.partition("/")
    if slash and _PROFILE.fullmatch(prefix):
        return Target(prefix, rest or None)
    return Target(None, model)


def sampling(request: ChatRequest) -> ChatParams:
    """The parameters of the call but for the messages: sampling, limits, profile-independent."""
    params: dict[str, Any] = {
        "max_tokens": request.max_completion_tokens or request.max_tokens or None,
        "temperature": None if request.temperature is None else min(request.temperature, 1.0),
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop_sequences": _stops(request.stop),
        "metadata": _metadata(request),
    }
    return {name: value for name, value in params.items() if value is not None}  # type: ignore[return-value]


def _stops(stop: str | list[str] | None) -> list[str] | None:
    stops = [stop] if isinstance(stop, str) else stop or []
    if "" in stops or len(stops) > _MAX_STOPS:
        raise bad_request(f"'stop': expected up to {_MAX_STOPS} texts that are not empty.", "stop")
    return stops or None


def _metadata(request: ChatRequest) -> dict[str, str] | None:
    user = request.user or request.safety_identifier or (request.metadata or {}).get("user_id")
    return {"user_id": user} if user else None


def finish_reason(result: Mapping[str, Any]) -> str:
    """OpenAI's word for why the turn ended."""
    return _FINISH.get(result.get("stop_reason") or "", "stop")


def usage(counts: Usage | Mapping[str, int]) -> dict[str, Any]:
    """OpenAI's usage; input that was read from or written to the cache counts as prompt."""
    cached = counts.get("cache_read_input_tokens") or 0
    written = counts.get("cache_creation_input_tokens") or 0
    prompt = (counts.get("input_tokens") or 0) + cached + written
    completion = counts.get("output_tokens") or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def completion(
    answer: ChatAnswer, *, completion_id: str, created: int, model: str, fingerprint: str
) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer["text"],
        "refusal": None,
        "annotations": [],
    }
    thinking = "".join(
        block.get("thinking", "") for block in answer["content"] if block.get("type") == "thinking"
    )
    if thinking:
        message["reasoning_content"] = thinking
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(answer)}
    return {
        "id": completion_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "service_tier": "default",
        "system_fingerprint": fingerprint,
        "choices": [choice],
        "usage": usage(answer["usage"]),
    }


def ignored_by_daemon(result: ChatResult | Mapping[str, Any]) -> list[str]:
    """Parameters that the daemon could not honour, under the names that an OpenAI client used."""
    names = {"stop_sequences": "stop"}
    return [names.get(name, name) for name in result.get("ignored") or ()]


# --- CLI lines ---


class _Delta(Struct):
    text: Raw = Raw()
    thinking: Raw = Raw()


class _Event(Struct):
    type: str = ""
    delta: _Delta | None = None


class _Line(Struct):
    type: str = ""
    event: _Event | None = None
    parent_tool_use_id: str | None = None


class Delta(NamedTuple):
    """A piece of text; `raw` is the JSON string that the CLI wrote, quotes included."""

    thinking: bool
    raw: bytes


_decode_line = msgspec.json.Decoder(_Line).decode
_EMPTY = b'""'


class LineReader:
    """Finds the text in the payloads of one `chat.stream` call.

    Attributes:
        started: the model's answer has begun, so a failure from now on comes after output.
    """

    def __init__(self) -> None:
        self.started = False
        self._rest: list[bytes] = []

    def feed(self, payload: bytes) -> list[Delta]:
        """The deltas in a payload, in order. A line that is not complete waits for the next payload."""
        if not payload.endswith(b"\n"):
            payload = self._hold_back(payload)
        elif self._rest:
            payload = b"".join((*self._rest, payload))
            self._rest.clear()
        if not self.started and b'"message_start"' in payload:
            self.started = True
        return [delta for line in payload.splitlines() if (delta := _delta_of(line)) is not None]

    def _hold_back(self, payload: bytes) -> bytes:
        """Keep what comes after the last line end; the pieces are joined once only, when the line ends."""
        whole, newline, rest = payload.rpartition(b"\n")
        if not newline:
            self._rest.append(payload)
            return b""
        whole = b"".join((*self._rest, whole))
        self._rest[:] = [rest]
        return whole


def _delta_of(line: bytes) -> Delta | None:
    """Most lines that matter are deltas and the others need no decoding, so a search decides first."""
    if b'"content_block_delta"' not in line:
        return None
    try:
        decoded = _decode_line(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # not a line that this gateway knows
    event = decoded.event
    if decoded.type != "stream_event" or event is None or decoded.parent_tool_use_id is not None:
        return None
    if event.type != "content_block_delta" or event.delta is None:
        return None
    return _text_of(event.delta)


def _text_of(delta: _Delta) -> Delta | None:
    raw = bytes(delta.text)
    thinking = not raw
    if thinking:
        raw = bytes(delta.thinking)
    return Delta(thinking, raw) if raw[:1] == b'"' and raw != _EMPTY else None
