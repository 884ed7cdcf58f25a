"""Clients for the ccd daemon: `Client` (blocking), `AsyncClient` (asyncio) and `TrioClient`.

The asynchronous ones are imported when they are asked for; `TrioClient` needs trio (`pip install
'ccdaemon[trio]'`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ccd_client import events
from ccd_client._calls.batch import BatchItem
from ccd_client._calls.options import ChatOptions
from ccd_client._sync import Client, Stream
from ccd_client.events import Answer
from ccd_protocol.errors import (
    BudgetExceeded,
    Busy,
    Code,
    Conflict,
    ContextTooLong,
    Failed,
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    NotLoggedIn,
    RateLimited,
    RpcError,
    TimedOut,
    Unavailable,
)

if TYPE_CHECKING:
    __version__: str
    from ccd_client._async import AsyncStream
    from ccd_client._asyncio import AsyncClient
    from ccd_client._trio import TrioClient
    from ccd_client.tasks.asynchronous import AsyncTasks
    from ccd_client.tasks.blocking import Tasks

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "AsyncTasks",
    "BatchItem",
    "BudgetExceeded",
    "Busy",
    "ChatOptions",
    "Client",
    "Code",
    "Conflict",
    "ContextTooLong",
    "Failed",
    "Forbidden",
    "InvalidRequest",
    "ModelNotFound",
    "NotFound",
    "NotLoggedIn",
    "RateLimited",
    "RpcError",
    "Stream",
    "Tasks",
    "TimedOut",
    "TrioClient",
    "Unavailable",
    "__version__",
    "events",
]

_LAZY = {
    "AsyncClient": "ccd_client._asyncio",
    "AsyncStream": "ccd_client._async",
    "AsyncTasks": "ccd_client.tasks.asynchronous",
    "Tasks": "ccd_client.tasks.blocking",
    "TrioClient": "ccd_client._trio",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("ccdaemon")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "trio":
            raise
        raise ImportError("TrioClient needs trio: pip install 'ccdaemon[trio]'") from error
