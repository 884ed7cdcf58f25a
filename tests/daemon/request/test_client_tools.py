from __future__ import annotations

from typing import Any

import pytest

from ccd_daemon.request import client_tools
from ccd_protocol.errors import RpcError

TOOL = {"name": "get", "description": "d", "input_schema": {"type": "object", "properties": {"x": {}}}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


def test_tools_are_published_under_their_own_names_with_their_own_schemas() -> None:
    fields = client_tools.published([TOOL, {"name": "bare", "input_schema": {}}])
    assert fields["sdkMcpServers"] == [client_tools.SERVER]
    manifest = fields["sdkMcpServerManifests"][client_tools.SERVER]
    get, bare = manifest["toolsListResult"]["tools"]
    assert (get["name"], get["description"], get["inputSchema"]) == ("get", "d", TOOL["input_schema"])
    assert get["annotations"] == {"readOnlyHint": True}  # else parallel calls come one after another's result
    assert bare["inputSchema"] == {"type": "object"}
    assert client_tools.published([]) == {}


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "web_search_20250305", "name": "web_search"}, "tools[0].type"),
        ({**TOOL, "name": "ToolSearch"}, "tools[0].name"),
        ({**TOOL, "input_schema": {"type": "string"}}, "tools[0].input_schema"),
    ],
)
def test_what_cannot_be_published_is_refused(tool: Any, param: str) -> None:
    with pytest.raises(RpcError) as caught:
        client_tools.published([tool])
    assert caught.value.data["param"] == param


def test_what_of_a_tool_is_lost_is_named() -> None:
    assert client_tools.lost([TOOL]) == []
    long = {**TOOL, "description": "d" * 5000, "strict": True}
    union = {**TOOL, "input_schema": {"anyOf": [{}]}, "input_examples": []}
    names = ["tools.strict", "tools.description", "tools.input_examples", "tools.input_schema"]
    assert client_tools.lost([long, union]) == names


@pytest.mark.parametrize(
    ("content", "failed", "passed_on"),
    [
        ("20", False, [{"type": "text", "text": "20"}]),
        ("20", True, [{"type": "text", "text": "20"}]),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], False, "as it is"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], True, None),  # they would be joined
        ([IMAGE], False, [{"type": "image", "data": "iVBORw0KGgo=", "mimeType": "image/png"}]),
        ([IMAGE], True, None),
        ([IMAGE] * 6, False, None),
        ([{"type": "image", "source": {"type": "url", "url": "https://x"}}], False, None),
        ([{"type": "document", "source": {}}], False, None),
        ("", False, None),  # the CLI would say that there was no output
        ("x" * 40_001, False, None),  # it would be put into a file
        ("x" * 8_001, True, None),
        (None, False, None),
    ],
)
def test_a_result_is_passed_on_as_it_is_or_not_at_all(content: Any, failed: bool, passed_on: Any) -> None:
    block = {"type": "tool_result", "tool_use_id": "c", "content": content, "is_error": failed}
    found = client_tools.result(block)
    if passed_on is None:
        assert found is None
    else:
        expected = content if passed_on == "as it is" else passed_on
        assert found == {"content": expected} | ({"isError": True} if failed else {})


def test_a_cli_that_does_not_take_the_manifest_can_ask() -> None:
    manifest = client_tools.published([TOOL])["sdkMcpServerManifests"][client_tools.SERVER]
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2024-11-05"}}
    assert client_tools.handshake(hello, manifest)["result"]["protocolVersion"] == "2024-11-05"
    listed = client_tools.handshake({"id": 1, "method": "tools/list"}, manifest)
    assert [tool["name"] for tool in listed["result"]["tools"]] == ["get"]
    assert client_tools.handshake({"method": "notifications/initialized"}, manifest)["result"] == {}
    assert client_tools.handshake({"id": 2, "method": "resources/list"}, manifest)["error"]["code"] == -32601
