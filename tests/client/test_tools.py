"""OpenAI's tools, tool choice and response format become the wire's, or are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_client.tools import legacy_choice, legacy_tools, tool_use, wire_format
from ccd_protocol.errors import Code, RpcError

EMPTY = {"type": "object", "properties": {}}


def tool(name: str = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def refused(param: str, *arguments: Any) -> None:
    with pytest.raises(RpcError) as caught:
        tool_use(*arguments)
    assert (caught.value.code, caught.value.data) == (Code.BAD_PARAMS, {"param": param})


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        (tool(), {"name": "f", "input_schema": EMPTY}),
        (tool(description="", parameters=None, strict=None), {"name": "f", "input_schema": EMPTY}),
        (tool(parameters={}), {"name": "f", "input_schema": EMPTY}),
        (
            tool(description="does", parameters={"$schema": "s", "type": "object"}, strict=True),
            {
                "name": "f",
                "description": "does",
                "input_schema": {"$schema": "s", "type": "object"},
                "strict": True,
            },
        ),
        (tool(parameters={"foo": "bar"}), {"name": "f", "input_schema": {"type": "object", "foo": "bar"}}),
        (
            {**tool(), "cache_control": {"type": "ephemeral"}},
            {"name": "f", "input_schema": EMPTY, "cache_control": {"type": "ephemeral"}},
        ),
    ],
)
def test_tools(given_: Any, wanted: Any) -> None:
    assert tool_use([given_]) == ([wanted], None)


F, G = ({"name": name, "input_schema": EMPTY} for name in "fg")
ONE = {"disable_parallel_tool_use": True}


@pytest.mark.parametrize(
    ("choice", "parallel", "wanted"),
    [
        (None, None, ([F, G], None)),
        (None, True, ([F, G], None)),
        (None, False, ([F, G], {"type": "auto", **ONE})),
        ("none", None, ([F, G], {"type": "none"})),
        ("none", False, ([F, G], {"type": "none"})),
        ("auto", None, ([F, G], {"type": "auto"})),
        ("required", False, ([F, G], {"type": "any", **ONE})),
        (tool("g"), None, ([F, G], {"type": "tool", "name": "g"})),
        ({"type": "function", "name": "g"}, False, ([F, G], {"type": "tool", "name": "g", **ONE})),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [tool("g")]}},
            None,
            ([G], {"type": "any"}),
        ),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
            None,
            ([F], {"type": "auto"}),
        ),
    ],
)
def test_choices(choice: Any, parallel: bool | None, wanted: Any) -> None:
    assert tool_use([tool("f"), tool("g")], choice, parallel) == wanted


def test_a_named_function_needs_no_type() -> None:
    named = {"type": "tool", "name": "f"}
    assert tool_use([tool("f")], {"function": {"name": "f"}}).tool_choice == named
    assert tool_use([tool("f")], {"type": "function", "function": {"name": "f"}}).tool_choice == named


@pytest.mark.parametrize("choice", [None, "none", "auto"])
def test_without_tools_a_choice_must_ask_for_nothing(choice: Any) -> None:
    assert tool_use(None, choice, False) == ([], None)
    assert tool_use([], choice, True) == ([], None)


@pytest.mark.parametrize(
    ("param", "arguments"),
    [
        ("tools", ("x",)),
        ("tools", ({},)),
        ("tools[0]", (["x"],)),
        ("tools[1].type", ([tool(), {"type": "custom"}],)),
        ("tools[0].type", ([{}],)),
        ("tools[0].function", ([{"type": "function"}],)),
        ("tools[0].function.name", ([tool("")],)),
        ("tools[0].function.description", ([tool(description=5)],)),
        ("tools[0].function.parameters", ([tool(parameters=["a"])],)),
        ("tools[0].function.parameters.type", ([tool(parameters={"type": "string"})],)),
        ("tool_choice", ([], "required")),
        ("tool_choice", (None, tool("f"))),
        ("tool_choice", ([tool()], "any")),
        ("tool_choice", ([tool()], 5)),
        ("tool_choice", ([tool()], tool("g"))),
        ("tool_choice.type", ([tool()], {"type": "custom"})),
        ("tool_choice.function.name", ([tool()], {"type": "function"})),
        ("tool_choice.allowed_tools", ([tool()], {"type": "allowed_tools"})),
        (
            "tool_choice.allowed_tools.mode",
            ([tool()], {"type": "allowed_tools", "allowed_tools": {"mode": "x", "tools": [tool()]}}),
        ),
        ("tool_choice", ([tool()], {"type": "allowed_tools", "allowed_tools": {"tools": [tool("g")]}})),
    ],
)
def test_refusals_name_the_parameter(param: str, arguments: Any) -> None:
    refused(param, *arguments)


def test_legacy_functions() -> None:
    assert tool_use(legacy_tools([{"name": "f"}]), legacy_choice({"name": "f"})) == (
        [{"name": "f", "input_schema": EMPTY}],
        {"type": "tool", "name": "f"},
    )
    assert [legacy_choice(word) for word in (None, "none", "auto")] == [None, "none", "auto"]
    for wrong in (lambda: legacy_tools("f"), lambda: legacy_choice("required")):
        with pytest.raises(RpcError):
            wrong()


def test_formats() -> None:
    schema = {"type": "object"}
    assert wire_format(None) is None
    assert wire_format({"type": "text"}) is None
    assert wire_format({"type": "json_object"}) == {"type": "json_object"}
    assert wire_format(
        {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    ) == {
        "type": "json_schema",
        "schema": schema,
    }


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("text", "response_format.type"),
        ({}, "response_format.type"),
        ({"type": "grammar"}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"name": "n"}}, "response_format.json_schema.schema"),
    ],
)
def test_wrong_formats(value: Any, param: str) -> None:
    with pytest.raises(RpcError) as caught:
        wire_format(value)
    assert caught.value.data == {"param": param}


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=3)
    | st.sampled_from(["function", "f", "auto"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "function", "name", "tools", "mode", "parameters"]), inner)
    ),
)


@given(anything | st.lists(st.just(tool()) | anything), anything, st.none() | st.booleans())
def test_anything_is_converted_or_refused(tools: Any, choice: Any, parallel: bool | None) -> None:
    try:
        made = tool_use(tools, choice, parallel)
    except RpcError as error:
        assert error.code is Code.BAD_PARAMS and error.data["param"].startswith("tool")
    else:
        assert all(tool["input_schema"]["type"] == "object" for tool in made.tools)
