"""claude-code-api's conversations: `/v1/conversations`, and the old path for ending one."""

from __future__ import annotations

import datetime
from typing import Annotated

import falcon
import falcon.asgi
import msgspec
from msgspec import Meta, Struct

from ccd_gateway.access.caller import tenant_of
from ccd_gateway.answer.backend import Backend
from ccd_gateway.chat.schema import decode_object
from ccd_gateway.edge.body import read_body
from ccd_gateway.errors import JSON, ApiError, bad_request
from ccd_gateway.settings import GatewaySettings
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ConversationInfo


class Wanted(Struct):
    """`POST /v1/conversations`."""

    model: Annotated[str, Meta(max_length=512)] | None = None
    project_path: Annotated[str, Meta(max_length=4096)] | None = None


class Conversations:
    """All conversations of a tenant, and one of them."""

    def __init__(self, backend: Backend, settings: GatewaySettings) -> None:
        self._backend = backend
        self._settings = settings

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Begin one. The status is 200, as there."""
        fields = decode_object(await read_body(req, self._settings.max_body_bytes))
        try:
            wanted = msgspec.convert(fields, Wanted)
        except msgspec.ValidationError as error:
            what, _, path = str(error).partition(" - at `$.")
            raise bad_request(f"Bad request: {what}", path.rstrip("`") or None) from None
        metadata = {"model": wanted.model, "project_path": wanted.project_path}
        params = {"tenant": tenant_of(req), "metadata": metadata}
        send(resp, shown(await self._backend.call("conversation.create", params)))

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """The tenant's conversations, the last used first."""
        found = await self._backend.call("conversation.list", {"tenant": tenant_of(req)})
        rows = [{"id": one["id"], "updated_at": rfc3339(one["updated_at"])} for one in found["conversations"]]
        send(resp, {"conversations": rows})

    async def on_get_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        """One conversation, without what was said in it."""
        send(resp, shown(await self.one("conversation.get", req, name)))

    async def on_delete_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        """Forget one."""
        await self.one("conversation.delete", req, name)
        send(resp, {"id": name, "object": "conversation.deleted", "deleted": True})

    async def one(self, method: str, req: falcon.asgi.Request, name: str) -> ConversationInfo:
        """One conversation. Another tenant's, and a name that cannot be one, are the same 404 as an unknown one."""
        try:
            found: ConversationInfo = await self._backend.call(
                method, {"tenant": tenant_of(req), "conversation_id": name}
            )
        except RpcError as error:
            if error.code in (Code.NOT_FOUND, Code.BAD_PARAMS):
                raise ApiError(404, "Not found: Conversation not found") from None
            raise
        return found


def shown(found: ConversationInfo) -> dict[str, object]:
    """The older project's form; its `turn_count` counts messages."""
    kept = found["metadata"]
    return {
        "id": found["id"],
        "created_at": rfc3339(found["created_at"]),
        "updated_at": rfc3339(found["updated_at"]),
        "message_count": found["message_count"],
        "metadata": {
            "model": kept.get("model"),
            "total_tokens": found["total_tokens"],
            "turn_count": found["message_count"],
            "project_path": kept.get("project_path"),
        },
    }


def rfc3339(seconds: float) -> str:
    """A time as chrono writes it: nanoseconds, and Z."""
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S.%f}000Z"


def send(resp: falcon.asgi.Response, body: object) -> None:
    """Answer with JSON."""
    resp.content_type = JSON
    resp.data = msgspec.json.encode(body)
