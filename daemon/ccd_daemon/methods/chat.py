"""`chat.stream` and `chat.complete`: lease a worker, write the turn, pass its lines on, give the worker back."""

from __future__ import annotations

import asyncio
from typing import Any

from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatAnswer, ChatParams, ChatResult

from .. import body
from ..config import Profile
from ..connection import Call
from ..pool import Pool
from ..server import Server
from ..worker import Worker

_LEASE_TRIES = 3  # a worker may end between the lease and the write; nothing was sent then


class Chat:
    """The chat methods over one pool."""

    def __init__(self, pool: Pool, server: Server, profiles: dict[str, Profile]) -> None:
        self._pool = pool
        self._server = server
        self._profiles = profiles

    async def stream(self, call: Call) -> ChatResult:
        """The answer as ITEMs of CLI lines; the END carries what is known at the end."""
        return await self._run(call, streaming=True)

    async def complete(self, call: Call) -> ChatAnswer:
        """The whole answer at once."""
        return await self._run(call, streaming=False)

    async def _run(self, call: Call, *, streaming: bool) -> Any:
        chat = body.validate(call.params)
        profile, model = self._resolve(chat)
        tenant = self._tenant(call, chat)
        # Refuse what cannot be sent before it costs a lease.
        body.script(self._pool.mode, chat, model, "check") if self._pool.mode == "replay" else body.engine_body(chat)
        for attempt in range(_LEASE_TRIES):
            worker = await self._pool.lease(profile, tenant)
            try:
                return await self._turn(call, worker, chat, model, streaming=streaming)
            except _NeverSent as error:
                if attempt == _LEASE_TRIES - 1:
                    raise error.reason from None
            finally:
                call.feed_from(None)
                self._pool.give_back(worker)
        raise AssertionError("unreachable")

    async def _turn(self, call: Call, worker: Worker, chat: ChatParams, model: str | None, *, streaming: bool) -> Any:
        script = body.script(worker.mode, chat, model, worker.next_id())
        try:
            turn = worker.begin(script, model or "", call.send if streaming else None)
        except RpcError as error:
            raise _NeverSent(error) from None
        call.feed_from(worker if streaming else None)
        try:
            result = await turn.future
        except asyncio.CancelledError:
            worker.abandon(RpcError(Code.CANCELLED))
            raise
        self._pool.turn_took(result["duration_ms"] / 1000)
        return result if streaming else _answer(result, turn.content)

    def _resolve(self, chat: ChatParams) -> tuple[str, str | None]:
        """Profile and model: `name/model` names a profile; a bare profile name picks its default model."""
        profile, model = chat.get("profile"), chat.get("model")
        if model and "/" in model and model.partition("/")[0] in self._profiles:
            prefix, _, model = model.partition("/")
            if profile not in (None, prefix):
                raise body.bad("model", f"model names the profile {prefix!r}, but {profile!r} was asked for")
            profile = prefix
        elif model in self._profiles and profile is None:
            profile, model = model, None
        profile = profile or "chat"
        settings = self._profiles.get(profile)
        if settings is None:
            known = ", ".join(sorted(self._profiles))
            raise RpcError(Code.MODEL_NOT_FOUND, f"there is no profile {profile!r}; there are: {known}", {"param": "profile"})
        return profile, (model if model not in (None, "", "default") else settings.model)

    def _tenant(self, call: Call, chat: ChatParams) -> str:
        named = chat.get("tenant")
        if named is None:
            return f"uid:{call.identity.uid}"
        if not self._server.may_speak_for_others(call.identity):
            raise RpcError(Code.FORBIDDEN, "only uids in server.tenant_uids may name a tenant", {"param": "tenant"})
        return named


class _NeverSent(Exception):
    """The leased worker had ended before anything was written to it."""

    def __init__(self, reason: RpcError) -> None:
        super().__init__(reason)
        self.reason = reason


def _answer(result: ChatResult, content: list[dict[str, Any]]) -> ChatAnswer:
    text = "".join(str(block.get("text", "")) for block in content if block.get("type") == "text")
    return ChatAnswer(**result, content=content, text=text)
