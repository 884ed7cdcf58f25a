"""The typed convenience that all clients offer, written once over `call` and `stream`.

Blocking and asynchronous code cannot share a body, so there are two classes; everything that decides anything
is a function or class that both use.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypedDict, Unpack, cast, overload

from ccd_client._batch import Batch, BatchItem, Progress, async_workers, run_in_threads
from ccd_client._core import DEFAULT_WINDOW_BYTES, Handlers
from ccd_client.events import Answer, Decoder, Event, whole_answer
from ccd_client.messages import chat_request
from ccd_protocol.methods import HealthResult, ModelsResult, PingResult, StatusResult, WorkersResult

Messages: TypeAlias = str | Sequence[Mapping[str, Any]]
Prompt: TypeAlias = Messages | Mapping[str, Any]


class ChatOptions(TypedDict, total=False):
    """Options of `chat`. What is absent or None is left to the profile and the model.

    Attributes:
        model: alias or full name; `profile/model` names both.
        profile: a profile of the daemon's settings.
        system: stands before the system messages of the list.
        stop: a stop sequence or several.
        tools: OpenAI's function tools; the caller runs what the model calls (`Answer.tool_calls`).
        tool_choice: none, auto, required, or a named function, as OpenAI's.
        parallel_tool_calls: False allows one call per answer.
        response_format: OpenAI's: json_object, or json_schema with the schema that the answer must fit.
        effort: how much to think: none, minimal, low, medium, high, xhigh or max.
        reasoning_effort: OpenAI's name for `effort`.
        thinking: the Messages API's own field, instead of an effort.
        fallback_model: asked when the model is overloaded or does not exist.
        strict: fail instead of ignoring a parameter (`Answer.ignored` names them otherwise).
        extra: further parameters of `ccd_protocol.methods.ChatParams`, as they are.
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
    service_tier: str | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool | None
    response_format: Mapping[str, Any] | None
    effort: str | None
    reasoning_effort: str | None
    thinking: Mapping[str, Any] | None
    fallback_model: str | None
    strict: bool | None
    extra: Mapping[str, Any] | None
    timeout_s: float | None


_OPTIONS = frozenset(ChatOptions.__annotations__)


class _Request(NamedTuple):
    """One chat, ready to be called."""

    params: dict[str, Any]
    timeout_s: float | None
    ignored: list[str]

    def told(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        """The daemon's result, with what was left out here."""
        if not self.ignored:
            return result
        return {**result, "ignored": [*(result.get("ignored") or ()), *self.ignored]}


def request_of(messages: Messages, options: ChatOptions) -> _Request:
    """Parameters of a chat call.

    Raises:
        RpcError: BAD_PARAMS naming what is wrong.
        TypeError: there is no such option.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    unknown = sorted(given.keys() - _OPTIONS)
    if unknown:
        raise TypeError(f"chat() has no option {unknown[0]!r}; further wire parameters go into extra={{…}}")
    timeout_s, extra = given.pop("timeout_s", None), given.pop("extra", {})
    if "reasoning_effort" in given:
        given.setdefault("effort", given.pop("reasoning_effort"))
        given.pop("reasoning_effort", None)
    params, ignored = chat_request(messages, **given)
    return _Request({**params, **extra}, timeout_s, ignored)


def _batch(prompts: Iterable[Prompt], options: ChatOptions, progress: Progress | None) -> Batch:
    return Batch(prompts, lambda prompt: _request_of_prompt(prompt, options), progress)


def _request_of_prompt(prompt: Prompt, options: ChatOptions) -> _Request:
    if not isinstance(prompt, Mapping):
        return request_of(prompt, options)
    own = dict(prompt)
    return request_of(own.pop("messages", None), cast(ChatOptions, {**options, **own}))


class _Payloads(Protocol):
    """What a chat needs of any client's stream."""

    @property
    def result(self) -> Any: ...

    def cancel(self, reason: str = ...) -> None: ...


class _Chat:
    """What is the same in both kinds of chat iterator."""

    def __init__(self, stream: Any, request: _Request) -> None:
        self._stream = stream
        self._request = request
        self._decoder = Decoder()
        self._events: deque[Event] = deque()

    @property
    def result(self) -> Mapping[str, Any]:
        """`ChatResult`, once the iteration has ended."""
        return self._request.told(cast(_Payloads, self._stream).result)

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
        request = request_of(messages, options)
        if stream:
            return Chat(self.stream("chat.stream", request.params, timeout_s=request.timeout_s), request)
        return whole_answer(
            request.told(self.call("chat.complete", request.params, timeout_s=request.timeout_s))
        )

    def batch(
        self,
        prompts: Iterable[Prompt],
        *,
        concurrency: int = 4,
        progress: Progress | None = None,
        **options: Unpack[ChatOptions],
    ) -> list[BatchItem]:
        """Ask for many answers, `concurrency` of them at a time; the results are in the order of the prompts.

        A prompt that fails is a result with an error and does not stop the others.

        Args:
            prompts: prompts or message lists, or mappings with `messages` and options of their own.
            concurrency: how many are in progress at a time.
            progress: called as (done, total, item) when one is done, in some thread, one call at a time.
            **options: of `chat`, for all.
        """
        return run_in_threads(self, _batch(prompts, options, progress), concurrency)


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
        request = request_of(messages, options)
        if stream:
            opened = await self.stream("chat.stream", request.params, timeout_s=request.timeout_s)
            return AsyncChat(opened, request)
        return whole_answer(
            request.told(await self.call("chat.complete", request.params, timeout_s=request.timeout_s))
        )

    async def batch(
        self,
        prompts: Iterable[Prompt],
        *,
        concurrency: int = 4,
        progress: Progress | None = None,
        **options: Unpack[ChatOptions],
    ) -> list[BatchItem]:
        """Ask for many answers, `concurrency` of them at a time; the results are in the order of the prompts.

        A prompt that fails is a result with an error and does not stop the others.

        Args:
            prompts: prompts or message lists, or mappings with `messages` and options of their own.
            concurrency: how many are in progress at a time.
            progress: called as (done, total, item) when one is done.
            **options: of `chat`, for all.
        """
        batch = _batch(prompts, options, progress)
        await self._together(async_workers(self, batch, concurrency))
        return batch.items

    @abstractmethod
    async def _together(self, work: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> None:
        """Run coroutine functions side by side; the first exception cancels the others and is raised."""
