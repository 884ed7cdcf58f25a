"""An agent's step: a session with tools, told one thing, to the end of its turn.

Its tools may have changed the world, so it is never repeated: what ends without a result ends interrupted.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from ccd_client import AsyncClient
from ccd_protocol.errors import Code, RpcError


async def run_agent(
    client: AsyncClient,
    agent: dict[str, Any],
    prompt: str,
    tenant: str,
    on_text: Callable[[str], None],
) -> dict[str, Any]:
    """Open a session, say the prompt, and wait for the result; the session is closed in any case.

    Returns what `ask` does, as far as a session tells it.

    Raises:
        RpcError: the session failed, or its turn did.
    """
    info = await client.call("session.open", {**agent, "tenant": tenant})
    which = {"session_id": info["session_id"], "tenant": tenant}
    try:
        async with client.call_stream("session.attach", which) as lines:
            await client.call("session.send", {**which, "content": prompt})
            tail = b""
            async for payload in lines:
                *whole, tail = (tail + payload).split(b"\n")
                for line in whole:
                    if line and (result := _result(json.loads(line), on_text)) is not None:
                        return result
        raise RpcError(Code.WORKER_CRASHED, "the agent's session ended before its turn did")
    finally:
        await _close(client, which)


async def _close(client: AsyncClient, which: dict[str, Any]) -> None:
    with contextlib.suppress(RpcError):  # it is gone, or the daemon is; an idle session ends by itself
        await client.call("session.close", which, timeout_s=5.0)


def _result(line: dict[str, Any], on_text: Callable[[str], None]) -> dict[str, Any] | None:
    kind = line.get("type")
    if kind == "assistant" and not line.get("parent_tool_use_id"):
        for block in line.get("message", {}).get("content") or ():
            if isinstance(block, dict) and block.get("type") == "text":
                on_text(block["text"])
    if kind != "result":
        return None
    if line.get("is_error") or line.get("subtype") != "success":
        said = line.get("result") or line.get("subtype") or "the agent's turn failed"
        raise RpcError(Code.UPSTREAM_ERROR, str(said)[:2000], {"output_started": True})
    text = str(line.get("result") or "")
    return {
        **{"text": text, "content": [{"type": "text", "text": text}], "usage": line.get("usage") or {}},
        **{"stop_reason": "end_turn", "stop_sequence": None, "model": _model(line)},
        **{"cost_usd": float(line.get("total_cost_usd") or 0), "ignored": []},
        **{"duration_ms": int(line.get("duration_ms") or 0), "num_turns": line.get("num_turns")},
    }


def _model(line: dict[str, Any]) -> str:
    used = line.get("modelUsage")
    return next(iter(used), "") if isinstance(used, dict) else ""
