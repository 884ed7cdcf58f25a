"""The one table of CCDP error codes: number, name, HTTP status, and whether trying again can help.

Every failure that crosses the socket is one of these. The daemon turns its internal errors into a code in one
place, the gateway turns a code into an HTTP answer, and the clients raise `RpcError` with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar, NamedTuple, Self, cast


class Code(IntEnum):
    """A failure's number on the wire (element 2 of FAIL and GOAWAY)."""

    PROTOCOL = 1
    VERSION = 2
    TOO_LARGE = 3
    DENIED_PEER = 4
    NO_METHOD = 20
    BAD_PARAMS = 21
    NOT_FOUND = 22
    CONFLICT = 23
    FORBIDDEN = 24
    CANCELLED = 25
    DEADLINE = 26
    BUSY = 40
    DRAINING = 41
    WORKER_CRASHED = 60
    WORKER_OOM = 61
    WORKER_STUCK = 62
    WORKER_SPAWN = 63
    UPSTREAM_AUTH = 64
    UPSTREAM_LIMIT = 65
    UPSTREAM_ERROR = 66
    UPSTREAM_OVERLOADED = 67
    MODEL_NOT_FOUND = 68
    CONTEXT_TOO_LONG = 69
    BUDGET = 70
    INTERNAL = 80
    STORAGE = 81
    LOST = 90


class Meaning(NamedTuple):
    """What a code means to a caller."""

    http_status: int
    retryable: bool  # the same call, sent again later, may succeed
    summary: str


MEANINGS: Mapping[Code, Meaning] = {
    Code.PROTOCOL: Meaning(502, False, "the peer broke the wire protocol"),
    Code.VERSION: Meaning(502, False, "the peers speak different protocol versions"),
    Code.TOO_LARGE: Meaning(413, False, "a frame is larger than the receiver accepts"),
    Code.DENIED_PEER: Meaning(403, False, "this user may not use the socket"),
    Code.NO_METHOD: Meaning(404, False, "the method does not exist"),
    Code.BAD_PARAMS: Meaning(400, False, "a parameter is missing, wrong or not supported"),
    Code.NOT_FOUND: Meaning(404, False, "no such object"),
    Code.CONFLICT: Meaning(409, False, "the object is in a state that does not allow this"),
    Code.FORBIDDEN: Meaning(403, False, "the caller may not do this"),
    Code.CANCELLED: Meaning(499, False, "the caller cancelled the call"),
    Code.DEADLINE: Meaning(504, True, "the deadline passed"),
    Code.BUSY: Meaning(429, True, "every worker is busy and the queue is full"),
    Code.DRAINING: Meaning(503, True, "the daemon is shutting down"),
    Code.WORKER_CRASHED: Meaning(502, True, "the CLI process ended in the middle of the call"),
    Code.WORKER_OOM: Meaning(502, False, "the CLI process passed its memory limit and was killed"),
    Code.WORKER_STUCK: Meaning(504, False, "the CLI process stopped answering and was killed"),
    Code.WORKER_SPAWN: Meaning(503, True, "no CLI process can be started"),
    Code.UPSTREAM_AUTH: Meaning(401, False, "the CLI is not logged in, or its login was refused"),
    Code.UPSTREAM_LIMIT: Meaning(429, True, "the model API's rate limit is reached"),
    Code.UPSTREAM_ERROR: Meaning(502, True, "the model API failed"),
    Code.UPSTREAM_OVERLOADED: Meaning(503, True, "the model API is overloaded"),
    Code.MODEL_NOT_FOUND: Meaning(404, False, "the model does not exist"),
    Code.CONTEXT_TOO_LONG: Meaning(400, False, "the prompt is longer than the model's context"),
    Code.BUDGET: Meaning(429, False, "the budget is used up"),
    Code.INTERNAL: Meaning(500, False, "a fault of the daemon's own"),
    Code.STORAGE: Meaning(507, False, "the daemon cannot store data"),
    Code.LOST: Meaning(503, True, "the connection was lost before the answer was complete"),
}


class RpcError(Exception):
    """A call that failed, with the code that says how. Made for a code that has its own class, it is of that.

    Attributes:
        code: what went wrong; `MEANINGS[code]` says what that means.
        message: one sentence for a human, saying what to do where that is known.
        data: details, or an empty mapping. Known keys: `retry_after_ms`, `param`, `exit_status`, `stderr_tail`,
            `upstream_status`, `upstream_type` and `upstream_message` (what the model API said), `output_started`.
    """

    codes: ClassVar[tuple[Code, ...]] = ()
    _meant: ClassVar[dict[int, type[RpcError]]] = {}

    def __init_subclass__(cls) -> None:
        cls._meant.update(dict.fromkeys(cls.codes, cls))

    def __new__(cls, code: Code | int, *_: Any, **__: Any) -> Self:
        """The class that is meant by the code, unless a class was named."""
        meant: type[Any] = cls._meant.get(code, RpcError) if cls is RpcError else cls
        return cast(Self, super().__new__(meant))

    def __init__(self, code: Code | int, message: str = "", data: Mapping[str, Any] | None = None) -> None:
        self.code = known(code)
        self.message = message or MEANINGS[self.code].summary
        self.data: Mapping[str, Any] = data or {}
        super().__init__(f"{self.code.name}: {self.message}")

    def __reduce__(self) -> tuple[Any, ...]:
        return RpcError, (self.code, self.message, dict(self.data))

    @property
    def retry_after_ms(self) -> int | None:
        """How long to wait before trying again, in milliseconds, where the daemon knows."""
        value = self.data.get("retry_after_ms")
        return value if isinstance(value, int) else None

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later; never after output was sent."""
        return MEANINGS[self.code].retryable and not self.data.get("output_started")


class InvalidRequest(RpcError):
    """What was asked is wrong, too large, or unknown here."""

    codes: ClassVar[tuple[Code, ...]] = (Code.BAD_PARAMS, Code.NO_METHOD, Code.TOO_LARGE)


class ContextTooLong(InvalidRequest):
    """The prompt is longer than the model's context."""

    codes: ClassVar[tuple[Code, ...]] = (Code.CONTEXT_TOO_LONG,)


class NotFound(RpcError):
    """There is no such conversation, session or task."""

    codes: ClassVar[tuple[Code, ...]] = (Code.NOT_FOUND,)


class ModelNotFound(NotFound):
    """There is no such model."""

    codes: ClassVar[tuple[Code, ...]] = (Code.MODEL_NOT_FOUND,)


class Conflict(RpcError):
    """The object is in a state that does not allow this."""

    codes: ClassVar[tuple[Code, ...]] = (Code.CONFLICT,)


class Forbidden(RpcError):
    """The caller may not do this."""

    codes: ClassVar[tuple[Code, ...]] = (Code.FORBIDDEN, Code.DENIED_PEER)


class NotLoggedIn(RpcError):
    """The CLI is not logged in, or its login was refused."""

    codes: ClassVar[tuple[Code, ...]] = (Code.UPSTREAM_AUTH,)


class Busy(RpcError):
    """Too much is going on, here or at the model API: try again after `retry_after_ms`."""

    codes: ClassVar[tuple[Code, ...]] = (Code.BUSY, Code.UPSTREAM_OVERLOADED)


class RateLimited(Busy):
    """The model API's rate limit is reached."""

    codes: ClassVar[tuple[Code, ...]] = (Code.UPSTREAM_LIMIT,)


class BudgetExceeded(RpcError):
    """The budget is used up."""

    codes: ClassVar[tuple[Code, ...]] = (Code.BUDGET,)


class TimedOut(RpcError):
    """The deadline passed, or the CLI stopped answering."""

    codes: ClassVar[tuple[Code, ...]] = (Code.DEADLINE, Code.WORKER_STUCK)


class Unavailable(RpcError):
    """There is no daemon, or it is shutting down, or it cannot start a CLI process."""

    codes: ClassVar[tuple[Code, ...]] = (Code.LOST, Code.DRAINING, Code.WORKER_SPAWN)


class Failed(RpcError):
    """The CLI process or the model API failed."""

    codes: ClassVar[tuple[Code, ...]] = (Code.WORKER_CRASHED, Code.WORKER_OOM, Code.UPSTREAM_ERROR)


def known(code: int) -> Code:
    """Returns the code for a number off the wire; numbers of a later minor version count as INTERNAL."""
    try:
        return Code(code)
    except ValueError:
        return Code.INTERNAL
