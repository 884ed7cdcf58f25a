"""One description of a call for blocking and asynchronous clients alike.

A description is a method that says what to send: `@sends def ping(self) -> Sending[PingResult]`. On a blocking client
`ping()` returns the result, on an asynchronous one it is a coroutine function that does.
"""

from __future__ import annotations

import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from ccd_protocol.errors import Code, RpcError

R = TypeVar("R")
P = ParamSpec("P")
MAX_PAUSE_S = 60.0  # who is to come back later than that is told so
_PAUSE_S = 0.2
_REFUSED = (Code.BUSY, Code.DRAINING)


class Sending(Generic[R]):
    """A call that is ready to be sent.

    Args:
        method: its name on the wire.
        params: its parameters.
        shape: makes the result of what the daemon answers.
        timeout_s: its deadline; None is the client's default.
        once: it does something, so it is sent again only when it was certainly refused.
    """

    __slots__ = ("method", "once", "params", "shape", "timeout_s")

    def __init__(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        shape: Callable[[Any], R] = lambda answer: answer,
        timeout_s: float | None = None,
        once: bool = False,
    ) -> None:
        self.method = method
        self.once = once
        self.params = params
        self.shape = shape
        self.timeout_s = timeout_s


class Blocking(ABC):
    """Whoever sends and waits."""

    retries = 0

    @abstractmethod
    def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> Any:
        """Call a method that answers once."""

    def send_typed(self, sending: Sending[R]) -> R:
        """Returns what comes of a call, tried again as often as `retries` says.

        Raises:
            RpcError: of the last attempt.
        """
        for left in range(self.retries, -1, -1):
            try:
                return sending.shape(self.call(sending.method, sending.params, timeout_s=sending.timeout_s))
            except RpcError as error:
                time.sleep(pause_s(error, left, sending.once))
        raise AssertionError


class Waiting(ABC):
    """Whoever sends and lets others run meanwhile."""

    retries = 0

    @abstractmethod
    async def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> Any:
        """Call a method that answers once."""

    @abstractmethod
    async def sleep(self, pause_s: float) -> None:
        """Let others run for a while."""

    async def send_typed(self, sending: Sending[R]) -> R:
        """Returns what comes of a call, tried again as often as `retries` says.

        Raises:
            RpcError: of the last attempt.
        """
        for left in range(self.retries, -1, -1):
            try:
                return sending.shape(
                    await self.call(sending.method, sending.params, timeout_s=sending.timeout_s)
                )
            except RpcError as error:
                await self.sleep(pause_s(error, left, sending.once))
        raise AssertionError


def pause_s(error: RpcError, left: int, once: bool = False) -> float:
    """How long to wait before a call that failed is sent again, `left` times at most.

    Raises:
        RpcError: the error itself, when it is not to be sent again.
    """
    wait_s = (error.retry_after_ms or 0) / 1000 or _PAUSE_S
    again = error.retryable and error.code is not Code.DEADLINE  # the time that the caller allowed is over
    if not left or not again or wait_s > MAX_PAUSE_S or (once and error.code not in _REFUSED):
        raise error
    return wait_s


class sends(Generic[P, R]):
    """Makes a method of both kinds of client of a description."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Sending[R]]) -> None:
        @functools.wraps(describe)
        def blocking(self: Any, *args: P.args, **kwargs: P.kwargs) -> R:
            sent: R = self.send_typed(describe(self, *args, **kwargs))
            return sent

        @functools.wraps(describe)
        async def waiting(self: Any, *args: P.args, **kwargs: P.kwargs) -> R:
            sent: R = await self.send_typed(describe(self, *args, **kwargs))
            return sent

        # What `help` shows is what a call returns, and not how it is described.
        returns: str = describe.__annotations__["return"]
        describe.__annotations__["return"] = returns.removeprefix("Sending[").removesuffix("]")
        self._blocking, self._waiting = blocking, waiting
        self.__doc__ = describe.__doc__

    @overload
    def __get__(self, instance: Blocking, owner: Any = None) -> Callable[P, R]: ...
    @overload
    def __get__(self, instance: Waiting, owner: Any = None) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(self, instance: None, owner: Any = None) -> Callable[..., Any]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        function: Any = self._waiting if issubclass(owner, Waiting) else self._blocking
        return function.__get__(instance, owner)
