"""One session: a CLI process that belongs to it for life, the clients that follow it, and what waits for answers.

What the CLI says goes to every follower as `reader` shows it. The process and its life are `process`'s; who may open a
session, and how many there may be, is `sessions`'s.

Not here: turns in the sense of `worker`, which have one caller each. A session speaks to whoever is attached, so
nothing of it may wait for one of them: a follower that does not read is cut off (DECISIONS, "Who is slow").
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from ccd_daemon.claude import control
from ccd_daemon.config import Settings
from ccd_daemon.session.follower import Follower, Followers
from ccd_daemon.session.permissions import Permissions
from ccd_daemon.session.process import SessionProcess, SessionWish
from ccd_daemon.session.reader import SessionReader
from ccd_daemon.session.requests import agreed
from ccd_daemon.session.view import SessionHistory, View
from ccd_daemon.worker.lifecycle import ENDING, RUNNING, STARTING, Event, State
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import SessionInfo

log = logging.getLogger("ccd.session")

_REPLY_S = 30.0  # for a control request; the CLI answers within milliseconds, also in the middle of a turn
_MAX_WAITING = 64  # messages that wait for the CLI to start, or for its turn to end
_MAX_UNWRITTEN_BYTES = 64 * 1024 * 1024


class SessionListener(Protocol):
    """Who owns the session: the registry."""

    def ended(self, session: Session) -> None:
        """Its process has ended."""


class Session:
    """A CLI process, who listens to it, and what it wants to know.

    Attributes:
        closed: why it was told to end; None while nobody has.
        ended: how its process ended; None while it runs.
    """

    def __init__(
        self,
        session_id: str,
        tenant: str,
        wish: SessionWish,
        cwd: str,
        settings: Settings,
        listener: SessionListener,
    ) -> None:
        self.id = session_id
        self.tenant = tenant
        self.closed: str | None = None
        self.ended: RpcError | None = None
        model = wish.model or ""
        self._models = wish.models
        self.view = View(session_id, model=model, cwd=cwd, permission_mode=wish.permission_mode)
        self.permissions = Permissions(
            self._deny_late, lambda: self._rearm_if(State.BUSY), settings.sessions.permission_s
        )
        self._followers = Followers(self._hold_back)
        self._limits = settings.sessions
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._waiting: list[bytes] = []  # messages from before it was ready
        self._unanswered = 0  # messages since the last result
        self.process: SessionProcess = SessionProcess(session_id, settings, self)
        history = SessionHistory(settings.sessions.history_bytes)
        self._reader = SessionReader(self, self.process, self.view, history, self.permissions)

    async def ready(self) -> None:
        """Wait until it takes messages.

        Raises:
            RpcError: it has ended before; WORKER_SPAWN when it could not even start.
        """
        await asyncio.shield(self._ready)

    def info(self) -> SessionInfo:
        """Returns what clients are told of it."""
        return SessionInfo(
            session_id=self.id,
            state=self.view.state,
            connected_clients=len(self._followers),
            cli_connected=self.closed is None and self.process.state in RUNNING,
            pending_permissions=len(self.permissions),
        )

    def close(self, why: str) -> None:
        """End it, and tell whoever follows it why; more than once does no harm."""
        if self.closed is None:
            self.closed = why
            self._followers.finish(why)
            self.process.stop()

    # --- clients ---

    def join(self, follower: Follower) -> None:
        """A client attaches: it is shown the state, the past, and what waits for an answer."""
        self._followers.add(follower)
        self._rearm_if(State.HELD)
        follower.tell(
            b"".join([self.view.frame(), *self._reader.history.lines(), *self.permissions.frames()])
        )
        if self.closed is not None:
            follower.finish(self.closed)
        elif self.ended is not None:
            follower.finish(self.ended)

    def leave(self, follower: Follower) -> None:
        """A client has gone."""
        self._followers.remove(follower)
        self._rearm_if(State.HELD)

    def _hold_back(self) -> None:
        """As long as nobody takes what the CLI says, it is not read: its pipe fills, and it waits."""
        if self._followers.paused:
            self.process.tree.pause()
        else:
            self.process.tree.resume()

    def _rearm_if(self, state: State) -> None:
        if self.process.state is state:
            self.process.rearm()

    # --- what clients ask of it ---

    def say(self, content: str | list[dict[str, Any]]) -> None:
        """Pass a message on; one that comes before the CLI is ready waits for it.

        Raises:
            RpcError: BUSY, too much waits already; CONFLICT, the session has ended.
        """
        self.check_open()
        line = control.session_line(content)
        held_bytes = self.process.unwritten_bytes + sum(map(len, self._waiting))
        if self._unanswered >= _MAX_WAITING or held_bytes + len(line) > _MAX_UNWRITTEN_BYTES:
            text = f"{self._unanswered} messages wait in this session already"
            raise RpcError(Code.BUSY, text, {"retry_after_ms": 1000})
        self._unanswered += 1
        if self.process.state in STARTING:
            self._waiting.append(line)
        else:
            self.process.say(line)

    def interrupt(self) -> bool:
        """End the running turn. Returns whether there was one.

        Raises:
            RpcError: CONFLICT, the session has ended.
        """
        self.check_open()
        self._waiting.clear()
        running = self.process.state is State.BUSY
        if running:
            self.process.feed(Event.CANCEL)
        return running

    async def set_model(self, model: str | None) -> None:
        """Use another model from the next request on; None is the CLI's default.

        Raises:
            RpcError: BAD_PARAMS, the CLI says no; CONFLICT, the session has ended; MODEL_NOT_FOUND, it was opened for
                others.
        """
        if self._models is not None and (model or "default") not in self._models:
            text = (
                f"this session may not use the model {(model or 'default')!r}; it was opened for certain ones"
            )
            raise RpcError(Code.MODEL_NOT_FOUND, text, {"param": "model"})
        # Not by the request of that name: with a pinned id it makes a hidden, billed call.
        await self._request("apply_flag_settings", settings={"model": model})
        self.view.state["model"] = model or ""

    async def set_permission_mode(self, mode: str) -> None:
        """Set how much the CLI asks before it acts.

        Raises:
            RpcError: BAD_PARAMS, the CLI says no; CONFLICT, the session has ended.
        """
        await self._request("set_permission_mode", mode=mode)
        self.view.state["permission_mode"] = mode

    def answer(
        self, request_id: str, behavior: str, updated_input: dict[str, Any] | None, message: str | None
    ) -> None:
        """Answer a permission request; what is not `allow` denies it.

        Raises:
            RpcError: NOT_FOUND, it is not open; CONFLICT, the session has ended.
        """
        self.check_open()
        line, frame = self.permissions.reply(request_id, behavior, updated_input, message)
        self.process.tree.write(line)
        self._followers.tell(frame)

    def check_open(self) -> None:
        """See that it takes requests.

        Raises:
            RpcError: CONFLICT, it has ended.
        """
        if self.closed is not None or self.process.state in ENDING:
            why = self.closed or self.process.death or "it ends"
            raise RpcError(Code.CONFLICT, f"the CLI process of this session has ended: {why}")

    async def _request(self, subtype: str, **fields: Any) -> None:
        self.check_open()
        await self.ready()
        self.check_open()
        try:
            async with asyncio.timeout(_REPLY_S):
                agreed(await self.process.requests.make(subtype, **fields))
        except TimeoutError:
            raise RpcError(Code.WORKER_STUCK, f"the CLI has not answered {subtype}") from None

    # --- what the process tells (see `process.SessionProcessListener`) ---

    def patience_s(self, state: State) -> float | None:
        """Returns how long it may be idle, or have a turn; waiting for a reply takes as long as it takes."""
        if state is State.HELD:
            return None if self._followers else self._limits.idle_s
        return None if self.permissions else self._limits.turn_s

    def on_warm(self, version: str | None) -> None:
        """The CLI takes messages: here are those that have waited."""
        self.view.state["claude_code_version"] = version or ""
        self._ready.set_result(None)
        waiting, self._waiting = self._waiting, []
        for line in waiting:
            self.process.say(line)

    def on_idle(self) -> None:
        """Nobody has used it for long."""
        self.close("idle")

    def on_end(self, error: RpcError) -> None:
        """The process has ended."""
        log.info("session %s ended: %s (turns %d)", self.id, self.closed or error, self.process.turns)
        self.permissions.clear()
        self.ended = error
        if self.closed is None:
            self._followers.finish(error)
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # nobody need be waiting
        self._listener.ended(self)

    def on_lines(self, lines: bytes) -> None:
        """The CLI has said something."""
        self._followers.tell(self._reader.shown(lines))

    # --- what the reader tells (see `reader.SessionReaderListener`) ---

    def on_result(self) -> None:
        """A turn has ended, and with it everything that was said before."""
        self._unanswered = 0

    def _deny_late(self, request_id: str) -> None:
        if request_id in self.permissions and self.process.state in RUNNING and self.closed is None:
            self.answer(request_id, "deny", None, f"Nobody answered within {self._limits.permission_s:g} s")
