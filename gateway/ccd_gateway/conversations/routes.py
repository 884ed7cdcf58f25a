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
from ccd_gateway.edge.body import read_body
from ccd_gateway.edge.description import (
    ANSWERING,
    COUNT,
    NULLABLE,
    TEXT,
    Description,
    in_path,
    operation,
    record,
    ref,
)
from ccd_gateway.edge.routing import Route
from ccd_gateway.edge.work import apart
from ccd_gateway.errors import ApiError, bad_request
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.surface.body import decode_object, violation
from ccd_gateway.surface.driver import send
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ConversationInfo


class ConversationWanted(Struct):
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
        body = await read_body(req, self._settings.max_body_bytes)
        fields = await apart(body, decode_object, body)
        try:
            wanted = msgspec.convert(fields, ConversationWanted)
        except msgspec.ValidationError as error:
            what, path, _ = violation(error)
            raise bad_request(f"Bad request: {what}", path or None) from None
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


# --- where they are ---

_FAILING = {number: text for number, text in ANSWERING.items() if number not in (404, 413)}
_ONE = {**_FAILING, 404: "There is no such conversation.", 405: "No conversation, but a route."}


def routes(backend: Backend, settings: GatewaySettings) -> list[Route]:
    """The list and the conversations in it."""
    conversations = Conversations(backend, settings)
    return [
        Route("/v1/conversations", conversations, _list),
        Route("/v1/conversations/{name:path}", conversations, _one, "one"),
    ]


def _list() -> Description:
    kept = {"model": NULLABLE, "total_tokens": COUNT, "turn_count": COUNT, "project_path": NULLABLE}
    times = {"id": TEXT, "created_at": TEXT, "updated_at": TEXT}
    one = record({**times, "message_count": COUNT, "metadata": record(kept)})
    listed = record({"conversations": {"type": "array"}})
    wanted = {"type": "object", "properties": {"model": NULLABLE, "project_path": NULLABLE}}
    begin = operation(
        "beginConversation", ref("Conversation"), {**_FAILING, 413: ANSWERING[413]}, body=wanted
    )
    return Description(
        {"get": operation("conversations", listed, _FAILING), "post": begin}, {"Conversation": one}
    )


def _one() -> Description:
    gone = record({"id": TEXT, "object": {"const": "conversation.deleted"}, "deleted": {"const": True}})
    return Description(
        {
            "parameters": [in_path("name")],
            "get": operation("conversation", ref("Conversation"), _ONE),
            "delete": operation("forgetConversation", gone, _ONE),
        }
    )
