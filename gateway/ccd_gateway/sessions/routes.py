"""`/v1/sessions`: open, list, look at and end them."""

from __future__ import annotations

from typing import Annotated, Any

import falcon
import falcon.asgi
import msgspec
from msgspec import Meta, Struct

from ccd_gateway.access.caller import caller_of
from ccd_gateway.answer.backend import Backend
from ccd_gateway.chat.schema import decode_object
from ccd_gateway.conversations.routes import Conversations, send
from ccd_gateway.edge.body import read_body
from ccd_gateway.errors import ApiError, bad_request, from_rpc
from ccd_gateway.sessions import access
from ccd_gateway.sessions.socket import no_dialling_in
from ccd_gateway.settings import GatewaySettings
from ccd_protocol.acting import acting
from ccd_protocol.errors import Code, RpcError


class Wanted(Struct):
    """`POST /v1/sessions`."""

    model: Annotated[str, Meta(max_length=512)] | None = None
    cwd: Annotated[str, Meta(max_length=4096)] | None = None
    permission_mode: Annotated[str, Meta(max_length=64)] | None = None
    allowed_tools: (
        Annotated[list[Annotated[str, Meta(min_length=1, max_length=1000)]], Meta(max_length=200)] | None
    ) = None


class Sessions:
    """All sessions of a tenant, and one of them."""

    def __init__(self, backend: Backend, settings: GatewaySettings) -> None:
        self._backend = backend
        self._settings = settings
        self._conversations = Conversations(backend, settings)

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Open one. It takes messages when this is answered."""
        caller = self._checked(req)
        fields = decode_object(await read_body(req, self._settings.max_body_bytes) or b"{}")
        wanted = _wanted(acting("session.open", fields, set_here=("tenant",)))
        if wanted.model is not None:
            wanted.model = self._settings.model_for(wanted.model)
        if caller.key is not None:
            access.check_model(caller, await self._backend.known(), wanted.model)
        params = {**msgspec.structs.asdict(wanted), "tenant": caller.tenant}
        try:
            found = await self._backend.call("session.open", params)
        except RpcError as error:
            if error.code is Code.WORKER_SPAWN:
                raise ApiError(500, f"Failed to launch CLI: {error.message}") from None
            raise
        resp.status = 201
        session_id = found["session_id"]
        send(resp, {"session_id": session_id, "ws_url": f"/ws/session/{session_id}"})

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """The tenant's sessions, the oldest first."""
        caller = self._checked(req)
        send(resp, await self._backend.call("session.list", {"tenant": caller.tenant}))

    async def on_get_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        """One session, as it is now."""
        self._checked(req)
        send(resp, await self._one("session.get", req, name))

    async def on_delete_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        """End one; claude-code-api's guide sends the names of conversations here too."""
        caller = caller_of(req)
        without_key = self._settings.allow_agent_without_key
        if access.may_use_agents(caller, without_key=without_key):
            try:
                await self._one("session.close", req, name)
            except ApiError as error:
                if error.status != 404 or not (caller.key is None or "chat" in caller.key.scopes):
                    raise
            else:
                send(resp, {"deleted": True, "session_id": name})
                return
        await self._end_conversation(req, resp, name)

    async def _end_conversation(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str
    ) -> None:
        try:
            await self._conversations.one("conversation.delete", req, name)
        except ApiError as error:
            raise _not_found(name) if error.status == 404 else error from None
        send(resp, {"deleted": True, "session_id": name})

    async def _one(self, method: str, req: falcon.asgi.Request, name: str) -> Any:
        """Another tenant's session is the same 404 as an unknown one."""
        try:
            return await self._backend.call(method, {"tenant": caller_of(req).tenant, "session_id": name})
        except RpcError as error:
            raise _not_found(name) if error.code is Code.NOT_FOUND else from_rpc(error) from None

    def _checked(self, req: falcon.asgi.Request) -> Any:
        caller = caller_of(req)
        access.check(caller, without_key=self._settings.allow_agent_without_key)
        return caller


class Upgrade:
    """`/ws/session/{id}` for a request that asks for no WebSocket."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        """Say what is served here."""
        headers = [("upgrade", "websocket"), ("connection", "Upgrade")]
        raise ApiError(426, "This is a WebSocket: connect with the Upgrade header.", headers=headers)


class NoDiallingIn:
    """`/ws/cli/{id}`, where the CLI itself came in."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        """Say that it does not."""
        raise no_dialling_in()


def _wanted(fields: dict[str, Any]) -> Wanted:
    try:
        return msgspec.convert(fields, Wanted)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$.")
        field = path.rstrip("`")
        raise bad_request(f"{field}: {what}" if field else what, field or None) from None


def _not_found(name: str) -> ApiError:
    return ApiError(404, f"Session not found: {name[:200]}")
