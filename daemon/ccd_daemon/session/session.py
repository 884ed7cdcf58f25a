"""One session: a CLI process that belongs to it for life, the clients that follow it, and what waits for answers.

What the CLI says goes to every follower as it came, except for what concerns its host: answers to control requests,
permission requests (which become frames of their own, see `permissions`), and `system/init`, which becomes
`session_init`. Token lines are not looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from ccd_daemon.claude import control
from ccd_daemon.claude.ndjson import all_tokens, each
from ccd_daemon.config import Settings
from ccd_daemon.session.follower import Follower
from ccd_daemon.session.permissions import Permissions
from ccd_daemon.session.process import SessionProcess, SessionWish, agreed
from ccd_daemon.session.view import SessionHistory, View
from ccd_daemon.worker.lifecycle import ENDING, RUNNING, STARTING, UNHEARD, Event, State
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
        self.view = View(session_id, model=model, cwd=cwd, permission_mode=wish.permission_mode)
        self.permissions = Permissions()
        self._followers: set[Follower] = set()
        self._limits = settings.sessions
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._history = SessionHistory(settings.sessions.history_bytes)
        self._patience: dict[str, asyncio.TimerHandle] = {}  # by permission request
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._waiting: list[bytes] = []  # messages from before it was ready
        self._unanswered = 0  # messages since the last result
        self.process: SessionProcess = SessionProcess(session_id, settings, self)

    async def ready(self) -> None:
        """Wait until it takes messages.

        Raises:
            RpcError: it has ended before; WORKER_SPAWN when it could not even start.
        """
        await asyncio.shield(self._ready)

    def info(self) -> SessionInfo:
        """What clients are told of it."""
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
            self._tell_end(why)
            self.process.stop()

    # --- clients ---

    def join(self, follower: Follower) -> None:
        """A client attaches: it is shown the state, the past, and what waits for an answer."""
        self._followers.add(follower)
        follower.flow_changed = self._hold_back
        self._rearm_if(State.HELD)
        follower.tell(b"".join([self.view.frame(), *self._history.lines(), *self.permissions.frames()]))
        if self.closed is not None:
            follower.finish(self.closed)
        elif self.ended is not None:
            follower.finish(self.ended)

    def leave(self, follower: Follower) -> None:
        """A client has gone."""
        self._followers.discard(follower)
        self._hold_back()
        self._rearm_if(State.HELD)

    def _hold_back(self) -> None:
        """As long as nobody takes what the CLI says, it is not read: its pipe fills, and it waits."""
        if self._followers and all(follower.paused for follower in self._followers):
            self.process.tree.pause()
        else:
            self.process.tree.resume()

    def _rearm_if(self, state: State) -> None:
        if self.process.state is state:
            self.process.rearm()

    def _broadcast(self, lines: bytes) -> None:
        for follower in list(self._followers):
            follower.tell(lines)

    def _tell_end(self, last: str | RpcError) -> None:
        for follower in list(self._followers):
            follower.finish(last)

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
        """End the running turn; whether there was one.

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
            RpcError: BAD_PARAMS, the CLI says no; CONFLICT, the session has ended.
        """
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
        line, frame = self.permissions.answer(request_id, behavior, updated_input, message)
        self.process.tree.write(line)
        self._settled(request_id)
        self._broadcast(frame)

    def _settled(self, request_id: str) -> None:
        timer = self._patience.pop(request_id, None)
        if timer is not None:
            timer.cancel()
        self._rearm_if(State.BUSY)

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
                agreed(await self.process.request(subtype, **fields))
        except TimeoutError:
            raise RpcError(Code.WORKER_STUCK, f"the CLI has not answered {subtype}") from None

    # --- what the process tells (see `process.SessionProcessListener`) ---

    def patience_s(self, state: State) -> float | None:
        """How long it may be idle, or have a turn; waiting for people takes as long as it takes."""
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
        for timer in self._patience.values():
            timer.cancel()
        self._patience.clear()
        self.permissions.clear()
        self.ended = error
        if self.closed is None:
            self._tell_end(error)
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # nobody need be waiting
        self._listener.ended(self)

    def on_lines(self, lines: bytes) -> None:
        """The CLI has said something."""
        if not all_tokens(lines):
            lines = b"".join(map(self._shown, each(lines)))
        self._broadcast(lines)

    # --- lines, by their kind: each returns what the followers are told of it ---

    def _shown(self, line: bytes) -> bytes:
        if self.process.state in UNHEARD:
            return b""
        try:
            kind = control.kind_of(line)
            special = _SPECIAL.get((kind.type, kind.subtype)) or _SPECIAL.get((kind.type, None))
            return line if special is None else special(self, line)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            self.process.bad_output(str(error))
            return b""

    def _on_reply(self, line: bytes) -> bytes:
        self.process.replied(control.control_reply(line).response)
        return b""

    def _on_request(self, line: bytes) -> bytes:
        asked = control.control_request(line)
        subtype, request_id = asked.request.get("subtype"), asked.request_id
        if subtype != "can_use_tool":
            refusal = control.reply_error(request_id, f"this host does not serve {subtype!r}")
            self.process.tree.write(refusal)
            return b""
        frame = self.permissions.ask(request_id, asked.request)
        self._patience[request_id] = self._loop.call_later(
            self._limits.permission_s, self._deny_late, request_id
        )
        self._rearm_if(State.BUSY)
        return frame

    def _deny_late(self, request_id: str) -> None:
        if request_id in self.permissions and self.process.state in RUNNING and self.closed is None:
            self.answer(request_id, "deny", None, f"Nobody answered within {self._limits.permission_s:g} s")

    def _on_withdrawn(self, line: bytes) -> bytes:
        request_id = control.cancel_line(line).request_id
        frame = self.permissions.withdraw(request_id)
        self._settled(request_id)
        return frame

    def _on_init(self, line: bytes) -> bytes:
        self.view.saw_init(line)
        self.process.turn_began()  # also of messages that were queued in the CLI
        return self.view.frame()

    def _on_status(self, line: bytes) -> bytes:
        self.view.saw_status(line)
        return line

    def _on_assistant(self, line: bytes) -> bytes:
        self._history.add(line)
        return line

    def _on_result(self, line: bytes) -> bytes:
        self.view.saw_result(line)
        self._history.add(line)
        self._unanswered = 0
        self.process.turn_ended()
        return line

    def _on_reset(self, line: bytes) -> bytes:
        self._history.clear()
        return line

    def _on_keep_alive(self, line: bytes) -> bytes:
        return b""


_SPECIAL: Mapping[tuple[str, str | None], Callable[[Session, bytes], bytes]] = {
    ("control_response", None): Session._on_reply,
    ("control_request", None): Session._on_request,
    ("control_cancel_request", None): Session._on_withdrawn,
    ("system", "init"): Session._on_init,
    ("system", "status"): Session._on_status,
    ("assistant", None): Session._on_assistant,
    ("result", None): Session._on_result,
    ("conversation_reset", None): Session._on_reset,
    ("keep_alive", None): Session._on_keep_alive,
}
