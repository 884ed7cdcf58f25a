"""The floor of an RPC: a bare uvloop server that decodes and answers msgpack frames and does nothing else.

Run as a script with the path of the socket; prints a line when it listens.
"""

from __future__ import annotations

import asyncio
import sys

import msgpack
import uvloop


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = transport.write  # type: ignore[attr-defined]
        self._unpacker = msgpack.Unpacker()
        self._pack = msgpack.Packer().pack
        self._result = {"pid": 12345, "version": "0.1.0"}

    def data_received(self, data: bytes) -> None:
        self._unpacker.feed(data)
        for frame in self._unpacker:
            self._write(self._pack((3, frame[1], self._result)))


async def _serve(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(_Echo, path)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
