"""The floor of the relay: a bare uvloop process that passes what it reads from pipes on to a socket.

Run as a script with the number of pipes; prints its socket's path. It opens the pipes itself; the benchmark
reaches their write ends through `/proc/PID/fd`. No limits, no credit, no calls: a header before each read,
and that is all.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import uvloop


class _Pipe(asyncio.Protocol):
    def __init__(self, prefix: bytes, sinks: list[asyncio.Transport]) -> None:
        self._prefix = prefix
        self._sinks = sinks

    def data_received(self, data: bytes) -> None:
        self._sinks[0].write(self._prefix + len(data).to_bytes(2, "big") + data)


class _Reader(asyncio.Protocol):
    def __init__(self, sinks: list[asyncio.Transport]) -> None:
        self._sinks = sinks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.set_write_buffer_limits(high=1 << 30)  # type: ignore[attr-defined]
        self._sinks[:] = [transport]  # type: ignore[list-item]


async def _serve(path: str, pipes: int) -> None:
    loop = asyncio.get_running_loop()
    sinks: list[asyncio.Transport] = []
    writers = []
    for number in range(pipes):
        read, write = os.pipe()
        writers.append(write)
        prefix = b"\x93\x02\xcd" + (number + 256).to_bytes(2, "big") + b"\xc5"
        await loop.connect_read_pipe(lambda prefix=prefix: _Pipe(prefix, sinks), os.fdopen(read, "rb", 0))
    server = await loop.create_unix_server(lambda: _Reader(sinks), path)
    print(json.dumps(writers), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2])))
