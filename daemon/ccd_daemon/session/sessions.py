"""All sessions of the daemon: who has which, how many there may be, and their end.

A session lives from `open` until it is closed, has been idle for too long, or the daemon stops. One whose process died
unasked is kept for a while without it, so that its clients can see what became of it; it no longer counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from ccd_daemon.claude.account import LoginWatch
from ccd_daemon.config import Settings
from ccd_daemon.session.process import SessionProcess, SessionWish
from ccd_daemon.session.session import Session
from ccd_daemon.worker.lifecycle import State
from ccd_protocol.errors import Code, RpcError

log = logging.getLogger("ccd.session")

#: Starts the process of a session in an open directory (its descriptor), or in an empty one.
Launch = Callable[[Session, int | None, SessionWish], None]
_LOOK_S = 0.02


class Sessions:
    """The sessions by tenant and id.

    Args:
        settings: the daemon's.
        launch: starts a session's process; the descriptor is then its to close.
        ended: is told when it has ended.
        alone: a block in which no other process is started that would share a session's configuration.

    Attributes:
        running: those with a process, also while it ends.
        counters: figures for the status.
    """

    def __init__(
        self,
        settings: Settings,
        launch: Launch,
        ended: Callable[[SessionProcess], None],
        alone: Callable[[], AbstractAsyncContextManager[None]] = contextlib.nullcontext,
        login_watch: LoginWatch | None = None,
    ) -> None:
        self._login_watch = login_watch
        self._account_seen = 0
        self._ended = ended
        self.counters = dict.fromkeys(("opened", "refused", "crashed", "idle"), 0)
        self._settings = settings
        self._launch = launch
        self._alone = alone
        self._known: dict[tuple[str, str], Session] = {}  # also those whose process died unasked
        self.running: set[Session] = set()
        self._loop = asyncio.get_running_loop()
        self._starting = asyncio.Semaphore(settings.spawn_concurrency)
        self._all_gone = asyncio.Event()
        self._warned = False
        self._draining = False
        self._hurried = False

    @property
    def processes(self) -> list[SessionProcess]:
        """Every process that is not dead."""
        return [session.process for session in self.running]

    def look_at_login(self) -> None:
        """A session that began with another account's login ends: two are never mixed in one conversation."""
        watch = self._login_watch
        if watch is None:
            return
        watch.look()
        if watch.account_generation != self._account_seen:
            self._account_seen = watch.account_generation
            for session in list(self.running):
                self._forget(session.tenant, session.id)
                session.close("another login is in force")

    def find(self, tenant: str, session_id: str) -> Session:
        """Returns one of the tenant's sessions.

        Raises:
            RpcError: NOT_FOUND, also for a session of another tenant.
        """
        self.look_at_login()
        session = self._known.get((tenant, session_id))
        if session is None:
            raise RpcError(Code.NOT_FOUND, "there is no such session", {"param": "session_id"})
        return session

    def all_of(self, tenant: str) -> list[Session]:
        """Returns the tenant's sessions, the oldest first."""
        return [session for (owner, _), session in self._known.items() if owner == tenant]

    async def open(
        self, tenant: str, wish: SessionWish, cwd: str, folder: Callable[[], int | None]
    ) -> Session:
        """Returns a new session, once its CLI takes messages.

        Args:
            tenant: whose it is.
            wish: what it begins with.
            cwd: the directory's name, to show.
            folder: opens the directory; called in a thread.

        Raises:
            RpcError: BUSY, there are too many; DRAINING; WORKER_SPAWN, the CLI does not start; BAD_PARAMS, it does
                not take what is wanted; what `folder` raises.
        """
        self._check_room(tenant)
        session = Session(str(uuid.uuid4()), tenant, wish, cwd, self._settings, self)
        self._known[tenant, session.id] = session
        self.running.add(session)
        try:
            async with self._starting, self._alone():
                await self._start(session, wish, folder)
            session.check_open()
        except BaseException as error:
            self._forget(tenant, session.id)
            session.close("it could not be opened")
            if self._draining and isinstance(error, RpcError):
                raise _draining() from None
            raise
        self.counters["opened"] += 1
        self._warn_of_sharing()
        return session

    def _warn_of_sharing(self) -> None:
        """Once: what the tools of one tenant's session may do to another's."""
        if not self._warned and len({session.tenant for session in self.running}) > 1:
            self._warned = True
            log.warning(
                "sessions of several tenants run as the same user, and can read each other's files and processes"
            )

    async def _start(self, session: Session, wish: SessionWish, folder: Callable[[], int | None]) -> None:
        opening = self._loop.run_in_executor(None, folder)
        try:
            descriptor = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            raise
        if session.closed is None:
            self._launch(session, descriptor, wish)
            await session.ready()
        else:
            _close_opened(opening)

    def _check_room(self, tenant: str) -> None:
        limits = self._settings.sessions
        own = sum(session.tenant == tenant for session in self.running)
        if self._draining:
            raise _draining()
        if own < limits.max_per_tenant and len(self.running) < limits.max_count:
            return
        self.counters["refused"] += 1
        few = "sessions.max_per_tenant" if own >= limits.max_per_tenant else "sessions.max_count"
        text = f"there are as many sessions as {few} allows; close one first"
        raise RpcError(Code.BUSY, text, {"retry_after_ms": 10_000})

    def close(self, tenant: str, session_id: str) -> None:
        """End a session; from now on nobody finds it.

        Raises:
            RpcError: NOT_FOUND.
        """
        session = self.find(tenant, session_id)
        self._forget(tenant, session_id)
        session.close("closed")

    def _forget(self, tenant: str, session_id: str) -> None:
        self._known.pop((tenant, session_id), None)

    def ended(self, session: Session) -> None:
        """The process of a session has ended: one that was not told to is kept for a while, without it."""
        self.running.discard(session)
        if self._draining and not self.running:
            self._all_gone.set()
        self._ended(session.process)
        if session.closed is not None:
            self.counters["idle"] += session.closed == "idle"
            self._forget(session.tenant, session.id)
            return
        self.counters["crashed"] += 1
        self._loop.call_later(self._settings.sessions.idle_s, self._forget, session.tenant, session.id)
        ended = [one for one in self._known.values() if one.ended is not None]
        if len(ended) > self._settings.sessions.max_count:
            self._forget(ended[0].tenant, ended[0].id)

    # --- stopping ---

    def hurry(self) -> None:
        """Stop waiting for running turns."""
        self._hurried = True

    async def stop(self, grace_s: float) -> None:
        """Open no more, let running turns end within `grace_s`, then end every process and wait for it."""
        self._draining = True
        deadline = self._loop.time() + grace_s
        while self.running:
            late = self._hurried or self._loop.time() >= deadline
            for session in list(self.running):
                if late or session.process.state is not State.BUSY:
                    session.close("ccd is shutting down")
            if late:
                break
            await asyncio.sleep(_LOOK_S)
        if self.running:
            limits = self._settings.deadlines
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.drain_grace_s + 3 * limits.kill_grace_s + 5):
                    await self._all_gone.wait()


def _close_opened(opening: asyncio.Future[int | None]) -> None:
    """A directory that was opened for a session that is no longer wanted."""
    if opening.exception() is None and (descriptor := opening.result()) is not None:
        os.close(descriptor)


def _draining() -> RpcError:
    return RpcError(Code.DRAINING, "ccd is shutting down", {"retry_after_ms": 2000})
