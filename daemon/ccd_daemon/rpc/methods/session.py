"""`session.*`: agents with a CLI process of their own. Each tenant sees only its own sessions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ccd_daemon.config import SessionSettings
from ccd_daemon.request.body import bad
from ccd_daemon.rpc.call import Call
from ccd_daemon.rpc.parameters import read
from ccd_daemon.rpc.rights import Rights
from ccd_daemon.rpc.tenancy import tenant_of
from ccd_daemon.session import roots
from ccd_daemon.session.follower import Follower
from ccd_daemon.session.process import SessionWish
from ccd_daemon.session.session import Session
from ccd_daemon.session.sessions import Sessions
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import (
    NoResult,
    SessionAnswerParams,
    SessionEnd,
    SessionInfo,
    SessionInterrupted,
    SessionMessageParams,
    SessionModelParams,
    SessionModeParams,
    SessionOpenParams,
    SessionParams,
    SessionsParams,
    SessionsResult,
)

T = TypeVar("T")

_MODES = ("default", "acceptEdits", "plan", "dontAsk", "auto", "bypassPermissions")
_BLOCKS = ("text", "image", "document")
_MAX_MODEL_CHARS = 512
_SETTING_COMMAND = (
    "/config"  # writes to the configuration, which a login shares with its user and all sessions
)
_MAX_MODELS = 200
_MAX_TOOLS = 200
_MAX_TOOL_CHARS = 1000
_MAX_ID_CHARS = 200


class SessionMethods:
    """The methods over all sessions."""

    def __init__(self, sessions: Sessions, rights: Rights, settings: SessionSettings) -> None:
        self._sessions = sessions
        self._rights = rights
        self._settings = settings

    async def open(self, call: Call) -> SessionInfo:
        """Returns a new session, once its CLI takes messages; a caller that goes away meanwhile takes it along."""
        params, tenant = self._read(call, SessionOpenParams)
        wish = SessionWish(
            _model(params.get("model")),
            self._mode(params.get("permission_mode") or "default"),
            _tools(params.get("allowed_tools") or []),
            _models(params.get("models")),
        )
        asked, cwd = params.get("cwd"), ""
        folder: Callable[[], int | None] = _no_folder
        if asked is not None:
            root, parts = roots.split(asked, self._settings.roots)
            cwd = str(root.joinpath(*parts))
            folder = partial(roots.open_directory, root, parts)
        return (await self._sessions.open(tenant, wish, cwd, folder)).info()

    async def list(self, call: Call) -> SessionsResult:
        """Returns the caller's sessions, the oldest first."""
        _, tenant = self._read(call, SessionsParams)
        return SessionsResult(sessions=[session.info() for session in self._sessions.all_of(tenant)])

    async def get(self, call: Call) -> SessionInfo:
        """Returns one session."""
        return self._one(call, SessionParams)[1].info()

    async def close(self, call: Call) -> NoResult:
        """End one session."""
        params, tenant = self._read(call, SessionParams)
        self._sessions.close(tenant, _id(params))
        return NoResult()

    async def attach(self, call: Call) -> SessionEnd:
        """Follow a session: its state, its past, then everything as it comes, until it ends."""
        _, session = self._one(call, SessionParams)
        follower = Follower(call.send, self._settings.backlog_bytes)
        call.feed_from(follower)
        session.join(follower)
        try:
            return SessionEnd(reason=await follower.ended)
        finally:
            session.leave(follower)
            call.feed_from(None)

    async def send(self, call: Call) -> NoResult:
        """Say something to the model; the answer comes to those who are attached."""
        params, session = self._one(call, SessionMessageParams)
        session.say(_content(params.get("content")))
        return NoResult()

    async def interrupt(self, call: Call) -> SessionInterrupted:
        """End the running turn."""
        return SessionInterrupted(interrupted=self._one(call, SessionParams)[1].interrupt())

    async def set_model(self, call: Call) -> SessionInfo:
        """Go on with another model."""
        params, session = self._one(call, SessionModelParams)
        await session.set_model(_model(params.get("model")))
        return session.info()

    async def set_permission_mode(self, call: Call) -> SessionInfo:
        """Let the CLI ask more, or less, before it acts."""
        params, session = self._one(call, SessionModeParams)
        await session.set_permission_mode(self._mode(params.get("mode") or ""))
        return session.info()

    async def answer(self, call: Call) -> NoResult:
        """Answer a permission request."""
        params, session = self._one(call, SessionAnswerParams)
        request_id = params.get("request_id") or ""
        session.answer(
            request_id, params.get("behavior") or "deny", params.get("updated_input"), params.get("message")
        )
        return NoResult()

    def _one(self, call: Call, kind: type[T]) -> tuple[T, Session]:
        params, tenant = self._read(call, kind)
        return params, self._sessions.find(tenant, _id(params))

    def _read(self, call: Call, kind: type[T]) -> tuple[T, str]:
        if not self._rights.may_use_agents(call.identity):
            raise RpcError(
                Code.FORBIDDEN,
                "sessions run tools as ccd's user, so they are for that user, root, server.tenant_uids and "
                "sessions.uids, and not for what a worker has started",
            )
        params = read(call.params, kind, call.method)
        may_name = self._rights.may_speak_for_others(call.identity)
        return params, tenant_of(call, call.params.get("tenant"), may_name=may_name)

    def _mode(self, mode: str) -> str:
        mode = "default" if mode == "manual" else mode
        if mode not in _MODES:
            raise bad("permission_mode", f"permission_mode: expected one of {', '.join(_MODES)}")
        if mode == "bypassPermissions" and not self._settings.allow_bypass:
            text = "permission_mode: bypassPermissions is not allowed here; see the setting sessions.allow_bypass"
            raise bad("permission_mode", text)
        return mode


def _no_folder() -> None:
    """The session works in a directory of its own."""


def _id(params: Any) -> str:
    found: str = params.get("session_id") or ""
    if not 0 < len(found) <= _MAX_ID_CHARS:
        raise RpcError(Code.NOT_FOUND, "there is no such session", {"param": "session_id"})
    return found


def _model(model: str | None) -> str | None:
    """Returns a model's name or alias; None, like `default`, is the CLI's own default."""
    if model in (None, "", "default"):
        return None
    assert model is not None
    if len(model) > _MAX_MODEL_CHARS or not model.isprintable():
        raise bad("model", f"model: expected at most {_MAX_MODEL_CHARS} printable characters")
    return model


def _models(models: list[str] | None) -> tuple[str, ...] | None:
    if models is None:
        return None
    if len(models) > _MAX_MODELS or not all(0 < len(name) <= _MAX_MODEL_CHARS for name in models):
        text = f"models: expected at most {_MAX_MODELS} names of 1 to {_MAX_MODEL_CHARS} characters"
        raise bad("models", text)
    return tuple(models)


def _tools(tools: list[str]) -> tuple[str, ...]:
    if len(tools) > _MAX_TOOLS or not all(0 < len(tool) <= _MAX_TOOL_CHARS for tool in tools):
        text = f"allowed_tools: expected at most {_MAX_TOOLS} rules of 1 to {_MAX_TOOL_CHARS} characters"
        raise bad("allowed_tools", text)
    return tuple(tools)


def _content(content: Any) -> str | list[dict[str, Any]]:
    if not content:
        raise bad("content", "content: expected a text, or a list of content blocks")
    if not isinstance(content, str) and not all(block.get("type") in _BLOCKS for block in content):
        raise bad("content", f"content: expected blocks of the types {', '.join(_BLOCKS)}")
    for text in (content,) if isinstance(content, str) else (block.get("text") for block in content):
        if isinstance(text, str) and text.lstrip().partition(" ")[0].rstrip() == _SETTING_COMMAND:
            why = (
                "it may change more than this session's settings; there are set_model and set_permission_mode"
            )
            raise bad("content", f"content: {_SETTING_COMMAND} is refused: {why}")
    return content  # type: ignore[no-any-return]
