"""`/v1/sessions`: open, list, look at and end them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import falcon
import falcon.asgi
import msgspec
from msgspec import Meta, Struct

from ccd_gateway.access.auth import KeyStore
from ccd_gateway.access.caller import caller_of
from ccd_gateway.answer.backend import Backend
from ccd_gateway.conversations.routes import Conversations
from ccd_gateway.edge.body import read_body
from ccd_gateway.edge.description import (
    ANSWERING,
    COUNT,
    NULLABLE,
    TEXT,
    Description,
    Json,
    in_path,
    operation,
    record,
    ref,
    refused,
    typed,
)
from ccd_gateway.edge.routing import Refusing, Route, Scope
from ccd_gateway.edge.work import apart
from ccd_gateway.errors import ApiError, bad_request, from_rpc
from ccd_gateway.sessions import access
from ccd_gateway.sessions.socket import SessionSockets
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.shapes import SESSION
from ccd_gateway.surface.body import decode_object, violation
from ccd_gateway.surface.driver import send
from ccd_protocol.acting import acting
from ccd_protocol.errors import Code, RpcError


class SessionWanted(Struct):
    """`POST /v1/sessions`."""

    model: Annotated[str, Meta(max_length=512)] | None = None
    cwd: Annotated[str, Meta(max_length=4096)] | None = None
    permission_mode: Annotated[str, Meta(max_length=64)] | None = None
    allowed_tools: (
        Annotated[list[Annotated[str, Meta(min_length=1, max_length=1000)]], Meta(max_length=200)] | None
    ) = None


class SessionResource:
    """All sessions of a tenant, and one of them."""

    def __init__(self, backend: Backend, settings: GatewaySettings) -> None:
        self._backend = backend
        self._settings = settings
        self._conversations = Conversations(backend, settings)

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Open one. It takes messages when this is answered."""
        caller = self._checked(req)
        body = await read_body(req, self._settings.max_body_bytes) or b"{}"
        fields = await apart(body, decode_object, body)
        wanted = _wanted(acting("session.open", fields, set_here=("tenant", "models")))
        if wanted.model is not None:
            wanted.model = self._settings.model_for(wanted.model)
        params = {**msgspec.structs.asdict(wanted), "tenant": caller.tenant}
        if caller.key is not None:
            known = await self._backend.known()
            access.check_model(caller, known, wanted.model)
            params["models"] = access.models_of(caller.key, known, wanted.model)
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


def _wanted(fields: dict[str, Any]) -> SessionWanted:
    try:
        return msgspec.convert(fields, SessionWanted)
    except msgspec.ValidationError as error:
        what, field, _ = violation(error)
        raise bad_request(f"{field}: {what}" if field else what, field or None) from None


def _not_found(name: str) -> ApiError:
    return ApiError(404, f"Session not found: {name[:200]}")


def no_dialling_in(*_: str) -> ApiError:
    """The refusal for a CLI that dials in, as those of claude-code-api did."""
    return ApiError(
        404,
        "This gateway starts the CLI itself and talks to it over pipes, so nothing can dial in. "
        "Open a session with POST /v1/sessions, and connect to /ws/session/{id}.",
        code="unknown_url",
    )


def no_route(method: str, path: str) -> ApiError:
    """The 404 for a path below /ws that leads nowhere."""
    return ApiError(404, f"Unknown route: {path[:200]}. There is /ws/session/{{id}}.", code="unknown_url")


# --- where they are ---

AGENT = ("agent",)
_REFUSALS = {**ANSWERING, 404: "There is no such session.", 405: "Not here."}


def routes(backend: Backend, settings: GatewaySettings, keys: KeyStore) -> list[Route]:
    """The list, the sessions in it, and their WebSockets.

    At the path of one session the scope `chat` is only good for the end of a conversation, and at the list's for
    nothing: the resource says so, and how to get a key for it.
    """
    sessions, either = SessionResource(backend, settings), ("agent", "chat")
    sockets = SessionSockets(backend, settings, keys)
    return [
        Route("/v1/sessions", sessions, _list, scopes=either, shape=SESSION),
        Route("/v1/sessions/{name:path}", sessions, _one, "one", scopes=either, shape=SESSION),
        Route("/ws/session/{name}", Upgrade(), _socket, scopes=AGENT, shape=SESSION, socket=sockets),
        _refused("/ws/cli/{name:path}", no_dialling_in, _no_dialling),
        _refused("/ws/{rest:path}", no_route),
    ]


def _refused(
    path: str, why: Callable[[str, str], ApiError], description: Callable[[], Description] | None = None
) -> Route:
    """A path that is refused in the same words to requests and to WebSockets."""

    async def refuse(scope: Scope, receive: object, send: object) -> None:
        raise why("GET", scope["path"])

    return Route(path, Refusing(why), description, scopes=AGENT, shape=SESSION, socket=refuse)


def _list() -> Description:
    listed = record({"sessions": {"type": "array", "items": ref("SessionInfo")}})
    opened = record({"session_id": TEXT, "ws_url": TEXT})
    get = operation("sessions", listed, _REFUSALS, shape=SESSION)
    post = operation(
        "openSession", opened, _REFUSALS, shape=SESSION, status=201, body=ref("SessionWanted"), required=False
    )
    return Description({"get": get, "post": post}, {**typed(SessionWanted), "SessionInfo": _info()})


def _one() -> Description:
    ended = record({"deleted": {"const": True}, "session_id": TEXT})
    return Description(
        {
            "parameters": [in_path("name")],
            "get": operation("session", ref("SessionInfo"), _REFUSALS, shape=SESSION),
            "delete": operation("endSession", ended, _REFUSALS, shape=SESSION),
        }
    )


def _info() -> Json:
    state = {
        "session_id": TEXT,
        "cli_session_id": NULLABLE,
        "model": TEXT,
        "cwd": TEXT,
        "tools": {"type": "array"},
        "permission_mode": TEXT,
        "claude_code_version": TEXT,
        "mcp_servers": {"type": "array"},
        "total_cost_usd": {"type": "number"},
        "num_turns": COUNT,
        "is_compacting": {"type": "boolean"},
    }
    info = {
        "session_id": TEXT,
        "state": record(state),
        "connected_clients": COUNT,
        "cli_connected": {"type": "boolean"},
        "pending_permissions": COUNT,
    }
    return record(info)


def _socket() -> Description:
    """What passes through the WebSocket is in docs/sessions.md."""
    upgraded = {"101": {"description": "A WebSocket, by which the session is followed."}}
    refusals = refused({**_REFUSALS, 426: "This is a WebSocket."}, SESSION)
    get = {"operationId": "sessionSocket", "responses": {**upgraded, **refusals}}
    return Description({"get": get, "parameters": [in_path("name")]})


def _no_dialling() -> Description:
    get = {"operationId": "noDiallingIn", "responses": refused(_REFUSALS, SESSION)}
    return Description({"get": get, "parameters": [in_path("name")]})
