"""The catalogue of RPC methods: their names, parameters and results.

The types are `TypedDict`s because they *are* the wire form (msgpack maps). The daemon validates calls against
them, the clients and the gateway type-check against them; there is no second description to drift.

A chat takes the shape of the Messages API, because that is what the CLI finally sends: system prompt, messages of
content blocks, and sampling parameters, under the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, NotRequired, Required, TypedDict, get_origin, get_type_hints

from ccd_protocol.chat.parameters import CacheUse as CacheUse  # noqa: PLC0414 - part of the catalogue
from ccd_protocol.chat.parameters import ChatParams as ChatParams  # noqa: PLC0414 - part of the catalogue
from ccd_protocol.chat.parameters import Message as Message  # noqa: PLC0414 - part of the catalogue


class Usage(TypedDict, total=False):
    """Token counts of one turn, as the model API reported them."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    thinking_tokens: int  # the part of output_tokens that was spent on thinking; 0 where the API does not say


class ChatResult(TypedDict):
    """Result of `chat.stream`: what is known once the turn has ended. The text itself came as ITEMs."""

    # the Messages API's word: end_turn, max_tokens, stop_sequence, tool_use, refusal …
    stop_reason: str | None
    stop_sequence: str | None
    model: str
    usage: Usage
    cost_usd: float
    duration_ms: int
    api_calls: int  # calls that the CLI made for this turn; more than 1 is reported as surplus in status
    worker: str
    mode: str  # full, keep_system or replay: how the request reached the CLI
    ignored: list[str]  # parameters that this mode cannot honour
    fallback: NotRequired[bool]  # True when the fallback model answered
    # Of `chat.complete`: the input of each tool call of the content as JSON text, digit for digit as the model wrote
    # it, with integers of any size, which `content` can only come near to.
    tool_inputs: NotRequired[list[str]]
    # where there is a cache and the call has `cache`: hit, miss, or bypass (not looked at)
    cache: NotRequired[str]


class ConversationsParams(TypedDict, total=False):
    """Parameters of `conversation.list`."""

    tenant: str


class ConversationParams(ConversationsParams):
    """Parameters of the `conversation.*` methods that say nothing but which."""

    conversation_id: str


class ConversationCreateParams(ConversationsParams, total=False):
    """Parameters of `conversation.create`."""

    conversation_id: str  # absent: a new one is made up
    metadata: dict[str, Any]  # kept with it and given back


class ConversationInfo(TypedDict):
    """A stored conversation, without what was said in it."""

    id: str
    created_at: float  # seconds since the epoch
    updated_at: float
    message_count: int
    total_tokens: int  # of all its answers: what was read, from the cache too, and what was written
    metadata: dict[str, Any]


class ConversationsResult(TypedDict):
    """Result of `conversation.list`."""

    conversations: list[ConversationInfo]


class MessagesResult(TypedDict):
    """Result of `conversation.messages`."""

    messages: list[Message]


class SessionOpenParams(TypedDict, total=False):
    """Parameters of `session.open`."""

    model: str | None
    # beneath one of sessions.roots; without one the session gets an empty directory of its own
    cwd: str | None
    permission_mode: str | None  # default, acceptEdits, plan, dontAsk, auto; bypassPermissions where allowed
    # permission rules, for example "Read" or "Bash(git diff:*)": not asked about
    allowed_tools: list[str] | None
    # names of the models that it may use, its subagents and later choices included; absent: any
    models: list[str] | None
    tenant: str


class SessionsParams(TypedDict, total=False):
    """Parameters of `session.list`."""

    tenant: str


class SessionParams(SessionsParams):
    """Parameters of the `session.*` methods that say nothing but which."""

    session_id: str


class SessionMessageParams(SessionParams, total=False):
    """Parameters of `session.send`."""

    content: Required[str | list[dict[str, Any]]]  # a text, or text, image and document blocks


class SessionModelParams(SessionParams, total=False):
    """Parameters of `session.set_model`."""

    model: str | None  # None or "default": the CLI's own default


class SessionModeParams(SessionParams, total=False):
    """Parameters of `session.set_permission_mode`."""

    mode: Required[str]  # as `permission_mode` of `session.open`


class SessionAnswerParams(SessionParams, total=False):
    """Parameters of `session.answer`."""

    request_id: Required[str]
    behavior: str  # allow; anything else denies
    updated_input: dict[str, Any] | None  # what the tool is called with instead; absent: what was asked for
    message: str | None  # why not, for the model


class SessionState(TypedDict):
    """What a session's CLI says of itself, with every turn anew."""

    session_id: str
    cli_session_id: str | None
    model: str
    cwd: str
    tools: list[Any]
    permission_mode: str
    claude_code_version: str
    mcp_servers: list[Any]
    total_cost_usd: float  # of the session so far
    num_turns: int  # model turns of the last message
    is_compacting: bool


class SessionInfo(TypedDict):
    """Result of `session.open` and `session.get`."""

    session_id: str
    state: SessionState
    connected_clients: int
    cli_connected: bool  # its process runs and takes messages
    pending_permissions: int


class SessionsResult(TypedDict):
    """Result of `session.list`."""

    sessions: list[SessionInfo]


class SessionEnd(TypedDict):
    """Result of `session.attach`: why the session has ended."""

    reason: str  # closed, idle, or that ccd is shutting down


class SessionInterrupted(TypedDict):
    """Result of `session.interrupt`."""

    interrupted: bool  # False: no turn was running


class ChatAnswer(ChatResult):
    """Result of `chat.complete`: `ChatResult` and the whole answer."""

    content: list[dict[str, Any]]  # content blocks of the Messages API
    text: str  # the text blocks, joined


class CacheStats(TypedDict):
    """Result of `cache.stats`."""

    enabled: bool
    total_entries: int
    total_hits: int  # since the daemon started
    total_bytes: int


class PingResult(TypedDict):
    """Result of `daemon.ping`."""

    pid: int
    version: str


class HealthResult(TypedDict):
    """Result of `daemon.health`, which any peer may ask."""

    ready: bool  # a chat sent now would be accepted, and finds a process that is warm
    state: str  # starting, ready, degraded, draining
    reason: str | None
    version: str
    cli_version: str | None
    retry_after_ms: NotRequired[int]


class Model(TypedDict):
    """One model that the CLI offers."""

    id: str  # resolved name, for example claude-sonnet-5-5
    alias: str | None  # what the CLI calls it: sonnet, opus, haiku …
    display_name: str


class ProfileModels(TypedDict):
    """What a profile's settings say of models."""

    model: str | None  # asked where a call names none; None: the CLI's own default
    fallback_model: str | None  # asked when that one is overloaded or does not exist


class ModelsResult(TypedDict):
    """Result of `model.list`. Any profile may be asked for any of them as `profile/model`."""

    models: list[Model]
    profiles: list[str]
    default: str | None  # resolved name of the CLI's own default; None: no CLI process has said it yet
    of_profiles: dict[str, ProfileModels]


class StoryStep(TypedDict):
    """One step of a CLI process's life."""

    at_s: float  # of its age
    state: str  # in which it was
    event: str  # what happened then


class WorkerRow(TypedDict):
    """One line of `admin.workers`."""

    id: str
    profile: str
    tenant: str | None
    mode: str
    state: str
    pid: int | None
    age_s: float
    turns: int
    rss_bytes: int
    cli_version: str | None
    story: list[StoryStep]  # its last 32 steps, the oldest first


class WorkersResult(TypedDict):
    """Result of `admin.workers`."""

    workers: list[WorkerRow]


class StatusResult(TypedDict):
    """Result of `admin.status`: everything that an operator asks first."""

    version: str
    pid: int
    state: str
    reason: str | None
    uptime_s: float
    socket: str
    cli: dict[str, Any]
    login: dict[str, Any]
    pool: dict[str, Any]
    counters: dict[str, int]
    memory: dict[str, Any]
    sessions: dict[str, int]
    cache: CacheStats
    connections: int


class Method(NamedTuple):
    """How a method is called."""

    params: Any
    result: Any
    summary: str
    streams: bool = False  # sends ITEMs, so the caller gives a window
    admin: bool = False  # needs the daemon's uid, root or the admin group

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its parameters."""
        return tuple(get_type_hints(self.params))

    @property
    def required(self) -> frozenset[str]:
        """The names of those that a call must give."""
        hints = get_type_hints(self.params, include_extras=True).items()
        marked = {name for name, hint in hints if get_origin(hint) is Required}
        return frozenset(marked | self.params.__required_keys__)


class NoParams(TypedDict):
    """No parameters."""


class NoteParams(TypedDict):
    """Parameters of `admin.note`."""

    text: str  # one line, at most 200 characters


class ReloadResult(TypedDict):
    """What `admin.reload` did with the settings that differ from those in force, as `section.key`."""

    changed: list[str]
    pending: list[str]  # wait for a restart


class RecycleParams(TypedDict, total=False):
    """Parameters of `admin.recycle`."""

    profile: str  # of this profile only


class RecycleResult(TypedDict):
    """What `admin.recycle` began."""

    workers: int  # processes that end now, or when their turn does


class KillParams(TypedDict):
    """Parameters of `admin.kill`."""

    id: str  # of a worker, as `admin.workers` names it


class NoResult(TypedDict):
    """Nothing but that it was done."""


METHODS: Mapping[str, Method] = {
    "chat.stream": Method(
        ChatParams, ChatResult, "One answer, as the CLI's lines while they come.", streams=True
    ),
    "chat.complete": Method(ChatParams, ChatAnswer, "One answer, when it is complete."),
    "model.list": Method(NoParams, ModelsResult, "The models and profiles that can be asked for."),
    "conversation.create": Method(ConversationCreateParams, ConversationInfo, "A new, empty conversation."),
    "conversation.get": Method(ConversationParams, ConversationInfo, "One conversation."),
    "conversation.list": Method(ConversationsParams, ConversationsResult, "The caller's conversations."),
    "conversation.messages": Method(ConversationParams, MessagesResult, "What was said in one."),
    "conversation.delete": Method(ConversationParams, NoResult, "Forget one."),
    "session.open": Method(SessionOpenParams, SessionInfo, "A new agent with a CLI process of its own."),
    "session.list": Method(SessionsParams, SessionsResult, "The caller's sessions."),
    "session.get": Method(SessionParams, SessionInfo, "One session."),
    "session.close": Method(SessionParams, NoResult, "End one."),
    "session.attach": Method(
        SessionParams, SessionEnd, "State and past of one, then its CLI's lines as they come.", streams=True
    ),
    "session.send": Method(SessionMessageParams, NoResult, "Say something in one."),
    "session.interrupt": Method(SessionParams, SessionInterrupted, "End its running turn."),
    "session.set_model": Method(SessionModelParams, SessionInfo, "Go on with another model."),
    "session.set_permission_mode": Method(
        SessionModeParams, SessionInfo, "Have it ask more or less before it acts."
    ),
    "session.answer": Method(SessionAnswerParams, NoResult, "Answer one of its permission requests."),
    "cache.stats": Method(NoParams, CacheStats, "What the cache of answers holds."),
    "daemon.ping": Method(NoParams, PingResult, "Answers at once."),
    "daemon.health": Method(NoParams, HealthResult, "Whether a chat sent now would be accepted."),
    "admin.status": Method(
        NoParams, StatusResult, "The daemon's state, counters and settings in force.", admin=True
    ),
    "admin.workers": Method(NoParams, WorkersResult, "The CLI processes, one row each.", admin=True),
    "admin.reload": Method(
        NoParams, ReloadResult, "Read the settings again, all of them or none.", admin=True
    ),
    "admin.recycle": Method(
        RecycleParams, RecycleResult, "Replace the CLI processes, each when it is free.", admin=True
    ),
    "admin.kill": Method(KillParams, NoResult, "End one CLI process at once, with its turn.", admin=True),
    "admin.note": Method(NoteParams, NoResult, "Leave a line in the daemon's log.", admin=True),
}
