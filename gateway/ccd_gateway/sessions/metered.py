"""What the turns of a session cost the key that asked for them.

A turn is admitted and booked like a chat answer (`metering`): from the user's message to the CLI's `result`. Messages
that come in between belong to the same turn. Without a key nothing is counted.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ccd_gateway.access.caller import Caller
from ccd_gateway.access.metering import MeteredAnswer
from ccd_gateway.access.permission import may_run
from ccd_gateway.answer.backend import Backend
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatParams, ChatResult, Message

_TOKEN_PREFIX = b'{"type":"stream_event"'


class _State(msgspec.Struct):
    model: str = ""
    total_cost_usd: float = 0.0


class _TurnLine(msgspec.Struct):
    type: str = ""
    state: _State | None = None
    usage: dict[str, Any] | None = None
    total_cost_usd: float | None = None


_decode = msgspec.json.Decoder(_TurnLine).decode


class Metered:
    """The turns that one client asks for.

    Args:
        backend: admits and books.
        caller: who asks.

    Attributes:
        model: what the session uses, as far as is known; `""` is the default one.
    """

    def __init__(self, backend: Backend, caller: Caller) -> None:
        self.model = ""
        self._backend = backend
        self._caller = caller
        self._run: MeteredAnswer | None = None
        self._refused = False
        self._checked_model: str | None = None
        self._cost_usd = 0.0  # of the session, at its last result

    @property
    def running(self) -> bool:
        """Whether a turn is still to be booked."""
        return self._run is not None

    async def begin(self, content: str | list[dict[str, Any]]) -> None:
        """A message is about to be sent.

        Raises:
            RpcError: UPSTREAM_LIMIT or BUDGET, the key does not allow another turn.
        """
        if self._caller.key is not None and self._run is None:
            message = Message(role="user", content=content)
            self._refused = False
            params = ChatParams(messages=[message], model=self.model)
            self._run = await self._backend.admit(self._caller, params)

    async def saw(self, line: bytes) -> RpcError | None:
        """A line has come; a failure when the turn is to be ended: the budget is used up, or the model is another."""
        if self._caller.key is None:
            return None
        if not line.startswith(_TOKEN_PREFIX):
            await self._look_at(line)
        if self._run is None or self._refused:
            return None
        try:
            await self._check_model()
            self._run.saw(line)
        except RpcError as error:
            self._refused = True
            return error
        return None

    async def _check_model(self) -> None:
        """A turn says with which model it begins, shortly before that is asked; another client may have chosen it."""
        key = self._caller.key
        if key is None or not key.bound_to_models or self.model == self._checked_model:
            return
        known = await self._backend.known()
        if not may_run(key, known, self.model):
            raise RpcError(Code.MODEL_NOT_FOUND, f"This API key may not use the model {self.model[:200]!r}.")
        self._checked_model = self.model

    async def _look_at(self, line: bytes) -> None:
        try:
            found = _decode(line)
        except msgspec.DecodeError:  # a line of another kind, in which these names mean something else
            return
        if found.state is not None:
            self.model = found.state.model or self.model
            self._cost_usd = max(self._cost_usd, found.state.total_cost_usd)
        if found.type != "result":
            return
        before, self._cost_usd = self._cost_usd, found.total_cost_usd or self._cost_usd
        run, self._run = self._run, None
        if run is not None:
            await run.end(self._result(found, max(0.0, self._cost_usd - before)))

    def _result(self, line: _TurnLine, cost_usd: float) -> ChatResult:
        return ChatResult(
            stop_reason=None,
            stop_sequence=None,
            model=self.model,
            usage=line.usage or {},  # type: ignore[typeddict-item]
            cost_usd=cost_usd,
            duration_ms=0,
            api_calls=1,
            worker="",
            mode="session",
            ignored=[],
        )

    def cut(self, *, asked: bool = True) -> None:
        """Nothing more will come: book what has passed; not `asked`: nothing was sent at all."""
        run, self._run = self._run, None
        if run is not None:
            run.cut(asked=asked)
