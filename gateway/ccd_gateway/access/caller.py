"""Who is asking: the one place where a surface learns whose request it serves.

Every object that outlives its request (a conversation, a stored response, a cached answer) belongs to a
tenant and is looked up as `(tenant_of(req), id)`, so that another tenant's id is the same 404 as an
unknown one.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import falcon.asgi

from ccd_gateway.access.keyfile import Key
from ccd_gateway.shapes import OPENAI, Shape

LOCAL_TENANT = "local"
_SCOPE_NAME = "ccd.caller"


@dataclass(eq=False, slots=True)
class Caller:
    """One request's caller, and what is noted about the request while it is served.

    Attributes:
        key: the key that was presented, or None where none is needed.
        request_id: the request's id, as in `X-Request-ID`.
        shape: of its errors.
        headers: added to the answer if it has not begun yet (`x-ratelimit-*`).
        model: the model that was asked, once one was.
        input_tokens, output_tokens, cost_usd: what the request has used up so far.
    """

    key: Key | None = None
    request_id: str = ""
    shape: Shape = OPENAI
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0

    @property
    def tenant(self) -> str:
        """Whose objects this request may see."""
        return self.key.tenant if self.key is not None else LOCAL_TENANT

    @property
    def name(self) -> str | None:
        """The key's name, for logs."""
        return self.key.name if self.key is not None else None


_current: ContextVar[Caller | None] = ContextVar("ccd_caller", default=None)


def tenant_of(req: falcon.asgi.Request) -> str:
    """The tenant whose objects a request may see and create; `"local"` where no key is in use."""
    return caller_of(req).tenant


def caller_of(req: falcon.asgi.Request) -> Caller:
    """Who sent a request."""
    return caller_of_scope(req.scope)


def caller_of_scope(scope: Mapping[str, Any]) -> Caller:
    """Who is at the other end of a connection, as ASGI describes it."""
    found = scope.get(_SCOPE_NAME)
    return found if isinstance(found, Caller) else Caller()


def current_caller() -> Caller:
    """On whose behalf the running task acts. Tasks inherit it from the one that starts them."""
    return _current.get() or Caller()


def admit(scope: MutableMapping[str, Any], caller: Caller) -> None:
    """Make `caller` the one that `caller_of` and `current_caller` find; for the envelope."""
    scope[_SCOPE_NAME] = caller
    _current.set(caller)
