"""The two kinds of client: what blocking and asynchronous code cannot share, which is little.

What both can be asked is described once in `catalogue`. Here is what is iterated, what opens a further object, and what
runs many calls side by side.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, Unpack, cast, overload

from ccd_client._calls.batch import BatchItem, Progress, async_workers, run_in_threads
from ccd_client._calls.catalogue import ConversationCalls, DaemonCalls, SessionCalls, asking, opening
from ccd_client._calls.chat import AsyncChat, Chat, events_of, texts_of
from ccd_client._calls.options import OPTIONS_HELP, ChatOptions, Messages, Prompt, batch_of, request_of
from ccd_client._calls.sending import Blocking, Sending, Waiting
from ccd_client._core import DEFAULT_WINDOW_BYTES, Handlers
from ccd_client.events import Answer, Event, lines_of

T = TypeVar("T")


class BlockingApi(DaemonCalls, Blocking):
    """Typed calls of the blocking client. Every one raises `RpcError`."""

    @abstractmethod
    def call_stream(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        handlers: Handlers | None = None,
    ) -> Any:
        """Call a method that sends payloads before it answers."""

    @overload
    def chat(
        self, messages: Messages, *, stream: Literal[False] = False, **options: Unpack[ChatOptions]
    ) -> Answer: ...
    @overload
    def chat(
        self, messages: Messages, *, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> Chat[Event]: ...
    def chat(
        self, messages: Messages, *, stream: bool = False, **options: Unpack[ChatOptions]
    ) -> Answer | Chat[Event]:
        """Ask the model; `messages` is a prompt or an OpenAI-style list. With `stream`, iterate events."""
        if stream:
            return self._chat(messages, options, events_of)
        return self.send_typed(asking(messages, options))

    @overload
    def stream(self, messages: Messages, **options: Unpack[ChatOptions]) -> Chat[str]: ...
    @overload
    def stream(self, messages: str, params: Mapping[str, Any], **options: Any) -> Any: ...
    def stream(self, messages: Any, params: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Ask the model and iterate the text of its answer while it comes; then `.answer` is the whole.

        With `params`, `messages` is the name of a method: `call_stream`.
        """
        if params is not None:
            return self.call_stream(messages, params, **options)
        return self._chat(messages, cast(ChatOptions, options), texts_of)

    def parse(self, messages: Messages, kind: type[T], **options: Unpack[ChatOptions]) -> T:
        """Ask for a value of a type: a dataclass, a TypedDict, or what lists, unions and literals make of such.

        Raises:
            RpcError: UPSTREAM_ERROR, the answer is no such value; `data["text"]` is what it was.
            TypeError: the type has a part that JSON cannot say.
        """
        from ccd_client._calls.parsing import parsing  # noqa: PLC0415 - few need it

        return self.send_typed(parsing(messages, kind, options))

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
        return run_in_threads(self, batch_of(prompts, options, progress), concurrency)

    def conversation(self, conversation_id: str) -> ConversationClient:
        """The conversation of that name, which need not exist yet."""
        return ConversationClient(self, conversation_id)

    def session(self, session_id: str) -> SessionClient:
        """The session of that id."""
        return SessionClient(self, session_id)

    def open_session(
        self,
        *,
        model: str | None = None,
        cwd: str | None = None,
        permission_mode: str | None = None,
        allowed_tools: Sequence[str] | None = None,
    ) -> SessionClient:
        """Open a session, an agent with a CLI process of its own; see `SessionOpenParams`."""
        params = opening(model, cwd, permission_mode, allowed_tools)
        opened = self.send_typed(Sending[Any]("session.open", params, once=True))
        return SessionClient(self, opened["session_id"])

    def _chat(self, messages: Messages, options: ChatOptions, select: Any, **fixed: Any) -> Chat[Any]:
        request = request_of(messages, options)
        params = {**request.params, **fixed}
        return Chat(
            lambda: self.call_stream("chat.stream", params, timeout_s=request.timeout_s),
            request,
            select,
            self.retries,
        )


class _OfClient:
    """One object of the daemon's, by the client that knows it."""

    def __init__(self, client: Any, id: str) -> None:
        self._client = client
        self.id = id
        self.retries = client.retries

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call a method that answers once."""
        return self._client.call(*args, **kwargs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"


class ConversationClient(ConversationCalls, _OfClient, Blocking):
    """One conversation: messages that ccd keeps under a name."""

    def stream(self, messages: Messages, **options: Unpack[ChatOptions]) -> Chat[str]:
        """Ask, and iterate the text of the answer while it comes."""
        chat: Chat[str] = self._client._chat(messages, options, texts_of, conversation_id=self.id)
        return chat


class SessionClient(SessionCalls, _OfClient, Blocking):
    """One session: an agent with a CLI process of its own."""

    def attach(self) -> Iterator[dict[str, Any]]:
        """Follow it: its state, its past, then its CLI's lines as they come, until it ends; close to stop."""
        with self._client.call_stream("session.attach", {"session_id": self.id}) as stream:
            rest = b""
            for payload in stream:
                lines, rest = lines_of(rest + payload)
                yield from lines


class AsyncApi(DaemonCalls, Waiting):
    """Typed calls of the asynchronous clients. Every one raises `RpcError`."""

    @abstractmethod
    def call_stream(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        handlers: Handlers | None = None,
    ) -> Any:
        """Call a method that sends payloads before it answers."""

    @overload
    async def chat(
        self, messages: Messages, *, stream: Literal[False] = False, **options: Unpack[ChatOptions]
    ) -> Answer: ...
    @overload
    async def chat(
        self, messages: Messages, *, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> AsyncChat[Event]: ...
    async def chat(
        self, messages: Messages, *, stream: bool = False, **options: Unpack[ChatOptions]
    ) -> Answer | AsyncChat[Event]:
        """Ask the model; `messages` is a prompt or an OpenAI-style list. With `stream`, iterate events."""
        if stream:
            return await self._chat(messages, options, events_of).open()
        return await self.send_typed(asking(messages, options))

    @overload
    def stream(self, messages: Messages, **options: Unpack[ChatOptions]) -> AsyncChat[str]: ...
    @overload
    def stream(self, messages: str, params: Mapping[str, Any], **options: Any) -> Any: ...
    def stream(self, messages: Any, params: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Ask the model and iterate the text of its answer while it comes; then `.answer` is the whole.

        With `params`, `messages` is the name of a method: `call_stream`.
        """
        if params is not None:
            return self.call_stream(messages, params, **options)
        return self._chat(messages, cast(ChatOptions, options), texts_of)

    async def parse(self, messages: Messages, kind: type[T], **options: Unpack[ChatOptions]) -> T:
        """Ask for a value of a type; see `Client.parse`."""
        from ccd_client._calls.parsing import parsing  # noqa: PLC0415 - few need it

        return await self.send_typed(parsing(messages, kind, options))

    async def batch(
        self,
        prompts: Iterable[Prompt],
        *,
        concurrency: int = 4,
        progress: Progress | None = None,
        **options: Unpack[ChatOptions],
    ) -> list[BatchItem]:
        """Ask for many answers; see `Client.batch`. `progress` is called in the loop."""
        batch = batch_of(prompts, options, progress)
        await self._together(async_workers(self, batch, concurrency))
        return batch.items

    def conversation(self, conversation_id: str) -> AsyncConversationClient:
        """The conversation of that name, which need not exist yet."""
        return AsyncConversationClient(self, conversation_id)

    def session(self, session_id: str) -> AsyncSessionClient:
        """The session of that id."""
        return AsyncSessionClient(self, session_id)

    async def open_session(
        self,
        *,
        model: str | None = None,
        cwd: str | None = None,
        permission_mode: str | None = None,
        allowed_tools: Sequence[str] | None = None,
    ) -> AsyncSessionClient:
        """Open a session, an agent with a CLI process of its own; see `SessionOpenParams`."""
        params = opening(model, cwd, permission_mode, allowed_tools)
        opened = await self.send_typed(Sending[Any]("session.open", params, once=True))
        return AsyncSessionClient(self, opened["session_id"])

    def _chat(self, messages: Messages, options: ChatOptions, select: Any, **fixed: Any) -> AsyncChat[Any]:
        request = request_of(messages, options)
        params = {**request.params, **fixed}
        return AsyncChat(
            lambda: self.call_stream("chat.stream", params, timeout_s=request.timeout_s),
            request,
            select,
            self.retries,
            self.sleep,
        )

    @abstractmethod
    async def _together(self, work: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> None:
        """Run coroutine functions side by side; the first exception cancels the others and is raised."""


class _OfAsyncClient(_OfClient):
    async def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call a method that answers once."""
        return await self._client.call(*args, **kwargs)

    async def sleep(self, pause_s: float) -> None:
        """Let others run for a while."""
        await self._client.sleep(pause_s)


class AsyncConversationClient(ConversationCalls, _OfAsyncClient, Waiting):
    """One conversation: messages that ccd keeps under a name."""

    def stream(self, messages: Messages, **options: Unpack[ChatOptions]) -> AsyncChat[str]:
        """Ask, and iterate the text of the answer while it comes."""
        chat: AsyncChat[str] = self._client._chat(messages, options, texts_of, conversation_id=self.id)
        return chat


class AsyncSessionClient(SessionCalls, _OfAsyncClient, Waiting):
    """One session: an agent with a CLI process of its own."""

    async def attach(self) -> AsyncIterator[dict[str, Any]]:
        """Follow it: its state, its past, then its CLI's lines as they come, until it ends; close to stop."""
        async with self._client.call_stream("session.attach", {"session_id": self.id}) as stream:
            rest = b""
            async for payload in stream:
                lines, rest = lines_of(rest + payload)
                for line in lines:
                    yield line


for _method in (BlockingApi.chat, AsyncApi.chat, BlockingApi.stream, AsyncApi.stream):
    _method.__doc__ = f"{_method.__doc__}\n\n{OPTIONS_HELP}"
