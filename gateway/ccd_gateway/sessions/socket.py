"""`/ws/session/{id}`: a client follows a session, and speaks in it.

Two tasks for each client: one passes the daemon's lines on as text frames, one the client's messages to the daemon.
The first outlives its client while a turn is still to be booked. Whatever is wrong with a single message is answered
with an `error` frame; the connection stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import msgspec

from ccd_client import AsyncStream
from ccd_gateway.access.auth import KeyStore
from ccd_gateway.access.caller import Caller, caller_of_scope
from ccd_gateway.answer.backend import Backend
from ccd_gateway.edge.envelope import Message, Receive, Scope, Send
from ccd_gateway.edge.routing import matched
from ccd_gateway.edge.work import Share, apart, share_of
from ccd_gateway.errors import ApiError, fault
from ccd_gateway.sessions import access, requests
from ccd_gateway.sessions.metered import Metered
from ccd_gateway.settings import GatewaySettings
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import SessionInfo

SUBPROTOCOL = "ccd.v1"
_NORMAL, _POLICY, _INTERNAL, _RESTART, _LATER = 1000, 1008, 1011, 1012, 1013
_MAX_REASON_BYTES = 120  # a close frame holds 123
_CODES = {
    Code.NOT_FOUND: _POLICY,
    Code.FORBIDDEN: _POLICY,
    Code.LOST: _RESTART,
    Code.DRAINING: _RESTART,
    Code.BUSY: _LATER,
}
_MAX_LINES = 1000  # of one frame
_log = logging.getLogger(__name__)


class SessionSockets:
    """The WebSockets of one worker process, as an ASGI application.

    Args:
        backend: the daemon.
        settings: who may come.
        store: the keys, for clients whose key is revoked while they are connected.
    """

    def __init__(self, backend: Backend, settings: GatewaySettings, store: KeyStore) -> None:
        self._backend = backend
        self._settings = settings
        self._store = store
        self._following: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client.

        Raises:
            ApiError: the handshake is refused.
        """
        caller = caller_of_scope(scope)
        session_id = matched(scope).fields["name"]
        access.check(caller, without_key=self._settings.allow_agent_without_key)
        await receive()  # the handshake
        await send({"type": "websocket.accept", "subprotocol": _chosen(scope["subprotocols"])})
        share = share_of(scope)
        client = _Client(self._backend, self._settings, self._store, caller, session_id, send, share)
        following = asyncio.ensure_future(client.follow())
        self._following.add(following)
        following.add_done_callback(self._followed)
        listening = asyncio.ensure_future(client.listen(receive))
        try:
            await asyncio.wait([following, listening], return_when=asyncio.FIRST_COMPLETED)
        finally:
            client.gone = True
            listening.cancel()
            if not client.metered.running:
                following.cancel()
            with suppress(asyncio.CancelledError):
                await listening

    def _followed(self, task: asyncio.Task[None]) -> None:
        self._following.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("following a session failed", exc_info=task.exception())


class _Client:
    """One connected client."""

    def __init__(
        self,
        backend: Backend,
        settings: GatewaySettings,
        store: KeyStore,
        caller: Caller,
        session_id: str,
        send: Send,
        share: Share,
    ) -> None:
        self._share = share
        self.metered = Metered(backend, caller)
        self.gone = False
        self._backend = backend
        self._settings = settings
        self._store = store
        self._caller = caller
        self._which = {"session_id": session_id, "tenant": caller.tenant}
        self._send = send
        self._attached = asyncio.Event()

    # --- from the session ---

    async def follow(self) -> None:
        """Pass everything on, until the session ends or the client is gone and nothing is left to book."""
        code, reason = _INTERNAL, "the gateway failed"
        try:
            async with self._backend.stream("session.attach", self._which) as stream:
                async for line in _lines(stream):
                    await self._pass_on(line)
                    if self.gone and not self.metered.running:
                        return
                code, reason = _end_of(stream.result["reason"])
        except RpcError as error:
            code, reason = _CODES.get(error.code, _INTERNAL), error.message
            unknown = error.code is Code.NOT_FOUND
            await self._tell_error("Session not found" if unknown else error.message)
        finally:
            self.metered.cut()
        short = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        await self._tell({"type": "websocket.close", "code": code, "reason": short})

    async def _pass_on(self, line: bytes) -> None:
        self._attached.set()
        await self._dismiss_if_revoked()
        await self._tell({"type": "websocket.send", "text": line.decode(errors="replace")})
        refusal = await self.metered.saw(line)
        if refusal is not None:
            await self._tell_error(refusal.message)
            with suppress(RpcError):
                await self._backend.call_once("session.interrupt", self._which)

    # --- from the client ---

    async def listen(self, receive: Receive) -> None:
        """Do what the client says, one thing after the other, until it goes; but first it is shown the past."""
        await self._attached.wait()
        while not self.gone and (message := await receive())["type"] != "websocket.disconnect":
            text = message.get("text")
            if text is None:
                await self._tell_error("Send text frames, with a line of JSON each.")
                continue
            lines = text.split("\n", _MAX_LINES)
            if len(lines) > _MAX_LINES:
                await self._tell_error(f"A frame may hold at most {_MAX_LINES} lines; nothing was done.")
                continue
            for line in filter(str.strip, lines):
                await self._obey(line)

    async def _obey(self, line: str) -> None:
        await self._dismiss_if_revoked()
        if self.gone:
            return
        try:
            encoded = line.encode(errors="surrogatepass")
            await self._share.check(encoded)
            call = await apart(encoded, requests.read, line)
            if call is not None:
                await self._do(call)
        except (RpcError, ApiError) as error:
            message = error.message if isinstance(error, RpcError) else str(error)
            await self._tell_error(message)
        except Exception:
            _log.exception("a message of a session failed")
            await self._tell_error(str(fault()))
        finally:
            self._share.close()

    async def _do(self, call: requests.SessionCall) -> None:
        params = {**call.params, **self._which}
        if call.method == "session.set_model":
            await self._set_model(params)
            return
        if call.method != "session.send":
            await self._backend.call_once(call.method, params)
            return
        if self._caller.key is not None:
            known = await self._backend.known()
            access.check_said(self._caller, known, self.metered.model, params["content"])
        fresh = not self.metered.running
        await self.metered.begin(params["content"])
        try:
            await self._backend.call_once(call.method, params)
        except BaseException:
            if fresh:
                self.metered.cut(asked=False)
            raise

    async def _set_model(self, params: dict[str, Any]) -> None:
        model = params["model"]
        params["model"] = model = self._settings.model_for(model) if model else None
        if self._caller.key is not None:
            access.check_model(self._caller, await self._backend.known(), model)
        found: SessionInfo = await self._backend.call_once("session.set_model", params)
        self.metered.model = found["state"]["model"]

    async def _dismiss_if_revoked(self) -> None:
        """End the connection of a client whose key no longer lets it in; a turn that runs is still booked."""
        key = self._caller.key
        if self.gone or key is None or self._store.still_good(key):
            return
        await self._tell_error("The API key is no longer valid.")
        await self._tell(
            {"type": "websocket.close", "code": _POLICY, "reason": "the API key is no longer valid"}
        )
        self.gone = True

    async def _tell_error(self, text: str) -> None:
        frame = {"type": "error", "error": text, "session_id": self._which["session_id"]}
        await self._tell({"type": "websocket.send", "text": msgspec.json.encode(frame).decode() + "\n"})

    async def _tell(self, message: Message) -> None:
        if not self.gone:
            try:
                await self._send(message)
            except OSError:  # it has just gone
                self.gone = True


async def _lines(stream: AsyncStream) -> AsyncIterator[bytes]:
    """The whole lines of a stream; one that is longer than a payload comes in pieces."""
    held: list[bytes] = []
    async for payload in stream:
        *whole, rest = payload.split(b"\n")
        for end in whole:
            yield b"".join((*held, end, b"\n"))
            held.clear()
        held += [rest] if rest else []


def _end_of(reason: str) -> tuple[int, str]:
    restart = reason not in ("closed", "idle")
    return (_RESTART if restart else _NORMAL), f"the session has ended: {reason}"


def _chosen(offered: list[str]) -> str | None:
    return SUBPROTOCOL if SUBPROTOCOL in offered else None
