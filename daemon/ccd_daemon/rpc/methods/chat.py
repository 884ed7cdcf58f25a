"""`chat.stream` and `chat.complete`: lease a worker, write the turn, pass its lines on, give the worker back.

Not here: what a parameter becomes (`request`), who gets which worker (`pool.leases`), and whether a line is part of the
answer (`worker.reader`). What is tried again is tried only while nothing of the answer was passed on: a second answer
behind half of the first would be worse than an error.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeAlias

from ccd_daemon.claude.login import Mode
from ccd_daemon.config import Profile
from ccd_daemon.pool.pool import Pool
from ccd_daemon.pool.shelf import LeaseWish
from ccd_daemon.request import body, exact, replay, structured, wish
from ccd_daemon.request.body import Script, Wish
from ccd_daemon.request.replay import ReplayTalk, Standing
from ccd_daemon.request.thoughts import Recalled, Signer, Thoughts, thinks_in_its_past, without_thinking
from ccd_daemon.rpc.call import Call
from ccd_daemon.rpc.methods import remembered
from ccd_daemon.rpc.methods.conversation import check_id
from ccd_daemon.rpc.methods.remembered import Answered, Remembered
from ccd_daemon.rpc.rights import Rights
from ccd_daemon.rpc.tenancy import check_kept, tenant_of
from ccd_daemon.schema.checker import Checker
from ccd_daemon.store.answer_cache import key_of
from ccd_daemon.store.conversations import ConversationStore
from ccd_daemon.worker.lifecycle import State
from ccd_daemon.worker.turn import Turn
from ccd_daemon.worker.worker import Worker
from ccd_protocol.chat.choice import chosen
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatAnswer, ChatParams, ChatResult, Message

Answering: TypeAlias = Callable[[Call, ChatParams], Awaitable[Answered]]

_DIED = (Code.WORKER_CRASHED, Code.WORKER_OOM)
_LEASE_TRIES = 3  # a worker may end between the lease and the write; nothing was sent then
_MAX_LEARNED = 1000
_KEPT = ("conversation_id", "cache")  # what has to do with earlier answers, or later ones
_COUNTED = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
#: How a backend says that it takes a login only from the CLI's own requests.
_REFUSED_CREDENTIAL = re.compile(
    r"only authorized for use with claude code|system prompt.*not allowed", re.IGNORECASE
)
_FALL_BACK_ON = (Code.UPSTREAM_OVERLOADED, Code.MODEL_NOT_FOUND)
#: The newest models take no sampling parameters, but most clients send one. Such a refusal comes before any output and
#: is not billed, so the request is sent again without it, and the result says that it was ignored.
_REFUSED_SAMPLING = re.compile(
    r"\b(temperature|top_p|top_k)\b[^.]*\b(?:deprecated|not supported|unsupported)\b"
)
_ALWAYS_THINKS = re.compile(r"\bthinking\.type\.disabled\b[^.]*\bnot supported\b")
#: Said of the schemas of answers and strict tools, at a size that is written nowhere.
_TOO_LARGE_A_GRAMMAR = re.compile(r"\bgrammar is too large\b|\bschema is too complex\b", re.IGNORECASE)
_NO_PREFILL = re.compile(r"\bassistant message prefill\b", re.IGNORECASE)
_FOREIGN_THINKING = re.compile(r"signature\W+in\W+thinking|thinking\W[^.]* cannot be modified", re.IGNORECASE)
#: Others take one of the two, and many clients send both.
_NOT_BOTH_SAMPLERS = re.compile(r"\btemperature\b\W+and\W+top_p\b[^.]*\bcannot both\b")


class ChatMethods:
    """The chat methods over one pool."""

    def __init__(
        self,
        pool: Pool,
        rights: Rights,
        profiles: Mapping[str, Profile],
        conversations: ConversationStore,
        remembered: Remembered,
        checker: Checker,
        *,
        betas: bool,
    ) -> None:
        self._pool = pool
        self._remembered = remembered
        self._checker = checker
        self._conversations = conversations
        self._rights = rights
        self._profiles = profiles
        self._betas = betas  # whether the CLI's login leaves the anthropic-beta header to the client
        self._thoughts = Thoughts()
        self._refused: dict[str | None, set[str]] = {}  # model: sampling parameters that it refuses

    async def stream(self, call: Call) -> ChatResult:
        """Returns the answer as ITEMs of CLI lines; the END carries what is known at the end."""
        result, _ = await self._in_conversation(call, self._streamed)
        return result

    async def complete(self, call: Call) -> ChatAnswer:
        """Returns the whole answer at once; one that has the wrong format is sent back once to be corrected."""
        result, content = await self._in_conversation(call, self._recalled)
        return _answer(result, content)

    async def _in_conversation(self, call: Call, answer: Answering) -> Answered:
        """Answer, with the history of the named conversation before the question, and remember both."""
        chat = self._validated(call)
        await self._check_schema(call, chat)
        name = chat.get("conversation_id")
        if name is None:
            return await answer(call, chat)
        tenant = self._tenant(call, chat)
        async with self._conversations.turn(tenant, check_id(name)) as history:
            asked = chat["messages"]
            whole: ChatParams = {**chat, "messages": [*history.messages, *asked]}
            if "system" not in chat and history.system is not None:
                whole["system"] = history.system
            result, content = await answer(call, whole)
            said = [*asked, Message(role="assistant", content=content)] if content else asked
            tokens = sum(result["usage"].get(key, 0) for key in _COUNTED)  # type: ignore[misc]
            await self._conversations.append(
                tenant, name, said, chat.get("system"), chat.get("model"), tokens
            )
        return result, content

    async def _recalled(self, call: Call, chat: ChatParams) -> Answered:
        """From the cache where there is one and the call allows it, else from the model."""
        return await self._remembered.answer(
            chat, lambda: self._cache_key(call, chat), lambda: self._completed(call, chat)
        )

    def _cache_key(self, call: Call, chat: ChatParams) -> bytes | None:
        profile, model = self._resolve(chat)
        scene = (
            profile,
            model,
            self._profiles[profile].fallback_model,
            self._pool.mode,
            self._pool.cli_version,
        )
        try:
            return key_of(self._tenant(call, chat), scene, chat)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise body.bad("messages", f"the request has a value that cannot be encoded: {error}") from None

    async def _streamed(self, call: Call, chat: ChatParams) -> Answered:
        if "cache" in chat:
            raise body.bad("cache", "cache is for chat.complete")
        result, turn = await self._ask(call, chat, streaming=True)
        why = await self._format_problem(call, chat, result, turn.text)
        if why is not None:
            text = f"the answer does not have the format asked for: {why}"
            raise turn.failed_by(RpcError(Code.UPSTREAM_ERROR, text, {"reason": "format"}))
        return result, turn.content

    async def _completed(self, call: Call, chat: ChatParams) -> Answered:
        result, turn = await self._ask(call, chat, streaming=False)
        why = await self._format_problem(call, chat, result, turn.text)
        bare = structured.unfenced(turn.text)
        if (
            why is not None
            and bare != turn.text
            and await self._format_problem(call, chat, result, bare) is None
        ):
            return result, [{"type": "text", "text": bare}]
        if why is not None:
            result, turn = await self._ask(call, structured.repair(chat, turn.text, why), streaming=False)
            why = await self._format_problem(call, chat, result, turn.text)
        if why is not None:
            reason = f"the answer does not have the format asked for, nor has its correction: {why}"
            raise RpcError(Code.UPSTREAM_ERROR, reason, {"reason": "format", "output_started": True})
        if turn.tool_inputs is not None:
            result["tool_inputs"] = turn.tool_inputs
        return result, turn.content

    def _validated(self, call: Call) -> ChatParams:
        chat = body.validate(call.params)
        exact.check(chat)
        remembered.check(chat)
        for name in _KEPT:
            if name in chat:
                check_kept(call, name)
        return chat

    async def _check_schema(self, call: Call, chat: ChatParams) -> None:
        """See that a schema is one, and bounded, before anything is asked."""
        if chat.get("format", {}).get("type") != "json_schema":
            return
        schema = chat["format"]["schema"]
        error = structured.bounds_error(schema)
        if error is not None:
            raise body.bad("format.schema", f"this schema cannot be used: {error}")
        error = await self._checker.schema_error(self._tenant(call, chat), schema)
        if error is not None:
            raise body.bad("format.schema", f"this is not a JSON schema: {error}")

    async def _format_problem(
        self, call: Call, chat: ChatParams, result: ChatResult, text: str
    ) -> str | None:
        """What is wrong with an answer that was to have a format; one that was cut short or calls tools has none."""
        if "format" not in chat or result["stop_reason"] not in ("end_turn", "stop_sequence"):
            return None
        return await self._checker.problem(self._tenant(call, chat), text, chat["format"])

    async def _ask(self, call: Call, chat: ChatParams, *, streaming: bool) -> tuple[ChatResult, Turn]:
        """Returns one answer, which is asked for again only while nothing of it has been passed on."""
        profile, model = self._resolve(chat)
        tenant = self._tenant(call, chat)
        chat, named = wish.understood(chat, tenant)
        dropped = set(named)
        tries = _LEASE_TRIES
        fallback = chat.get("fallback_model", self._profiles[profile].fallback_model)
        fell_back = loose = bare = False
        while True:
            avoided = frozenset(self._refused.get(model, ()))
            recalled = self._recall(tenant, model, chat, bare=bare)
            asked = self._wish(recalled.chat, model, avoided, thoughtless=recalled.missing, loose=loose)
            dropped.update(asked.ignored)
            mode = self._pool.mode
            talk = self._checked(mode, asked, tenant, profile)
            worker = await self._pool.leases.lease(
                profile, _lease_wish(tenant, mode, asked, talk, again=tries < _LEASE_TRIES)
            )
            try:
                script = _script(worker, asked, talk)
                worker.parking.name = chat.get("conversation_id")
                result, turn = await self._turn(call, worker, asked, script, streaming=streaming)
                result["ignored"] = sorted(dropped)
                if fell_back:
                    result["fallback"] = True
                self._pool.proven_modes.add(worker.mode)
                self._thoughts.keep(tenant, Signer(model, result["model"]), turn.content)
                return result, turn
            except _NeverSent as error:
                tries -= error.tries
                if tries <= 0:
                    raise error.reason from None
            except RpcError as error:
                self._pool.leases.login_said(error)
                if error.data.get("output_started"):
                    raise
                if fallback and error.code in _FALL_BACK_ON:
                    model, fallback, fell_back, bare = fallback, None, True, True
                elif _FOREIGN_THINKING.search(error.message) and self._may_strip(chat, bare=bare):
                    bare = True
                    dropped.add("messages.thinking")
                elif _TOO_LARGE_A_GRAMMAR.search(error.message) and not (loose or chat.get("strict")):
                    loose = True
                elif not (self._learn(chat, model, avoided, error) or self._slower_mode(mode, error)):
                    raise
            finally:
                call.feed_from(None)
                self._pool.leases.release(worker)

    def _recall(self, tenant: str, model: str | None, chat: ChatParams, *, bare: bool) -> Recalled:
        """The chat with its thinking, as far as it is the model's own; `bare` leaves out what the client sent."""
        lost = bare and thinks_in_its_past(chat)
        if lost:
            chat = without_thinking(chat)
        if chat.get("exact"):
            return Recalled(chat, lost)
        return self._thoughts.restore(tenant, model, wish.full_name(self._pool.models, model), chat)

    @staticmethod
    def _may_strip(chat: ChatParams, *, bare: bool) -> bool:
        """Returns whether a refused signature is the client's, and the client may be answered without it."""
        return not (bare or chat.get("exact") or chat.get("strict")) and thinks_in_its_past(chat)

    def _wish(
        self,
        chat: ChatParams,
        model: str | None,
        avoided: Collection[str],
        *,
        thoughtless: bool,
        loose: bool = False,
    ) -> Wish:
        """Returns what to ask."""
        able = wish.abilities(self._pool.models, model)
        return wish.make(
            chat,
            model,
            able,
            mode=self._pool.mode,
            refused=sorted(avoided),
            thoughtless=thoughtless,
            betas=self._betas,
            loose=loose,
        )

    @staticmethod
    def _checked(mode: Mode, asked: Wish, tenant: str, profile: str) -> ReplayTalk | None:
        """Check that it can be sent, before it costs a lease; in mode `replay` what it is recognised by."""
        if mode == Mode.REPLAY:
            return replay.talk(asked, tenant, profile)
        body.script(mode, asked, "check")
        return None

    def _learn(self, chat: ChatParams, model: str | None, avoided: Collection[str], error: RpcError) -> bool:
        """Note a sampling parameter that the API no longer takes for this model; True when it can be left out.

        Args:
            avoided: what was left out this time. Another call may have found out meanwhile what this one did not know.
        """
        if error.data.get("upstream_status") != 400 or chat.get("strict"):
            return False
        if _NOT_BOTH_SAMPLERS.search(error.message):
            name = wish.BOTH_SAMPLERS
        elif _NO_PREFILL.search(error.message) and not chat.get("exact"):
            name = wish.PREFILL
        elif _ALWAYS_THINKS.search(error.message) and "top_p" in chat and "thinking" not in chat:
            name = "top_p"  # it was for its sake that thinking was switched off
        else:
            found = _REFUSED_SAMPLING.search(error.message)
            if found is None or found[1] not in chat:
                return False
            name = found[1]
        known = self._refused.get(model, set())
        if name in avoided or (name not in known and len(self._refused) >= _MAX_LEARNED):
            return False
        self._refused.setdefault(model, known).add(name)
        return True

    def _slower_mode(self, mode: Mode, error: RpcError) -> bool:
        """Give up a mode that the backend refuses before it has ever answered in it; True when another is left."""
        telling = _REFUSED_CREDENTIAL.search(error.message) is not None
        status = error.data.get("upstream_status")
        if status not in (400, 401, 403) or not telling or mode in self._pool.proven_modes:
            return False
        if mode.slower is None:
            return False
        if mode == self._pool.mode:  # else another request has found it out already
            self._pool.degrade(mode.slower, error.message)
        return True

    async def _turn(
        self, call: Call, worker: Worker, asked: Wish, script: Script, *, streaming: bool
    ) -> tuple[ChatResult, Turn]:
        try:
            turn = worker.turns.begin(script, asked.model or "", call.send if streaming else None)
        except RpcError as error:
            raise _NeverSent(error) from None
        call.feed_from(worker.turns if streaming else None)
        try:
            # Shielded: cancelling the caller must not mark the turn as answered before the CLI is interrupted.
            result = await asyncio.shield(turn.future)
        except asyncio.CancelledError:
            worker.turns.abandon(RpcError(Code.CANCELLED))
            raise
        except RpcError as error:
            if error.code in _DIED and not turn.taken:
                raise _NeverTaken(error) from None
            raise
        self._pool.leases.turn_took(result["duration_ms"] / 1000)
        return result, turn

    def _resolve(self, chat: ChatParams) -> tuple[str, str | None]:
        """Returns the profile, and the model to ask: the one named, else the profile's, else the CLI's default."""
        profile, model = chosen(chat.get("profile"), chat.get("model"), self._profiles)
        if profile not in self._profiles:
            text = f"there is no profile {profile!r}; there are: {', '.join(sorted(self._profiles))}"
            raise RpcError(Code.MODEL_NOT_FOUND, text, {"param": "profile"})
        return profile, model or self._profiles[profile].model

    def _tenant(self, call: Call, chat: ChatParams) -> str:
        return tenant_of(call, chat.get("tenant"), may_name=self._rights.may_speak_for_others(call.identity))


class _NeverSent(Exception):
    """The leased worker had ended before anything was written to it."""

    tries = 1  # of the `_LEASE_TRIES`

    def __init__(self, reason: RpcError) -> None:
        super().__init__(reason)
        self.reason = reason


class _NeverTaken(_NeverSent):
    """The worker ended before its CLI had begun: the model was not asked, and may be, once, by another worker."""

    tries = 2


def _lease_wish(tenant: str, mode: Mode, asked: Wish, talk: ReplayTalk | None, *, again: bool) -> LeaseWish:
    if talk is None:
        return LeaseWish(tenant, body.binding_of(mode, asked.chat), surely_alive=again)
    places = tuple(talk.places)
    return LeaseWish(tenant, places=places, parked_place=talk.parked_place, surely_alive=again)


def _script(worker: Worker, asked: Wish, talk: ReplayTalk | None) -> Script:
    if (talk is None) == (worker.mode == Mode.REPLAY):
        why = f"meanwhile the backend has refused the mode that this was made for; in force is {worker.mode}"
        raise _NeverSent(RpcError(Code.BUSY, why, {"retry_after_ms": 1000}))
    request_id = worker.controller.next_id()
    if talk is None:
        return body.script(worker.mode, asked, request_id, worker.binding)
    standing = Standing(worker.parking.place, worker.state is State.PARKED, worker.parking.knobs)
    return replay.script(asked, talk, request_id, standing)


def _answer(result: ChatResult, content: list[dict[str, Any]]) -> ChatAnswer:
    text = "".join(str(block.get("text", "")) for block in content if block.get("type") == "text")
    return ChatAnswer(**result, content=content, text=text)
