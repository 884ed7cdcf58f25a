"""The response object: every key that OpenAI's and Open Responses' schemas ask for, in their order."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from ccd_gateway.responses.schema import ResponsesRequest
from ccd_gateway.surface.ignored import IGNORED

Response = dict[str, Any]

_ERROR_CODES = frozenset({"server_error", "rate_limit_exceeded", "invalid_prompt"})


def new_id(prefix: str) -> str:
    """An id that nobody can guess: 128 random bits."""
    return f"{prefix}_{secrets.token_hex(16)}"


def new_response(request: ResponsesRequest, *, created_at: int, store: bool) -> Response:
    """The object as it is before the model has said anything.

    `user` is absent unless given, because null does not pass the schemas.
    """
    text = request.text
    reasoning = request.reasoning
    response: Response = {
        "id": new_id("resp"),
        "object": "response",
        "created_at": created_at,
        "completed_at": None,
        "status": "in_progress",
        "background": bool(request.background),
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "model": request.model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {"effort": request.effort, "summary": reasoning.wanted if reasoning else None},
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": store,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {
            "format": _format(text.format if text else None),
            "verbosity": (text.verbosity if text else None) or "medium",
        },
        "tool_choice": request.tool_choice or "auto",
        "tools": [_tool(tool) for tool in request.tools or ()],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "truncation": request.truncation or "disabled",
        "usage": None,
        "metadata": request.metadata or {},
    }
    if request.user is not None:
        response["user"] = request.user
    return response


def _format(given: Mapping[str, Any] | None) -> dict[str, Any]:
    if not given or given["type"] != "json_schema":
        return {"type": given["type"]} if given else {"type": "text"}
    return {
        "type": "json_schema",
        "name": given["name"],
        "description": given.get("description"),
        "schema": given["schema"],
        "strict": given.get("strict") is not False,
    }


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool["name"],
        "parameters": tool.get("parameters"),
        "strict": tool.get("strict") is not False,
        "description": tool.get("description"),
    }


def usage(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Token counts in the API's words; input that was read from or written to the cache counts as input."""
    cached = counts.get("cache_read_input_tokens") or 0
    written = counts.get("cache_creation_input_tokens") or 0
    given = (counts.get("input_tokens") or 0) + cached + written
    made = counts.get("output_tokens") or 0
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": counts.get("thinking_tokens") or 0},
        "total_tokens": given + made,
    }


def note_ignored(response: Response, names: Iterable[str]) -> None:
    """Write into the response itself what had no effect: one that is made in the background has no header for it."""
    noted = list(dict.fromkeys([*response.get(IGNORED, ()), *names]))
    if noted:
        response[IGNORED] = noted


def failed(response: Response, error: Mapping[str, Any]) -> Response:
    """The response as it is after a failure; `error` is the body's `error` object."""
    code = error.get("code")
    word = code if code in _ERROR_CODES else "server_error"
    problem = {"code": word, "message": error["message"]}
    return {**response, "status": "failed", "error": problem}


def cancelled(response: Response) -> Response:
    """The response as it is after `cancel`."""
    return {**response, "status": "cancelled"}
