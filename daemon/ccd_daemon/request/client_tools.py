"""Client tools as the CLI knows them: the tools of an MCP server whose host is the daemon. Pure.

The manifest given with `initialize` spares the server's handshake. Every tool says that it only reads, because the CLI
then makes parallel calls at once instead of one after another's result; it has no other use for that. Tools keep the
client's names: the CLI is started with `CLAUDE_AGENT_SDK_MCP_NO_PREFIX`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ccd_daemon.claude.argv import CLIENT_TOOLS_SERVER
from ccd_daemon.request.body import bad
from ccd_daemon.request.history import Block, blocks_of

SERVER = CLIENT_TOOLS_SERVER
PROTOCOL = "2025-11-25"
#: A tool of this name would not be shown to the model.
_KEPT_BY_CLI = frozenset({"ToolSearch"})
_CARRIED = ("name", "description", "input_schema", "type", "cache_control")
_MAX_DESCRIPTION_CHARS = 2048  # a longer one may be cut, depending on the CLI's version
_REWRITTEN = ("anyOf", "oneOf", "allOf")  # at the top of a schema
#: From here on the CLI puts a result into a file instead of the request.
_MAX_RESULT_CHARS = 40_000
_MAX_ERROR_CHARS = 8_000
_MAX_IMAGES = 5

Result = dict[str, Any]


def published(tools: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the fields of `initialize` that publish tools; nothing for none.

    Raises:
        RpcError: BAD_PARAMS, for a tool that cannot be published.
    """
    listed = [_listed(index, tool) for index, tool in enumerate(tools)]
    if not listed:
        return {}
    manifest = {"initializeResult": _greeting(PROTOCOL), "toolsListResult": {"tools": listed}}
    return {"sdkMcpServers": [SERVER], "sdkMcpServerManifests": {SERVER: manifest}}


def _greeting(protocol: object) -> dict[str, Any]:
    info = {"name": SERVER, "version": "1"}
    return {"protocolVersion": protocol, "capabilities": {"tools": {}}, "serverInfo": info}


def _listed(index: int, tool: Mapping[str, Any]) -> dict[str, Any]:
    where = f"tools[{index}]"
    if tool.get("type", "custom") != "custom":
        raise bad(f"{where}.type", "the API's own tools cannot be had with this login (mode replay)")
    if tool["name"] in _KEPT_BY_CLI:
        raise bad(f"{where}.name", f"with this login (mode replay) a tool cannot be named {tool['name']!r}")
    schema = tool["input_schema"]
    if schema.get("type", "object") != "object":
        raise bad(f"{where}.input_schema", "the schema of a tool's input must be that of an object")
    return {
        "name": tool["name"],
        "description": tool.get("description") or "",
        "inputSchema": {"type": "object", **schema},
        "annotations": {"readOnlyHint": True},
    }


def lost(tools: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns which of the tools' keys have no knob, as names for `ignored`."""
    found: dict[str, None] = {}
    for tool in tools:
        found |= {f"tools.{key}": None for key in tool if key not in _CARRIED}
        if len(tool.get("description") or "") > _MAX_DESCRIPTION_CHARS:
            found["tools.description"] = None
        if any(key in (tool.get("input_schema") or {}) for key in _REWRITTEN):
            found["tools.input_schema"] = None
    return list(found)


def result(block: Block) -> Result | None:
    """Returns a `tool_result` block as an MCP server answers; None for one that the CLI would not pass on as it is."""
    parts = blocks_of(block.get("content") or [])
    texts = [str(part.get("text", "")) for part in parts if part["type"] == "text"]
    failed = bool(block.get("is_error"))
    if sum(map(len, texts)) > (_MAX_ERROR_CHARS if failed else _MAX_RESULT_CHARS) or not all(texts):
        return None
    if not parts or len(parts) - len(texts) > _MAX_IMAGES or (failed and len(parts) != len(texts)):
        return None
    content = [_part(part) for part in parts]
    if None in content or (failed and len(parts) != 1):
        return None
    return {"content": content, "isError": True} if failed else {"content": content}


def _part(part: Block) -> dict[str, Any] | None:
    if part["type"] == "text":
        return {"type": "text", "text": str(part["text"])}
    source = part.get("source")
    if part["type"] != "image" or not isinstance(source, dict) or source.get("type") != "base64":
        return None
    return {"type": "image", "data": source.get("data"), "mimeType": source.get("media_type")}


def handshake(message: Mapping[str, Any], manifest: Mapping[str, Any]) -> Result:
    """The answer to whatever a CLI asks of the server besides calls; one that takes the manifest does not ask."""
    answer: Result = {"jsonrpc": "2.0", "id": message.get("id", 0)}
    method, params = message.get("method"), message.get("params")
    if method == "initialize":
        wanted = params.get("protocolVersion") if isinstance(params, dict) else None
        return answer | {"result": _greeting(wanted or PROTOCOL)}
    if method == "tools/list":
        return answer | {"result": manifest.get("toolsListResult", {"tools": []})}
    if method == "ping" or str(method).startswith("notifications/"):
        return answer | {"result": {}}
    text = f"the server of client tools has no method {str(method)[:80]!r}"
    return answer | {"error": {"code": -32601, "message": text}}
