"""`chat.stream` and `chat.complete`: lease a worker, write the turn, pass its lines on, give the worker back."""

from __future__ import annotations

import asyncio
import re
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
_MAX_LEARNED = 1000
#: The newest models take no sampling parameters, but most clients send one. Such a refusal comes before any output and
#: is not billed, so the request is sent again without it, and the result says that it was ignored.
_REFUSED_SAMPLING = re.compile(r"\b(temperature|top_p|top_k)\b[^.]*\b(?:deprecated|not supported|unsupported)\b")


class Chat:
    """The chat methods over one pool."""

    def __init__(self, pool: Pool, server: Server, profiles: dict[str, Profile]) -> None:
        self._pool = pool
        self._server = server
        self._profiles = profiles
        self._refused: dict[str | None, set[str]] = {}  # model: sampling parameters that it refuses

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
        dropped: list[str] = []
        tries = _LEASE_TRIES
        while True:
            self._drop_known(chat, model, dropped)
            worker = await self._pool.lease(profile, tenant)
            try:
                answer = await self._turn(call, worker, chat, model, streaming=streaming)
                answer["ignored"] = sorted({*answer["ignored"], *dropped})
                return answer
            except _NeverSent as error:
                tries -= 1
                if not tries:
                    raise error.reason from None
            except RpcError as error:
                if not self._learn(chat, model, error):
                    raise
            finally:
                call.feed_from(None)
                self._pool.give_back(worker)

    def _drop_known(self, chat: ChatParams, model: str | None, dropped: list[str]) -> None:
        """Leave out the sampling parameters that this model is known to refuse."""
        for key in self._refused.get(model, ()):
            if key in chat:
                del chat[key]  # type: ignore[misc]
                dropped.append(key)

    def _learn(self, chat: ChatParams, model: str | None, error: RpcError) -> bool:
        """Note a sampling parameter that the API no longer takes for this model; True when it can be left out."""
        found = _REFUSED_SAMPLING.search(error.message) if error.data.get("upstream_status") == 400 else None
        if found is None or found[1] not in chat or error.data.get("output_started"):
            return False
        if len(self._refused) < _MAX_LEARNED:
            self._refused.setdefault(model, set()).add(found[1])
        return found[1] in self._refused.get(model, ())

    async def _turn(self, call: Call, worker: Worker, chat: ChatParams, model: str | None, *, streaming: bool) -> Any:
        script = body.script(worker.mode, chat, model, worker.next_id())
        try:
            turn = worker.begin(script, model or "", call.send if streaming else None)
        except RpcError as error:
            raise _NeverSent(error) from None
        call.feed_from(worker if streaming else None)
        try:
            # Shielded: cancelling the caller must not mark the turn as answered before the CLI is interrupted.
            result = await asyncio.shield(turn.future)
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
