"""Refusals of the daemon's and the model API's, under the names that a client has for its parameters. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from ccd_protocol.errors import RpcError

#: How the model API begins a refusal: `tools.0.custom.input_schema: …`.
_APIS_PATH = re.compile(r"[a-z_]+(?:\.\w+)*(?=: )")


def renamed(error: RpcError, name_of: Callable[[str], str]) -> RpcError:
    """Returns the same refusal with the parameter as the client knows it, in `param` and in the message.

    Args:
        error: whose `param` is the daemon's name for it; without one it is returned as it is.
        name_of: makes the client's name of it.
    """
    param = error.data.get("param")
    if not isinstance(param, str):
        return error
    name = name_of(param)
    message = error.message
    if "upstream_status" in error.data:
        message = _APIS_PATH.sub(lambda _: name, message, count=1) if _APIS_PATH.match(message) else message
    elif message.startswith(param):
        message = name + message[len(param) :]
    return RpcError(error.code, message, {**error.data, "param": name})
