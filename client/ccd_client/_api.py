"""The typed convenience that all clients offer, written once over `call` and `stream`.

Blocking and asynchronous code cannot share a body, so there are two classes; everything that decides anything
is a function or class that both use.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, Unpack, cast, overload

from ccd_client._core import DEFAULT_WINDOW_BYTES, Handlers
from ccd_client.events import Answer, Decoder, Event, whole_answer
from ccd_client.messages import chat_params
from ccd_protocol.methods import (
    ChatParams,
    HealthResult,
    ModelsResult,
    PingResult,
    StatusResult,
    WorkersResult,
)

Messages: TypeAlias = str | Sequence[Mapping[str, Any]]


class ChatOptions(TypedDict, total=False):
    """Options of `chat`. What is absent or None is left to the profile and the model.

    Attributes:
        model: alias or full name; `profile/model` names both.
        profile: a profile of the daemon's settings.
        system: stands before the system messages of the list.
        stop: a stop sequence or several.
        timeout_s: the whole call's deadline in seconds; None is the client's default.
    """

    model: str | None
    profile: str | None
    system: str | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    stop: str | Sequence[str] | None
    metadata: Mapping[str, Any] | None
    timeout_s: float | None


def chat_request(
    messages: Messages,
    *,
    model: str | None = None,
    profile: str | None = None,
    system: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    stop: str | Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    timeout_s: float | None = None,
) -> tuple[ChatParams, float | None]:
    params = chat_params(
        messages,
        system=system,
        stop=stop,
        model=model,
        profile=profile,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        metadata=metadata,
    )
    return params, timeout_s


class _Payloads(Protocol):
    """What a chat needs of any client's stream."""

    @property
    def result(self) -> Any: ...

    def cancel(self, reason: str = ...) -> None: ...


class _Chat:
    """What is the same in both kinds of chat iterator."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._decoder = Decoder()
        self._events: deque[Event] = deque()

    @property
    def result(self) -> Mapping[str, Any]:
        """`ChatResult`, once the iteration has ended."""
        return cast("Mapping[str, Any]", cast(_Payloads, self._stream).result)

    @property
    def answer(self) -> Answer:
        """The whole answer, once the iteration has ended."""
        return self._decoder.answer(self.result)

    def cancel(self, reason: str = "the caller cancelled") -> None:
        """Stop the turn; the connection stays usable."""
        cast(_Payloads, self._stream).cancel(reason)


class Chat(_Chat, Iterator[Event]):
    """An answer while it comes: iterate for events. Leaving the `with` block early cancels the turn."""

    def __next__(self) -> Event:
        while not self._events:
            self._events.extend(self._decoder.feed(next(self._stream)))
        return self._events.popleft()

    def close(self) -> None:
        """Cancel the turn unless it has ended."""
        self._stream.close()

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncChat(_Chat, AsyncIterator[Event]):
    """An answer while it comes: iterate for events. Leaving the `async with` block early cancels the turn."""

    async def __anext__(self) -> Event:
        while not self._events:
            self._events.extend(self._decoder.feed(await self._stream.__anext__()))
        return self._events.popleft()

    async def close(self) -> None:
        """Cancel the turn unless it has ended."""
        await self._stream.close()

    async def __aenter__(self) -> AsyncChat:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class BlockingApi(ABC):
    """Typed calls of the blocking client. Every one raises `RpcError`."""

    @abstractmethod
    def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> Any:
        """Call a method that answers once."""

    @abstractmethod
    def stream(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        handlers: Handlers | None = None,
    ) -> Any:
        """Call a method that sends payloads before it answers."""

    def ping(self) -> PingResult:
        """Ask whether the daemon is there."""
        return cast(PingResult, self.call("daemon.ping"))

    def health(self) -> HealthResult:
        """Ask whether a chat sent now would be accepted."""
        return cast(HealthResult, self.call("daemon.health"))

    def models(self) -> ModelsResult:
        """List the models and profiles that can be asked for."""
        return cast(ModelsResult, self.call("model.list"))

    def status(self) -> StatusResult:
        """Ask for the daemon's state and counters; for its owner and administrators."""
        return cast(StatusResult, self.call("admin.status"))

    def workers(self) -> WorkersResult:
        """List the CLI processes; for the daemon's owner and administrators."""
        return cast(WorkersResult, self.call("admin.workers"))

    @overload
    def chat(
        self, messages: Messages, *, stream: Literal[False] = False, **options: Unpack[ChatOptions]
    ) -> Answer: ...
    @overload
    def chat(self, messages: Messages, *, stream: Literal[True], **options: Unpack[ChatOptions]) -> Chat: ...
    def chat(
        self, messages: Messages, *, stream: bool = False, **options: Unpack[ChatOptions]
    ) -> Answer | Chat:
        """Ask the model; `messages` is a prompt or an OpenAI-style list. With `stream`, iterate events."""
        params, timeout_s = chat_request(messages, **options)
        if stream:
            return Chat(self.stream("chat.stream", cast("dict[str, Any]", params), timeout_s=timeout_s))
        return whole_answer(self.call("chat.complete", cast("dict[str, Any]", params), timeout_s=timeout_s))


class AsyncApi(ABC):
    """Typed calls of the asynchronous clients. Every one raises `RpcError`."""

    @abstractmethod
    async def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> Any:
        """Call a method that answers once."""

    @abstractmethod
    def stream(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        handlers: Handlers | None = None,
    ) -> Any:
        """Call a method that sends payloads before it answers."""

    async def ping(self) -> PingResult:
        """Ask whether the daemon is there."""
        return cast(PingResult, await self.call("daemon.ping"))

    async def health(self) -> HealthResult:
        """Ask whether a chat sent now would be accepted."""
        return cast(HealthResult, await self.call("daemon.health"))

    async def models(self) -> ModelsResult:
        """List the models and profiles that can be asked for."""
        return cast(ModelsResult, await self.call("model.list"))

    async def status(self) -> StatusResult:
        """Ask for the daemon's state and counters; for its owner and administrators."""
        return cast(StatusResult, await self.call("admin.status"))

    async def workers(self) -> WorkersResult:
        """List the CLI processes; for the daemon's owner and administrators."""
        return cast(WorkersResult, await self.call("admin.workers"))

    @overload
    async def chat(
        self, messages: Messages, *, stream: Literal[False] = False, **options: Unpack[ChatOptions]
    ) -> Answer: ...
    @overload
    async def chat(
        self, messages: Messages, *, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> AsyncChat: ...
    async def chat(
        self, messages: Messages, *, stream: bool = False, **options: Unpack[ChatOptions]
    ) -> Answer | AsyncChat:
        """Ask the model; `messages` is a prompt or an OpenAI-style list. With `stream`, iterate events."""
        params, timeout_s = chat_request(messages, **options)
        wire = cast("dict[str, Any]", params)
        if stream:
            return AsyncChat(await self.stream("chat.stream", wire, timeout_s=timeout_s))
        return whole_answer(await self.call("chat.complete", wire, timeout_s=timeout_s))
