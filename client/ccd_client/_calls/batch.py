"""Many chats at a time, a bounded number of them in progress: what the blocking and asynchronous clients share.

Workers, as many as may be in progress, take one prompt after another. A prompt that fails is a result like any other;
only what is wrong with the caller's own code ends the whole batch, and then cancels what is in progress.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, Protocol, TypeAlias

from ccd_client._calls.sending import Blocking, Sending
from ccd_client.events import Answer, whole_answer
from ccd_protocol.errors import RpcError

METHOD = "chat.complete"
_STOPPED = "the batch was stopped"


class BatchItem(NamedTuple):
    """What became of one prompt of a batch: an answer or an error."""

    number: int  # which prompt, from 0
    answer: Answer | None
    error: RpcError | None


Progress: TypeAlias = Callable[[int, int, BatchItem], object]


class Request(Protocol):
    """One chat, ready to be called."""

    @property
    def params(self) -> dict[str, Any]: ...
    @property
    def timeout_s(self) -> float | None: ...
    def told(self, result: Mapping[str, Any]) -> Mapping[str, Any]: ...


class Batch:
    """The prompts, and what became of them so far. Its methods may be called from any thread."""

    def __init__(
        self, prompts: Iterable[Any], make: Callable[[Any], Request], progress: Progress | None
    ) -> None:
        self._prompts = list(prompts)
        self._make = make
        self._progress = progress
        self._items: list[BatchItem | None] = [None] * len(self._prompts)
        self._left = iter(range(len(self._prompts)))
        self._done = 0
        self._lock = threading.Lock()
        self.stopped = False

    def __len__(self) -> int:
        return len(self._prompts)

    @property
    def items(self) -> list[BatchItem]:
        """The results so far, in the order of the prompts."""
        return [item for item in self._items if item is not None]

    def take(self) -> int | None:
        """The next prompt's number; None when there is none left to begin."""
        return None if self.stopped else next(self._left, None)

    def request(self, index: int) -> Request:
        """The call for a prompt.

        Raises:
            RpcError: BAD_PARAMS, when it cannot be asked.
        """
        return self._make(self._prompts[index])

    def answered(self, index: int, request: Request, result: Any) -> None:
        """Note an answer, and tell the progress."""
        self._settle(BatchItem(index, whole_answer(request.told(result)), None))

    def failed(self, index: int, error: RpcError) -> None:
        """Note a failure, and tell the progress."""
        self._settle(BatchItem(index, None, error))

    def _settle(self, item: BatchItem) -> None:
        with self._lock:
            self._items[item.number] = item
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, len(self._prompts), item)


def run_in_threads(client: Any, batch: Batch, concurrency: int) -> list[BatchItem]:
    """Answer a batch with a blocking client; an exception (Ctrl-C) cancels what is in progress."""
    asking = _Stoppable(client, batch)

    def work() -> None:
        while (index := batch.take()) is not None:
            try:
                request = batch.request(index)
                result = asking.send_typed(Sending[Any](METHOD, request.params, timeout_s=request.timeout_s))
            except RpcError as error:
                if not batch.stopped:
                    batch.failed(index, error)
            else:
                batch.answered(index, request, result)

    with ThreadPoolExecutor(_workers(batch, concurrency)) as threads:
        futures = [threads.submit(work) for _ in range(_workers(batch, concurrency))]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        except BaseException:
            batch.stopped = True
            asking.cancel()
            raise
    return batch.items


class _Stoppable(Blocking):
    """Calls of a batch. Each is called as a stream, because that can be cancelled from another thread."""

    def __init__(self, client: Any, batch: Batch) -> None:
        self._client = client
        self._batch = batch
        self._open: set[Any] = set()
        self.retries = client.retries

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> Any:
        stream = self._client.call_stream(method, params, timeout_s=timeout_s)
        self._open.add(stream)
        try:
            if self._batch.stopped:
                stream.cancel(_STOPPED)
            for _ in stream:
                pass
        finally:
            self._open.discard(stream)
        return stream.result

    def cancel(self) -> None:
        """Cancel what is in progress."""
        for stream in list(self._open):
            stream.cancel(_STOPPED)


def async_workers(client: Any, batch: Batch, concurrency: int) -> list[Callable[[], Any]]:
    """Coroutine functions that answer a batch together; the client's framework runs them."""

    async def work() -> None:
        while (index := batch.take()) is not None:
            try:
                request = batch.request(index)
                result = await client.send_typed(Sending(METHOD, request.params, timeout_s=request.timeout_s))
            except RpcError as error:
                batch.failed(index, error)
            else:
                batch.answered(index, request, result)

    return [work] * _workers(batch, concurrency)


def _workers(batch: Batch, concurrency: int) -> int:
    if concurrency < 1:
        raise ValueError("concurrency must be at least 1")
    return max(1, min(concurrency, len(batch)))
