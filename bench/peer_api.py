"""A Messages API for several servers side by side: answers at once, whole or streamed, or at a pace.

Run as a module; prints its URL. A request whose text has `at a pace` in it gets fifty deltas, one every 20 ms; one that
ends with `call a tool` gets a call of the first tool named `…get_time`. It looks at nothing else, so that its own
time is as small as can be.
"""

from __future__ import annotations

import asyncio
import json
import re
from itertools import count

import uvloop

from bench.instant_api import EVENTS, MESSAGE, OTHER, STREAM, body_bytes, framed, response

DELTAS = 50
PACE_S = 0.02
TEXT = "Hello there."  # the answer without a pace
_STREAMED = re.compile(rb'"stream":\s*true')
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_WHOLE = response(
    b"application/json",
    json.dumps({**MESSAGE, "content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn"}).encode(),
)
_TOOL = re.compile(rb'"name":\s*"([A-Za-z0-9_-]*get_time)"')
_calls = count(1)
_BEGIN, _DELTA, _END = framed(EVENTS[:2]), framed(EVENTS[2:3]), framed(EVENTS[4:])


CALL = b"call a tool"


def _calling(tool: str) -> bytes:
    """A streamed call of a tool."""
    block = {"type": "tool_use", "id": f"toolu_{next(_calls)}", "name": tool, "input": {}}
    delta = {"type": "input_json_delta", "partial_json": "{}"}
    done = {"stop_reason": "tool_use", "stop_sequence": None}
    events: list[dict[str, object]] = [
        EVENTS[0],
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": done, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    return response(b"text/event-stream", framed(events))


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._data = b""
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if end and self._transport is not None and len(rest) >= body_bytes(head):
            self._data = b""  # its clients never send a second request before the answer
            self._answer(self._transport, head, rest)

    def _answer(self, transport: asyncio.Transport, head: bytes, body: bytes) -> None:
        if not head.startswith(b"POST /v1/messages"):
            transport.write(OTHER)
        elif not _STREAMED.search(body):
            transport.write(_WHOLE)
        elif body.rfind(CALL) > body.rfind(b'"tool_result"') and (tool := _TOOL.search(body)):
            transport.write(_calling(tool[1].decode()))
        elif b"at a pace" in body:
            self._task = asyncio.ensure_future(self._paced(transport))
        else:
            transport.write(STREAM)

    async def _paced(self, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        transport.write(_HEAD + _chunk(_BEGIN))
        for number in range(DELTAS):
            await asyncio.sleep(max(0.0, started_s + number * PACE_S - loop.time()))
            transport.write(_chunk(_DELTA))
        transport.write(_chunk(_END) + b"0\r\n\r\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
