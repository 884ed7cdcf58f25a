"""The one writer of a process: what many want to write at the same moment becomes one transaction.

A commit costs a sync of the disk, so a batch of a thousand lines would otherwise wait for two thousand. A piece of
work is a function of a connection: it looks, decides, and writes last, so that its own refusal (an exception that is
not the database's) leaves nothing behind. When the database fails, each piece is tried once more by itself, so one
that cannot be written does not take the others with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ccd_tasks.store.database import is_damage, storage_error

T = TypeVar("T")
Work = Callable[[sa.Connection], T]
log = logging.getLogger("ccd.tasks")

_MOST_AT_ONCE = 256
_PAUSES_S = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)


class Journal:
    """Reads and writes of one process.

    Args:
        engine: the database.
        on_damage: called once when the file turns out to be broken.
    """

    def __init__(self, engine: sa.Engine, on_damage: Callable[[], object] | None = None) -> None:
        self.engine = engine
        self._on_damage = on_damage
        self._work: queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ccd-journal", daemon=True)
        self._thread.start()

    async def write(self, work: Work[T]) -> T:
        """Do one piece of work in a transaction; returns when it is on the disk.

        Raises:
            RpcError: STORAGE, the database cannot be written; or what `work` raises.
        """
        future: Future[T] = Future()
        self._work.put((work, future))
        try:
            return await asyncio.wrap_future(future)
        except SQLAlchemyError as error:
            raise storage_error(error) from error

    async def insist(self, work: Work[T]) -> T:
        """`write`, again and again while the database fails: for what was accepted and must not be lost."""
        attempt = 0
        while True:
            future: Future[T] = Future()
            self._work.put((work, future))
            try:
                return await asyncio.wrap_future(future)
            except SQLAlchemyError as error:
                pause_s = _PAUSES_S[min(attempt, len(_PAUSES_S) - 1)]
                if attempt == 0:
                    log.error("%s; trying again until it works", storage_error(error).message)
                attempt += 1
            await asyncio.sleep(pause_s)

    async def read(self, work: Work[T]) -> T:
        """Look, beside the writer.

        Raises:
            RpcError: STORAGE; or what `work` raises.
        """
        try:
            return await asyncio.to_thread(self._read, work)
        except SQLAlchemyError as error:
            self._note(error)
            raise storage_error(error) from error

    def close(self) -> None:
        """Write what is still to be written, and close the database."""
        self._work.put(None)
        self._thread.join()
        self.engine.dispose()

    def _read(self, work: Work[T]) -> T:
        with self.engine.connect() as connection:
            return work(connection)

    def _run(self) -> None:
        while True:
            first = self._work.get()
            if first is None:
                return
            pieces, ending = [first], False
            with contextlib.suppress(queue.Empty):
                while len(pieces) < _MOST_AT_ONCE:
                    more = self._work.get_nowait()
                    if more is None:
                        ending = True
                        break
                    pieces.append(more)
            self._together(pieces)
            if ending:
                return

    def _together(self, pieces: list[tuple[Work[Any], Future[Any]]]) -> None:
        try:
            outcomes = self._transaction([work for work, _ in pieces])
        except SQLAlchemyError as error:
            self._note(error)
            if len(pieces) == 1:
                _settle(pieces[0][1], None, error)
                return
            for piece in pieces:
                self._together([piece])
            return
        for (_, future), (value, refusal) in zip(pieces, outcomes, strict=True):
            _settle(future, value, refusal)

    def _transaction(self, works: list[Work[Any]]) -> list[tuple[Any, Exception | None]]:
        outcomes: list[tuple[Any, Exception | None]] = []
        with self.engine.begin() as connection:
            for work in works:
                try:
                    outcomes.append((work(connection), None))
                except SQLAlchemyError:
                    raise
                except Exception as refusal:  # the caller's, who gets it
                    outcomes.append((None, refusal))
        return outcomes

    def _note(self, error: SQLAlchemyError) -> None:
        if isinstance(error, DBAPIError) and is_damage(error) and self._on_damage is not None:
            tell, self._on_damage = self._on_damage, None
            tell()


def _settle(future: Future[Any], value: Any, error: Exception | None) -> None:
    """Tell whoever waits; one that was cancelled meanwhile does not."""
    with contextlib.suppress(InvalidStateError):
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
