"""`conversation.*`: what the daemon remembers by name. Each tenant sees only its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ccd_daemon.request.body import bad
from ccd_daemon.rpc.call import Call
from ccd_daemon.rpc.parameters import read
from ccd_daemon.rpc.rights import Rights
from ccd_daemon.rpc.tenancy import check_kept, tenant_of
from ccd_daemon.store.conversations import ConversationStore
from ccd_protocol.methods import (
    ConversationCreateParams,
    ConversationInfo,
    ConversationParams,
    ConversationsParams,
    ConversationsResult,
    MessagesResult,
    NoResult,
)

T = TypeVar("T")

MAX_ID_CHARS = 200


class ConversationMethods:
    """The methods over one store."""

    def __init__(
        self, store: ConversationStore, rights: Rights, forget: Callable[[str, str], None] = lambda *_: None
    ) -> None:
        self._store = store
        self._forget = forget  # told of tenant and id of one that is deleted
        self._rights = rights

    async def create(self, call: Call) -> ConversationInfo:
        """Returns a new, empty conversation; CONFLICT when the id is taken."""
        params, tenant = self._read(call, ConversationCreateParams)
        return await self._store.create(tenant, params.get("metadata", {}), params.get("conversation_id"))

    async def get(self, call: Call) -> ConversationInfo:
        """Returns one conversation."""
        params, tenant = self._read(call, ConversationParams)
        return await self._store.get(tenant, check_id(params["conversation_id"]))

    async def list(self, call: Call) -> ConversationsResult:
        """Returns the caller's conversations, the last used first."""
        _, tenant = self._read(call, ConversationsParams)
        return ConversationsResult(conversations=await self._store.all_of(tenant))

    async def messages(self, call: Call) -> MessagesResult:
        """Returns what was said in one conversation."""
        params, tenant = self._read(call, ConversationParams)
        return MessagesResult(
            messages=await self._store.messages(tenant, check_id(params["conversation_id"]))
        )

    async def delete(self, call: Call) -> NoResult:
        """Forget one conversation."""
        params, tenant = self._read(call, ConversationParams)
        name = check_id(params["conversation_id"])
        self._forget(tenant, name)
        await self._store.delete(tenant, name)
        return NoResult()

    def _read(self, call: Call, kind: type[T]) -> tuple[T, str]:
        params = read(call.params, kind, call.method)
        check_kept(call, "conversation_id")
        may_name = self._rights.may_speak_for_others(call.identity)
        return params, tenant_of(call, call.params.get("tenant"), may_name=may_name)


def check_id(conversation_id: str) -> str:
    """Returns a conversation's name as a client may choose it.

    Raises:
        RpcError: BAD_PARAMS.
    """
    if not (0 < len(conversation_id) <= MAX_ID_CHARS and conversation_id.isprintable()):
        raise bad("conversation_id", f"a conversation's id is 1 to {MAX_ID_CHARS} printable characters")
    return conversation_id
