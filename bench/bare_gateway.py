"""The floor of a streaming gateway: bare uvloop that passes each payload of the daemon on as one HTTP chunk.

Run with the daemon's socket; prints its URL. It speaks the daemon's protocol with the library's peer and just enough
HTTP: no checks, no translation, no limits, no framework. What every gateway of this kind has to do is a read from one
socket, the framing, and a write to another.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop

from ccd_protocol.peer import Ended, Item, Peer

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_CALLS_PER_CONNECTION = 240


class _Daemon(asyncio.Protocol):
    """One connection to the daemon, and the HTTP response that each of its calls is for."""

    def __init__(self) -> None:
        self.peer = Peer("connecting", "bench")
        self.responses: dict[int, asyncio.Transport] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.flush()

    def flush(self) -> None:
        out = self.peer.outgoing()
        if out:
            self._transport.write(b"".join(out))

    def call(self, body: bytes, response: asyncio.Transport) -> None:
        messages = json.loads(body)["messages"]
        call_id = self.peer.call("chat.stream", {"messages": messages}, window=262_144)
        self.responses[call_id] = response
        response.write(_HEAD)
        self.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.peer.receive(data):
            if type(event) is Item:
                payload = event.payload
                self.responses[event.id].write(b"%x\r\ndata: %b\n\r\n" % (len(payload) + 7, payload))
                self.peer.consumed(event.id, len(payload))
            elif type(event) is Ended:
                self.responses.pop(event.id).write(b"0\r\n\r\n")
        self.flush()


class _Http(asyncio.Protocol):
    def __init__(self, lanes: list[_Daemon]) -> None:
        self._lanes = lanes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        _, _, body = data.partition(b"\r\n\r\n")
        lane = next(lane for lane in self._lanes if len(lane.responses) < _CALLS_PER_CONNECTION)
        lane.call(body, self._transport)


async def _serve(path: str) -> None:
    loop = asyncio.get_running_loop()
    lanes = [_Daemon() for _ in range(6)]
    for lane in lanes:
        await loop.create_unix_connection(lambda lane=lane: lane, path)
    server = await loop.create_server(lambda: _Http(lanes), "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
