"""The parameters of a call, checked against its method's description in `ccd_protocol.methods`.

A parameter that the method does not have is refused, never ignored: a misspelt one would otherwise do something else
than its author meant. Chats have many more rules and are read by `request.body`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from ccd_protocol.acting import ACTING, acting
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import METHODS

T = TypeVar("T")

_MISSING = re.compile(r"missing required field `(\w+)`")
_NAMES = {method.params: frozenset(method.names) for method in METHODS.values()}


def read(params: Mapping[str, Any], kind: type[T], method: str = "") -> T:
    """Returns a call's parameters as `kind`, the `TypedDict` that `METHODS` names for it.

    Those of a `method` that acts may be spelt as `ccd_protocol.acting` says, on the socket as everywhere.

    Raises:
        RpcError: BAD_PARAMS; `data["param"]` names the one that is unknown, missing or of another type.
    """
    if method in ACTING:
        params = acting(method, params)
    for name in params:
        if name not in _NAMES[kind]:
            short = str(name)[:80]
            raise RpcError(Code.BAD_PARAMS, f"there is no parameter {short!r} here", {"param": short})
    try:
        return msgspec.convert(params, type=kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$.")
        missing = _MISSING.search(reason)
        name = missing[1] if missing else path.rstrip("`")
        raise RpcError(Code.BAD_PARAMS, f"{name}: {reason}", {"param": name}) from None
