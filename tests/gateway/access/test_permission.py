"""What names of models mean, and which of them a key may use."""

from __future__ import annotations

from typing import Any

import pytest

from ccd_gateway.access.keyfile import Key, make
from ccd_gateway.access.permission import Known, may_run, may_use, permitted
from ccd_protocol.errors import Code, RpcError

FOUND: Any = {
    "models": [
        {"id": "claude-opus-5-5", "alias": "opus", "display_name": "Opus"},
        {"id": "claude-haiku-5-5", "alias": "haiku", "display_name": "Haiku"},
        {"id": "vendor/x", "alias": None, "display_name": "X"},
    ],
    "profiles": ["chat", "quick"],
    "default": "claude-opus-5-5",
    "of_profiles": {
        "chat": {"model": None, "fallback_model": "opus"},
        "quick": {"model": "haiku", "fallback_model": None},
    },
}
#: As long as no CLI process has said which models there are.
UNSAID: Any = {
    **FOUND,
    "models": [{"id": alias, "alias": alias, "display_name": alias} for alias in ("opus", "sonnet", "haiku")],
    "default": None,
}
KNOWN, EARLY = Known.of(FOUND), Known.of(UNSAID)


def key(*models: str, profiles: tuple[str, ...] = ("*",)) -> Key:
    return make("app", models=models, profiles=profiles)[0]


@pytest.mark.parametrize("known", [KNOWN, EARLY])
@pytest.mark.parametrize("name", ["opus", "haiku", "claude-opus-5-5", "claude-haiku-5-5", "haiku[1m]"])
def test_a_pattern_fits_the_name_or_the_model_that_it_means(known: Known, name: str) -> None:
    assert may_use(key("claude-*"), known, "chat", name)
    assert may_use(key("*haiku*"), known, "chat", name) is ("haiku" in name)


def test_the_default_is_what_the_profile_or_the_cli_says() -> None:
    assert may_use(key("claude-opus-*"), KNOWN, "chat", None)
    assert not may_use(key("claude-opus-*"), KNOWN, "quick", None)
    assert may_use(key("claude-haiku-*"), KNOWN, "quick", None) and may_use(
        key("haiku"), KNOWN, "quick", None
    )
    assert not may_use(key("haiku"), KNOWN, "chat", None)
    assert may_use(key("default"), KNOWN, "chat", None)


def test_a_name_is_not_its_model_s_other_names() -> None:
    assert not may_use(key("haiku"), KNOWN, "chat", "claude-haiku-5-5")
    assert not may_use(key("haiku"), KNOWN, "chat", "haiku[1m]")
    assert may_use(key("haiku[1m]"), KNOWN, "chat", "haiku[1m]")
    assert not may_use(key("haiku[1m]"), KNOWN, "chat", "haikum")


@pytest.mark.parametrize(
    ("models", "running", "may"),
    [
        (("haiku",), "claude-haiku-5-5", True),
        (("haiku",), "claude-haiku-5-5-20260101", True),
        (("haiku",), "haiku", True),
        (("haiku",), "claude-haiku-5-5[1m]", False),
        (("haiku",), "claude-opus-5-5", False),
        (("haiku",), "claude-haiku-5-5-5", False),
        (("haiku",), "", False),
        (("claude-opus-*",), "", True),
        (("default",), "claude-opus-5-5", True),
        (("*",), "anything", True),
    ],
)
def test_what_runs_was_asked_for_by_some_name(models: tuple[str, ...], running: str, may: bool) -> None:
    assert may_run(key(*models), KNOWN, running) is may


def test_what_runs_before_the_names_are_known() -> None:
    assert may_run(key("haiku"), EARLY, "claude-haiku-9")
    assert not may_run(key("haiku"), EARLY, "claude-opus-9")


CHAT: dict[str, Any] = {"messages": []}
ADVISOR = {"type": "advisor_20260301", "name": "advisor"}
WAYS: dict[str, dict[str, Any]] = {
    "model": {"model": "opus"},
    "model by its full name": {"model": "claude-opus-5-5"},
    "prefix": {"model": "chat/opus"},
    "prefixes": {"model": "chat/chat/opus"},
    "prefix beside a profile": {"profile": "chat", "model": "chat/opus"},
    "default": {"model": "default"},
    "no model": {},
    "bare profile": {"model": "chat"},
    "profile": {"profile": "chat"},
    "profile and slash": {"model": "chat/"},
    "long context": {"model": "haiku[1m]"},
    "fallback": {"model": "haiku", "fallback_model": "opus"},
    "fallbacks": {"model": "haiku", "extra_body": {"fallbacks": [{"model": "opus"}]}},
    "fallbacks as texts": {"model": "haiku", "extra_body": {"fallbacks": ["opus"]}},
    "fallbacks as one": {"model": "haiku", "extra_body": {"fallbacks": {"model": "opus"}}},
    "fallbacks by a word": {"model": "haiku", "extra_body": {"fallbacks": "default"}},
    "tool": {"model": "haiku", "tools": [{**ADVISOR, "model": "opus"}]},
    "tool's settings": {"model": "haiku", "tools": [{**ADVISOR, "advisor": {"model": "opus"}}]},
    "compaction": {"model": "haiku", "extra_body": {"compaction": {"model": "opus"}}},
    "context management": {
        "model": "haiku",
        "extra_body": {"context_management": {"edits": [{"type": "compact", "with": [{"model": "opus"}]}]}},
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_leads_to_another_model(way: str) -> None:
    asked: Any = {**CHAT, **WAYS[way]}
    with pytest.raises(RpcError) as refusal:
        permitted(key("haiku"), asked, KNOWN)
    assert refusal.value.code is Code.MODEL_NOT_FOUND
    assert permitted(key("*"), asked, KNOWN)["tenant"] == "app"


def test_words_of_the_client_s_own_name_no_model() -> None:
    schema = {"type": "object", "properties": {"model": {"default": "x"}}, "examples": [{"model": "opus"}]}
    tools = [{"name": "car", "input_schema": schema}]
    asked: Any = {
        **CHAT,
        "model": "haiku",
        "tools": tools,
        "extra_body": {"output_format": {"schema": schema}},
    }
    assert permitted(key("haiku"), asked, KNOWN)["tools"] == tools


def test_the_profile_s_fallback_is_for_keys_that_may_use_it() -> None:
    asked: Any = {**CHAT, "model": "haiku"}
    assert permitted(key("haiku"), asked, KNOWN)["fallback_model"] is None
    assert "fallback_model" not in permitted(key("haiku", "claude-opus-*"), asked, KNOWN)
    assert "fallback_model" not in permitted(key("haiku"), {**asked, "profile": "quick"}, KNOWN)
    own = permitted(key("haiku"), {**asked, "fallback_model": "haiku"}, KNOWN)
    assert own["fallback_model"] == "haiku"


def test_a_profile_that_a_key_may_not_use() -> None:
    for asked in ({"model": "quick"}, {"model": "quick/haiku"}, {"profile": "quick"}):
        with pytest.raises(RpcError):
            permitted(key("*", profiles=("chat",)), {**CHAT, **asked}, KNOWN)
