"""Whose request it is: the tenant that a gateway names, else the user at the other end of the socket.

What a worker has started is nobody, whoever's user it runs as: it gets answers, but reaches nothing that is kept.
"""

from __future__ import annotations

from ccd_daemon.rpc.call import Call
from ccd_protocol.errors import Code, RpcError

_NOBODY = "nobody"


def tenant_of(call: Call, named: str | None, *, may_name: bool) -> str:
    """Returns the tenant of a call.

    Raises:
        RpcError: FORBIDDEN, when a tenant is named by a peer that may not.
    """
    if named is None:
        return f"uid:{call.identity.uid}" if call.identity.outside else _NOBODY
    if not may_name:
        text = "only uids in server.tenant_uids may name a tenant, and nothing that a worker has started"
        raise RpcError(Code.FORBIDDEN, text, {"param": "tenant"})
    return named


def check_kept(call: Call, param: str) -> None:
    """See that something may be kept for the peer, or given to it of what was kept.

    Raises:
        RpcError: FORBIDDEN, `param` names what asked for it.
    """
    if not call.identity.outside:
        text = (
            f"{param}: nothing is kept for what a worker of ccd has started, nor for who cannot be identified"
        )
        raise RpcError(Code.FORBIDDEN, text, {"param": param})
