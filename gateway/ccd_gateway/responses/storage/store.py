"""The table of stored responses, used from an event loop: one thread, opened at the first use."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from ccd_gateway.responses.storage.table import Bounds, Obituary, ResponseTable
from ccd_protocol.errors import Code, RpcError
from ccd_settings.sqlite_file import OneThread

_P = ParamSpec("_P")
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class ResponseStore:
    """One per gateway process. Nothing is opened before the first use, so it can be built before a fork."""

    def __init__(self, path: Path, bounds: Bounds, obituary: Obituary) -> None:
        self.path = path
        self._bounds = bounds
        self._obituary = obituary
        self._file = OneThread("ccd-responses", self._open, ResponseTable.close)

    async def do(
        self, work: Callable[Concatenate[ResponseTable, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Run one of the table's methods in the thread; it is finished even when the caller is cancelled.

        Raises:
            RpcError: STORAGE, when the file cannot be used.
        """
        try:
            return await self._file.do(work, *args, **kwargs)
        except (OSError, sqlite3.Error) as error:
            _log.error("the store of responses, %s, cannot be used: %s", self.path, error)
            raise RpcError(
                Code.STORAGE,
                "The store of responses cannot be used; the gateway's log says why. Send 'store': false to do without"
                " it.",
            ) from error

    def _open(self) -> ResponseTable:
        return ResponseTable(self.path, self._bounds, self._obituary)

    async def close(self) -> None:
        """Wait for what is being written, and close the file."""
        await asyncio.to_thread(self._file.close)
