"""Every parameter in every mode: what the table says becomes of it is what is seen to become of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ccd_daemon.claude.login import Mode
from ccd_daemon.request import exact, replay, wish
from ccd_daemon.request.body import Script, script, validate
from ccd_protocol.chat.parameters import PARAMETERS, Fate, Parameter
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatParams

ABLE = wish.Abilities(adaptive=True, efforts=("low", "medium", "high"))
TOOL = {"name": "f", "description": "for the test", "input_schema": {"type": "object"}}
#: A value that asks for something, and what must be there for it.
SAMPLES: dict[str, tuple[Any, dict[str, Any]]] = {
    "messages": ([{"role": "user", "content": "the question"}], {}),
    "profile": ("quick", {}),
    "model": ("opus-for-the-test", {}),
    "system": ("the system prompt", {}),
    "max_tokens": (77, {}),
    "temperature": (0.25, {}),
    "top_p": (0.5, {}),
    "top_k": (7, {}),
    "stop_sequences": (["END"], {}),
    "metadata": ({"user_id": "u-1"}, {}),
    "service_tier": ("standard_only", {}),
    "tools": ([TOOL], {}),
    "tool_choice": ({"type": "any"}, {"tools": [TOOL]}),
    "effort": ("low", {}),
    "thinking": ({"type": "enabled", "budget_tokens": 1024}, {}),
    "format": ({"type": "json_object"}, {}),
    "fallback_model": ("another-model", {}),
    "exact": (True, {}),
    "extra_body": ({"output_config": {"effort": "low"}}, {"exact": True}),
    "betas": (["beta-1"], {"exact": True}),
    "strict": (True, {}),
    "conversation_id": ("c-1", {}),
    "tenant": ("t-1", {}),
    "cache": ({"key": "k"}, {}),
}
ASKED = {"messages": [{"role": "user", "content": "x"}]}


def made(mode: Mode, params: dict[str, Any]) -> Script:
    """What is written to the CLI, or why not."""
    chat: ChatParams = validate({**ASKED, **params})
    exact.check(chat)
    fitted = wish.make(chat, chat.get("model"), ABLE, mode=mode, thoughtless=False, betas=True)
    if mode == Mode.REPLAY:
        return replay.script(fitted, replay.talk(fitted), "id", replay.Standing())
    return script(mode, fitted, "id", None)


def written(mode: Mode, params: dict[str, Any]) -> str:
    found = made(mode, params)
    return b"".join((found.first, *found.rest)).decode()


def body_of(text: str) -> dict[str, Any]:
    """The model API's request, as far as it travels in a variable."""
    for line in text.splitlines():
        env = ((json.loads(line).get("request") or {}).get("settings") or {}).get("env") or {}
        if "CLAUDE_CODE_EXTRA_BODY" in env:
            body: dict[str, Any] = json.loads(env["CLAUDE_CODE_EXTRA_BODY"])
            return body
    return {}


def test_every_parameter_has_a_sample_and_its_own_name() -> None:
    assert SAMPLES.keys() == PARAMETERS.keys() == ChatParams.__annotations__.keys()
    for name, parameter in PARAMETERS.items():
        assert parameter.name == name and parameter.about
        assert {*parameter.excludes, parameter.needs or name} <= PARAMETERS.keys()


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("name", PARAMETERS)
def test_its_fate_is_what_the_table_says(mode: Mode, name: str) -> None:
    fate = PARAMETERS[name].fate(mode)
    value, beside = SAMPLES[name]
    params = {**beside, name: value}
    if fate == Fate.REFUSED:
        with pytest.raises(RpcError) as caught:
            written(mode, params)
        assert caught.value.code is Code.BAD_PARAMS
        return
    before, after = written(mode, beside), written(mode, params)
    ignored = set(made(mode, params).ignored)
    assert (name in ignored) is (fate in (Fate.IGNORED, Fate.TOLD))
    if fate == Fate.BODY:
        sent = body_of(after)[name]
        assert json.dumps(value) in json.dumps(sent) or (name == "system" and value in json.dumps(sent))
    elif fate in (Fate.FITTED, Fate.KNOB):
        assert after != before
        assert fate == Fate.FITTED or name not in body_of(after) or name == "messages"
    elif fate in (Fate.IGNORED, Fate.TOLD):
        assert (after == before) is (fate == Fate.IGNORED) and not ignored - {name}
        with pytest.raises(RpcError):
            made(mode, {**params, "strict": True})
    else:
        assert json.dumps(value) not in json.dumps(body_of(after)) or value is True


@pytest.mark.parametrize(
    "name", [name for name, one in PARAMETERS.items() if one.low is not None or one.one_of]
)
def test_its_range(name: str) -> None:
    parameter = PARAMETERS[name]
    good = parameter.one_of or [value for value in (parameter.low, parameter.high) if value is not None]
    wrong = ["other"] if parameter.one_of else [value for value in beyond(parameter) if value is not None]
    whole = ChatParams.__annotations__[name].__forward_arg__.startswith("Annotated[int")
    for value in good:
        validate({**ASKED, name: int(value) if whole else value})
    for value in wrong:
        with pytest.raises(RpcError) as caught:
            validate({**ASKED, name: int(value) if whole else value})
        assert caught.value.data["param"] == name and name in caught.value.message


def beyond(parameter: Parameter) -> list[float | None]:
    low = None if parameter.low is None else parameter.low - 1
    return [low, None if parameter.high is None else parameter.high + 1]


@pytest.mark.parametrize("name", [name for name, one in PARAMETERS.items() if one.excludes])
def test_what_excludes_it(name: str) -> None:
    for other in PARAMETERS[name].excludes:
        with pytest.raises(RpcError) as caught:
            validate({**ASKED, name: SAMPLES[name][0], other: SAMPLES[other][0]})
        assert {name, other} <= set(caught.value.message.replace(",", " ").split())


@pytest.mark.parametrize("name", [name for name, one in PARAMETERS.items() if one.needs])
def test_what_it_needs(name: str) -> None:
    with pytest.raises(RpcError) as caught:
        made(Mode.FULL, {name: SAMPLES[name][0]})
    assert PARAMETERS[name].needs in caught.value.message
