"""From OpenAI's tools, tool choice and response format to the wire's: pure, shared with the gateway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ccd_client.content import name_unknown, refusal, refuse
from ccd_client.values import faithful

_NO_PARAMETERS = {"type": "object", "properties": {}}
_CHOICES = {"none": "none", "auto": "auto", "required": "any"}
_FORMAT_KEYS = {"json_schema": ("type", "json_schema")}
#: `name` tells the client's schemas apart, and `strict` is what is done in any case.
_JSON_SCHEMA_KEYS = ("name", "description", "schema", "strict", "type")
_TOOL_KEYS = ("type", "function", "cache_control")
#: Of a function; `input_schema` is what the Messages API calls its parameters.
_FUNCTION_KEYS = ("type", "name", "description", "parameters", "strict", "cache_control", "input_schema")


class ToolUse(NamedTuple):
    """What a request says about tools, as parameters of the call."""

    tools: list[dict[str, Any]]
    tool_choice: dict[str, Any] | None


def tool_use(
    tools: object,
    tool_choice: object = None,
    parallel_tool_calls: bool | None = None,
    *,
    ignored: list[str] | None = None,
) -> ToolUse:
    """Tools, the choice among them and whether several may be called at once.

    A choice that asks for nothing is let pass without tools; one that demands a call is refused.

    Args:
        tools: OpenAI's list, or None.
        tool_choice: none, auto, required, a named function, or allowed_tools.
        parallel_tool_calls: False allows one call per answer.
        ignored: gets the paths of what the wire has no place for.

    Raises:
        RpcError: BAD_PARAMS naming what is wrong.
    """
    wire = wire_tools(tools, ignored=ignored)
    if not wire:
        if tool_choice not in (None, "none", "auto"):
            refuse("tool_choice", "is only allowed when tools are given")
        return ToolUse([], None)
    choice, allowed = _choice(tool_choice)
    names = {tool["name"] for tool in wire}
    for name in allowed:
        if name not in names:
            refuse("tool_choice", f"names a tool that is not in tools: {name!r}")
    if choice is not None and choice["type"] == "tool":
        allowed = []  # the others stay, as the API allows; the cache then keeps them too
    if allowed:
        wire = [tool for tool in wire if tool["name"] in allowed]
    if parallel_tool_calls is False and (choice is None or choice["type"] != "none"):
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    return ToolUse(wire, choice)


def wire_tools(
    tools: object, path: str = "tools", *, ignored: list[str] | None = None
) -> list[dict[str, Any]]:
    """OpenAI's function tools under the Messages API's names; without parameters one takes an empty object.

    Raises:
        RpcError: BAD_PARAMS naming the tool.
    """
    if tools is None:
        return []
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes):
        refuse(path, "must be a list of tools")
    named = [] if ignored is None else ignored
    return [_tool(tool, f"{path}[{index}]", named) for index, tool in enumerate(tools)]


def legacy_tools(functions: object) -> list[dict[str, Any]]:
    """The deprecated `functions` as tools."""
    if not isinstance(functions, Sequence) or isinstance(functions, str | bytes):
        refuse("functions", "must be a list of functions")
    return [{"type": "function", "function": function} for function in functions]


def legacy_choice(function_call: object) -> object:
    """The deprecated `function_call` as a tool choice."""
    if isinstance(function_call, Mapping):
        return {"type": "function", "function": function_call}
    if function_call not in (None, "none", "auto"):
        refuse("function_call", "must be none, auto, or an object with a name")
    return function_call


def _tool(tool: object, path: str, ignored: list[str]) -> dict[str, Any]:
    """One tool: nested as chat completions have it, flat as responses do, or in the Messages API's own words."""
    if not isinstance(tool, Mapping):
        refuse(path, "must be an object with type and function")
    function, kind = tool.get("function"), tool.get("type")
    if function is None and "name" in tool and (kind in ("function", None) or "input_schema" in tool):
        return function_tool(tool, path, ignored=ignored)
    if kind not in ("function", None) or (kind is None and function is None):
        refuse(f"{path}.type", "must be 'function'; there are no other kinds of tools here")
    if not isinstance(function, Mapping):
        refuse(f"{path}.function", "must be an object with a name")
    name_unknown(tool, _TOOL_KEYS, path, ignored)
    made = function_tool(function, f"{path}.function", ignored=ignored)
    mark = tool.get("cache_control")
    return {**made, "cache_control": dict(mark)} if isinstance(mark, Mapping) else made


def function_tool(
    function: Mapping[str, Any], path: str, *, ignored: list[str] | None = None
) -> dict[str, Any]:
    """One wire tool from an object with name, description, parameters and strict.

    Raises:
        RpcError: BAD_PARAMS naming what is wrong below `path`.
    """
    named = [] if ignored is None else ignored
    name, description, mark = (function.get(key) for key in ("name", "description", "cache_control"))
    if not isinstance(name, str) or not name:
        refuse(f"{path}.name", "must be a string that is not empty")
    if description is not None and not isinstance(description, str):
        refuse(f"{path}.description", "must be a string")
    name_unknown(function, _FUNCTION_KEYS, path, named)
    key = "input_schema" if "input_schema" in function else "parameters"
    tool: dict[str, Any] = {"name": name, "input_schema": _schema(function.get(key), f"{path}.{key}", named)}
    if description:
        tool["description"] = description
    if function.get("strict") is True:
        tool["strict"] = True
    if isinstance(mark, Mapping):
        tool["cache_control"] = dict(mark)
    return tool


def _schema(parameters: object, path: str, ignored: list[str]) -> dict[str, Any]:
    """A tool's schema; what of it the model API does not take is the daemon's to fit."""
    if not parameters:
        return dict(_NO_PARAMETERS)
    if not isinstance(parameters, Mapping):
        refuse(path, "must be a JSON schema object")
    schema: dict[str, Any] = {"type": "object", **faithful(dict(parameters), path, ignored)}
    schema["type"] = schema["type"] or "object"
    if schema["type"] != "object" and not (isinstance(schema["type"], list) and "object" in schema["type"]):
        refuse(f"{path}.type", "must be 'object'")
    return schema


def _choice(choice: object) -> tuple[dict[str, Any] | None, list[str]]:
    """The wire's choice, and the names that it mentions."""
    if choice is None:
        return None, []
    if isinstance(choice, str) and choice in _CHOICES:
        return {"type": _CHOICES[choice]}, []
    if not isinstance(choice, Mapping):
        refuse("tool_choice", "must be none, auto, required, or an object")
    if choice.get("type", "function" if "function" in choice else None) == "function":
        name = _name(choice, "tool_choice")
        return {"type": "tool", "name": name}, [name]
    if choice.get("type") == "allowed_tools":
        return _allowed(choice.get("allowed_tools", choice))
    raise refusal("tool_choice.type", "must be 'function' or 'allowed_tools'")


def _allowed(value: object) -> tuple[dict[str, Any], list[str]]:
    path = "tool_choice.allowed_tools"
    if not isinstance(value, Mapping) or not isinstance(value.get("tools"), list) or not value["tools"]:
        refuse(path, "must be an object with mode and a list of tools")
    if value.get("mode", "auto") not in ("auto", "required"):
        refuse(f"{path}.mode", "must be auto or required")
    names = [_name(tool, f"{path}.tools[{index}]") for index, tool in enumerate(value["tools"])]
    return {"type": _CHOICES[value.get("mode", "auto")]}, names


def _name(tool: object, path: str) -> str:
    """The function's name, nested as in chat completions or flat as in responses."""
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name:
        refuse(f"{path}.function.name", "must be the name of a function")
    return name


def wire_format(
    response_format: object, path: str = "response_format", *, ignored: list[str] | None = None
) -> dict[str, Any] | None:
    """The wire's `format` for OpenAI's response format; None for text.

    The format's description becomes the schema's, which the model is told.

    Raises:
        RpcError: BAD_PARAMS naming what is wrong.
    """
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    named = [] if ignored is None else ignored
    if isinstance(response_format, Mapping):
        name_unknown(response_format, _FORMAT_KEYS.get(str(kind), ("type",)), path, named)
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    if kind != "json_schema" or not isinstance(response_format, Mapping):
        refuse(f"{path}.type", "must be text, json_object or json_schema")
    wanted = response_format.get("json_schema")
    if not isinstance(wanted, Mapping):
        refuse(f"{path}.json_schema", "must be an object with name and schema")
    schema = wanted.get("schema")
    if not isinstance(schema, Mapping):
        refuse(f"{path}.json_schema.schema", "must be a JSON schema object")
    name_unknown(wanted, _JSON_SCHEMA_KEYS, f"{path}.json_schema", named)
    found: dict[str, Any] = faithful(dict(schema), f"{path}.json_schema.schema", named)
    told = [
        text
        for text in (wanted.get("description"), found.get("description"))
        if isinstance(text, str) and text
    ]
    if told:
        found["description"] = " ".join(dict.fromkeys(told))
    return {"type": "json_schema", "schema": found}
