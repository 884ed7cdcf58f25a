from __future__ import annotations

import json
from typing import Any

import pytest

from ccd_gateway.anthropic.request import Betas, ignored_by_daemon, read_betas, to_params
from ccd_gateway.anthropic.schema import MessagesRequest, decode
from ccd_gateway.errors import ApiError

WHOLE: dict[str, Any] = {
    "model": "sonnet",
    "max_tokens": 9,
    "messages": [
        {"role": "user", "content": "hi"},
        {"role": "system", "content": "note", "output_config": {}},
    ],
    "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 3,
    "stop_sequences": ["x"],
    "tools": [{"name": "t", "input_schema": {"type": "object"}, "eager_input_streaming": True}],
    "tool_choice": {"type": "auto"},
    "thinking": {"type": "disabled"},
    "metadata": {"user_id": "u"},
    "service_tier": "standard_only",
    "output_config": {"effort": "low"},
    "context_management": {"edits": []},
    "cache_control": {"type": "ephemeral"},
    "inference_geo": "us",
}
NO_BETAS = Betas([], [])
FURTHER = ("output_config", "context_management", "cache_control", "inference_geo")


def params(fields: dict[str, Any], betas: Betas = NO_BETAS) -> dict[str, Any]:
    return to_params(decode(json.dumps(fields).encode(), MessagesRequest), betas)


def test_every_parameter_is_passed_on_as_it_is() -> None:
    expected = {key: value for key, value in WHOLE.items() if key not in (*FURTHER, "model")}
    expected |= {"exact": True, "extra_body": {key: WHOLE[key] for key in FURTHER}}
    assert params(WHOLE) == expected


def test_every_field_has_a_fate() -> None:
    """Whatever the schema lets in is either sent or read by the gateway itself."""
    sample: dict[str, Any] = {"model": "m", "messages": WHOLE["messages"], "max_tokens": 9}
    for name in set(MessagesRequest.__struct_fields__) - {*sample, "stream"}:
        for value in ({}, [], "x", 0.5, 1):
            try:
                made = params(sample | {name: value})
            except ApiError:
                continue
            assert made.get(name, made.get("extra_body", {}).get(name)) == value
            break
        else:
            pytest.fail(f"{name} takes nothing")


def test_betas() -> None:
    assert params(WHOLE, Betas(["a-1"], []))["betas"] == ["a-1"]
    assert read_betas(None) == ([], [])
    assert read_betas(" a-1,b.2 ,, a-1") == (["a-1", "b.2"], [])
    assert read_betas("a,oauth-2025-04-20") == (["a"], ["anthropic-beta.oauth-2025-04-20"])
    for header in ("a b", "ü", "x" * 101, ",".join(f"b{n}" for n in range(65))):
        with pytest.raises(ApiError):
            read_betas(header)


def test_the_daemons_names() -> None:
    assert ignored_by_daemon(["betas", "temperature"]) == ["anthropic-beta", "temperature"]
