"""The record of every request received, for tests to read. Bounded in number and bytes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

MAX_RECORDS = 10_000
MAX_BYTES = 256 * 1024 * 1024
_SECRET = frozenset(("x-api-key", "authorization", "proxy-authorization", "cookie"))


class Record(msgspec.Struct):
    """One request.

    `outcome` is open, complete (answered to the end, with a success or an error), cut (as the script said) or
    disconnected (the client went away before the end).
    """

    seq: int
    method: str
    path: str  # with its query
    headers: dict[str, str]  # names in lower case; secrets are replaced
    arrived_at: float  # seconds since the epoch
    body: msgspec.Raw = msgspec.Raw(b"null")  # JSON as it came; a JSON string where it was no JSON
    status: int | None = None
    outcome: str = "open"
    finished_at: float | None = None

    def finish(self, outcome: str) -> bool:
        """Set the outcome if it is still open; the result says whether it was."""
        if self.outcome != "open":
            return False
        self.outcome = outcome
        self.finished_at = time.time()
        return True


class RequestRecord:
    """The last requests, oldest first."""

    def __init__(self) -> None:
        self._records: deque[Record] = deque()
        self._bytes = 0
        self._seq = 0
        self._changed = asyncio.Event()

    def open(self, method: str, path: str, headers: Mapping[str, str]) -> Record:
        """Begin the record of a request."""
        self._seq += 1
        kept = {name: "[removed]" if name in _SECRET else value for name, value in headers.items()}
        record = Record(self._seq, method, path, kept, time.time())
        self._records.append(record)
        self._bytes += len(record.body)
        self._trim()
        self._tell()
        return record

    def body(self, record: Record, raw: bytes, *, valid: bool) -> None:
        """Keep a request's body; what is no JSON is kept as a string."""
        text = raw if valid else msgspec.json.encode(raw.decode("utf-8", "replace"))
        if not self._records or record.seq < self._records[0].seq:
            return  # forgotten while its body was on the way
        self._bytes += len(text) - len(record.body)
        record.body = msgspec.Raw(text)
        self._trim()

    def finish(self, record: Record, outcome: str) -> None:
        """Set a record's outcome, once."""
        if record.finish(outcome):
            self._tell()

    def clear(self) -> None:
        """Forget all records; numbering goes on."""
        self._records.clear()
        self._bytes = 0

    def find(self, *, path: str = "", after: int = 0, finished: bool = False) -> list[Record]:
        """Records whose path begins so, with a later number, and no longer open if `finished`."""
        return [
            record
            for record in self._records
            if record.seq > after
            and record.path.startswith(path)
            and (record.outcome != "open" or not finished)
        ]

    async def wait(self, count: int, timeout_s: float, **filters: Any) -> list[Record]:
        """Like `find`, once there are `count` of them.

        Raises:
            TimeoutError: there were not within the time.
        """
        async with asyncio.timeout(timeout_s):
            while len(found := self.find(**filters)) < count:
                await self._changed.wait()
        return found

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _trim(self) -> None:
        while len(self._records) > MAX_RECORDS or (self._bytes > MAX_BYTES and len(self._records) > 1):
            self._bytes -= len(self._records.popleft().body)


def listing(records: Iterable[Record]) -> bytes:
    """Records as the JSON array that tests read."""
    return msgspec.json.encode(list(records))
