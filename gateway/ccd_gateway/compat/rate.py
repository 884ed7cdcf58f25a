"""A limit on requests per minute that all worker processes of a gateway share.

The buckets lie in anonymous memory that is made before the workers are forked. A lock of the kernel's guards them,
which a process that is killed gives up.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import time
from collections.abc import Callable

from ccd_gateway.access.limits import Bucket, full, refilled, wait_s
from ccd_gateway.errors import ApiError

_SLOT = struct.Struct("<16sdd")  # whose, level, at
_SLOTS = 4096
_NEIGHBOURS = 8
_EMPTY = bytes(16)


class SharedLimit:
    """One bucket per caller. With more callers than fit, the one who came longest ago is forgotten.

    Args:
        per_minute: requests of one caller.
        clock: seconds, the same in every process.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._fd = os.memfd_create("ccd-rate", os.MFD_CLOEXEC)
        os.ftruncate(self._fd, _SLOT.size * _SLOTS)
        self._memory = mmap.mmap(self._fd, _SLOT.size * _SLOTS)

    def take(self, who: str) -> float:
        """Take one request: 0, or the seconds until there is one again."""
        name = hashlib.blake2b(who.encode(), digest_size=16).digest()
        now_s = self._clock()
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            offset, bucket = self._find(name, now_s)
            wait = wait_s(bucket, 1, self._per_minute)
            level = bucket.level if wait else bucket.level - 1
            _SLOT.pack_into(self._memory, offset, name, level, now_s)
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)
        return wait

    def check(self, who: str) -> None:
        """Take one request.

        Raises:
            ApiError: 429, there is none left.
        """
        left_s = self.take(who)
        if left_s:
            headers = [("retry-after", str(int(left_s) + 1))]
            text = f"More than {self._per_minute} requests in a minute. Try again in {int(left_s) + 1} s."
            raise ApiError(429, text, code="rate_limit_exceeded", headers=headers)

    def _find(self, name: bytes, now_s: float) -> tuple[int, Bucket]:
        first = int.from_bytes(name[:4], "little")
        oldest_at, oldest = now_s, 0
        for step in range(_NEIGHBOURS):
            offset = (first + step) % _SLOTS * _SLOT.size
            whose, level, at_s = _SLOT.unpack_from(self._memory, offset)
            if whose == name:
                return offset, refilled(Bucket(level, at_s), self._per_minute, now_s)
            if whose == _EMPTY:
                return offset, full(self._per_minute, now_s)
            if step == 0 or at_s < oldest_at:
                oldest_at, oldest = at_s, offset
        return oldest, full(self._per_minute, now_s)
