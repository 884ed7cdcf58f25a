"""What every client can be asked, each call described once; `ccd_protocol.methods` says what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

from ccd_client._calls.options import ChatOptions, Messages, request_of
from ccd_client._calls.sending import Sending, sends
from ccd_client.events import Answer, whole_answer
from ccd_protocol.methods import (
    CacheStats,
    ConversationInfo,
    HealthResult,
    Message,
    ModelsResult,
    PingResult,
    RecycleResult,
    ReloadResult,
    SessionInfo,
    StatusResult,
    WorkersResult,
)


def asking(messages: Messages, options: ChatOptions, **fixed: Any) -> Sending[Answer]:
    """One chat whose answer comes as a whole; `fixed` are parameters that win over the options."""
    request = request_of(messages, options)
    return Sending(
        "chat.complete",
        {**request.params, **fixed},
        lambda result: whole_answer(request.told(result)),
        request.timeout_s,
    )


class DaemonCalls:
    """What is asked of the daemon itself."""

    @sends
    def ping(self) -> Sending[PingResult]:
        """Ask whether the daemon is there."""
        return Sending("daemon.ping")

    @sends
    def health(self) -> Sending[HealthResult]:
        """Ask whether a chat sent now would be accepted."""
        return Sending("daemon.health")

    @sends
    def models(self) -> Sending[ModelsResult]:
        """List the models and profiles that can be asked for."""
        return Sending("model.list")

    @sends
    def cache_stats(self) -> Sending[CacheStats]:
        """Ask what the cache of answers holds."""
        return Sending("cache.stats")

    @sends
    def status(self) -> Sending[StatusResult]:
        """Ask for the daemon's state and counters; for its owner and administrators."""
        return Sending("admin.status")

    @sends
    def workers(self) -> Sending[WorkersResult]:
        """List the CLI processes; for the daemon's owner and administrators."""
        return Sending("admin.workers")

    @sends
    def reload(self) -> Sending[ReloadResult]:
        """Have the daemon read its settings again; BAD_PARAMS with `data["problems"]` when they are wrong."""
        return Sending("admin.reload", once=True)

    @sends
    def recycle(self, profile: str | None = None) -> Sending[RecycleResult]:
        """Replace the CLI processes, of one profile or all, each when it is free."""
        return Sending("admin.recycle", {} if profile is None else {"profile": profile}, once=True)

    @sends
    def kill(self, worker_id: str) -> Sending[None]:
        """End one CLI process at once, with its turn; NOT_FOUND when there is none of that id."""
        return Sending("admin.kill", {"id": worker_id}, _nothing, once=True)

    @sends
    def note(self, text: str) -> Sending[None]:
        """Leave a line in the daemon's log; for its owner and administrators."""
        return Sending("admin.note", {"text": text}, _nothing, once=True)

    @sends
    def conversations(self) -> Sending[list[ConversationInfo]]:
        """List this user's conversations, the last used first."""
        return Sending("conversation.list", shape=lambda result: cast(Any, result["conversations"]))

    @sends
    def sessions(self) -> Sending[list[SessionInfo]]:
        """List this user's sessions, the oldest first."""
        return Sending("session.list", shape=lambda result: cast(Any, result["sessions"]))


class ConversationCalls:
    """What can be done with one conversation. It begins with the first question."""

    id: str

    @sends
    def ask(self, messages: Messages, **options: Unpack[ChatOptions]) -> Sending[Answer]:
        """Ask the model, which knows what was said before. Options as of `Client.chat`."""
        return asking(messages, options, conversation_id=self.id)

    @sends
    def create(self, metadata: Mapping[str, Any] | None = None) -> Sending[ConversationInfo]:
        """Begin it without a question, with metadata to keep; CONFLICT when it is there already."""
        params = {"conversation_id": self.id, "metadata": dict(metadata or {})}
        return Sending("conversation.create", params, once=True)

    @sends
    def get(self) -> Sending[ConversationInfo]:
        """What is known of it, without what was said; NOT_FOUND before its first question."""
        return Sending("conversation.get", {"conversation_id": self.id})

    @sends
    def messages(self) -> Sending[list[Message]]:
        """What was said in it."""
        return Sending(
            "conversation.messages",
            {"conversation_id": self.id},
            lambda result: cast(Any, result["messages"]),
        )

    @sends
    def delete(self) -> Sending[None]:
        """Forget it."""
        return Sending("conversation.delete", {"conversation_id": self.id}, _nothing, once=True)


class SessionCalls:
    """What can be done with one session."""

    id: str

    @sends
    def get(self) -> Sending[SessionInfo]:
        """Its state, and who follows it."""
        return Sending("session.get", self._which())

    @sends
    def send(self, content: str | Sequence[Mapping[str, Any]]) -> Sending[None]:
        """Say something: a text, or content blocks. The answer comes to those who are attached."""
        return Sending("session.send", self._which(content=content), _nothing, once=True)

    @sends
    def interrupt(self) -> Sending[bool]:
        """End its running turn; False when none was running."""
        return Sending("session.interrupt", self._which(), lambda result: bool(result["interrupted"]))

    @sends
    def set_model(self, model: str | None) -> Sending[SessionInfo]:
        """Go on with another model; None is the CLI's own default."""
        return Sending("session.set_model", self._which(model=model))

    @sends
    def set_permission_mode(self, mode: str) -> Sending[SessionInfo]:
        """Have it ask more, or less, before it acts: default, acceptEdits, plan, dontAsk, auto."""
        return Sending("session.set_permission_mode", self._which(mode=mode))

    @sends
    def allow(self, request_id: str, updated_input: Mapping[str, Any] | None = None) -> Sending[None]:
        """Let it use a tool that it asked about, perhaps with other input."""
        return self._answer(request_id, behavior="allow", updated_input=updated_input)

    @sends
    def deny(self, request_id: str, message: str | None = None) -> Sending[None]:
        """Do not let it use a tool that it asked about; `message` tells the model why."""
        return self._answer(request_id, behavior="deny", message=message)

    @sends
    def close(self) -> Sending[None]:
        """End it."""
        return Sending("session.close", self._which(), _nothing, once=True)

    def _answer(self, request_id: str, **given: Any) -> Sending[None]:
        return Sending("session.answer", self._which(request_id=request_id, **given), _nothing, once=True)

    def _which(self, **given: Any) -> dict[str, Any]:
        return {"session_id": self.id, **{name: value for name, value in given.items() if value is not None}}


def opening(
    model: str | None, cwd: str | None, permission_mode: str | None, allowed_tools: Sequence[str] | None
) -> dict[str, Any]:
    """Parameters of `session.open`."""
    given = {"model": model, "cwd": cwd, "permission_mode": permission_mode}
    tools = {} if allowed_tools is None else {"allowed_tools": list(allowed_tools)}
    return {**{name: value for name, value in given.items() if value is not None}, **tools}


def _nothing(_: Any) -> None:
    """The result of what only had to be done."""
