"""One question to the local daemon, and the patience with it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

from ccd_client import AsyncClient
from ccd_client.events import Decoder, TextDelta
from ccd_protocol.errors import Code, RpcError
from ccd_tasks.turn.purse import Receipt

#: Nothing was asked when one of these came: it is waited for, as long as the step may take.
NOT_BEGUN = frozenset({Code.BUSY, Code.DRAINING})
_PING_S = 2.0
_MOST_PAUSE_S = 15.0


async def ask(
    client: AsyncClient,
    params: Mapping[str, Any],
    receipt: Receipt | None,
    on_text: Callable[[str], None] | None,
) -> dict[str, Any]:
    """One turn; returns what `chat.complete` does (`ChatAnswer`).

    Args:
        client: of the daemon.
        params: of the chat.
        receipt: is told what passes.
        on_text: called with each piece of text; without it the answer comes whole, which is cheaper.

    Raises:
        RpcError: the turn failed.
    """
    try:
        if on_text is None:
            answer: dict[str, Any] = await client.call("chat.complete", params)
        else:
            answer = await _streamed(client, params, receipt, on_text)
    except BaseException as error:
        if receipt is not None:
            receipt.cut(asked=not isinstance(error, RpcError))
        raise
    if receipt is not None:
        await receipt.end(answer)
    return answer


async def _streamed(
    client: AsyncClient, params: Mapping[str, Any], receipt: Receipt | None, on_text: Callable[[str], None]
) -> dict[str, Any]:
    decoder = Decoder()
    async with client.call_stream("chat.stream", params) as stream:
        async for payload in stream:
            if receipt is not None:
                receipt.saw(payload)
            for event in decoder.feed(payload):
                if isinstance(event, TextDelta):
                    on_text(event.text)
        answer = decoder.answer(stream.result)
        return {**stream.result, "content": answer.content, "text": answer.text}


async def until_there(client: AsyncClient) -> None:
    """Wait until the daemon takes calls."""
    attempt = 0
    while True:
        try:
            await client.call("daemon.ping", timeout_s=_PING_S)
            return
        except RpcError:
            await asyncio.sleep(pause_s(attempt, None))
            attempt += 1


def pause_s(attempt: int, told_ms: int | None) -> float:
    """How long to wait before another attempt: as told, else longer each time."""
    if told_ms is not None:
        return max(told_ms, 0) / 1000
    return float(min(0.25 * 2**attempt, _MOST_PAUSE_S)) * random.uniform(0.75, 1.25)
