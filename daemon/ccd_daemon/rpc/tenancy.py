"""Whose request it is: the tenant that a gateway names, else the user at the other end of the socket."""

from __future__ import annotations

from ccd_daemon.rpc.connection import Call
from ccd_protocol.errors import Code, RpcError


def tenant_of(call: Call, named: str | None, *, may_name: bool) -> str:
    """The tenant of a call.

    Raises:
        RpcError: FORBIDDEN, when a tenant is named by a peer that may not.
    """
    if named is None:
        return f"uid:{call.identity.uid}"
    if not may_name:
        raise RpcError(
            Code.FORBIDDEN, "only uids in server.tenant_uids may name a tenant", {"param": "tenant"}
        )
    return named
