"""What may be asked of `task.submit`: checked, and every wrong or unknown word named. No I/O."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatParams, SessionOpenParams

T = TypeVar("T")
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Usd = Annotated[float, Meta(gt=0, le=1e6)]
Seconds = Annotated[float, Meta(gt=0, le=86400)]
_CHAT = frozenset(ChatParams.__annotations__) - {"tenant", "conversation_id"}
_AGENT = frozenset(SessionOpenParams.__annotations__) - {"tenant"}
_MAX_METADATA = 16


class Step(Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One turn.

    Attributes:
        name: of a workflow's step, or the client's own id of a batch line.
        chat: parameters of `chat.complete`.
        agent: parameters of `session.open`: the step is an agent's, with tools; then `prompt` is what it is told.
        error: why a line cannot be run: it becomes an error of the batch, and nothing is asked.
        timeout_s: for all attempts together.
        retries: further attempts where that can help.
        budget_usd: no further attempt once so much was spent.
        critical: of a workflow: its failure ends the run.
        use_context: of a workflow: it is shown what the steps before it answered.
        output_file: where the answer's text is written, as the caller's program understands it.
        meta: kept with the step and given back.
    """

    name: Name = "step"
    chat: dict[str, Any] | None = None
    agent: dict[str, Any] | None = None
    prompt: str | None = None
    error: dict[str, Any] | None = None
    timeout_s: Seconds | None = None
    retries: Annotated[int, Meta(ge=0, le=10)] = 2
    budget_usd: Usd | None = None
    critical: bool = False
    use_context: bool = False
    output_file: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    meta: dict[str, Any] | None = None


class Webhook(Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Where the end of a task is told; `secret` is `whsec_…`, by default the worker's."""

    url: Annotated[str, Meta(min_length=8, max_length=2048)]
    secret: Annotated[str, Meta(pattern=r"^whsec_[A-Za-z0-9+/]{32,128}={0,2}$")] | None = None


class Options(Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What holds for a task as a whole; kept as its spec.

    Attributes:
        concurrency: lines of a batch at a time.
        budget_usd: of all steps together; what has not begun when it is spent is not begun.
        deadline_s: from its acceptance; what has not begun by then is not begun.
        webhook: told of its end.
        metadata: words of the client's own, given back.
        meta: words of the surface's own, given back.
    """

    concurrency: Annotated[int, Meta(ge=1, le=256)] | None = None
    budget_usd: Usd | None = None
    deadline_s: Annotated[float, Meta(gt=0, le=30 * 86400)] | None = None
    webhook: Webhook | None = None
    metadata: dict[str, str] | None = None
    meta: dict[str, Any] | None = None


class Submit(Struct, forbid_unknown_fields=True, kw_only=True):
    """`task.submit`."""

    kind: Literal["task", "batch", "workflow"]
    steps: list[Any] = []
    open: bool = False  # of a batch: its lines come by `task.append`, and `task.start` ends them
    surface: Annotated[str, Meta(pattern=r"^[a-z]{1,20}$")] = "task"
    priority: Annotated[int, Meta(ge=0, le=9)] = 5  # lower goes first
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    options: dict[str, Any] = {}
    key_id: str | None = None
    tenant: str | None = None


def convert(value: Any, kind: type[T], where: str = "") -> T:
    """A checked object of plain values.

    Raises:
        RpcError: BAD_PARAMS, naming the parameter.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, _, path = str(error).replace("`", "'").partition(" - at ")
        param = f"{where}{path.removeprefix('$')}".lstrip(".") or where or "params"
        raise bad(param, f"{what[:1].lower()}{what[1:]}") from None


def bad(param: str, what: str) -> RpcError:
    """The refusal of one parameter."""
    return RpcError(Code.BAD_PARAMS, f"'{param}': {what}.", {"param": param})


def read_submit(params: dict[str, Any]) -> tuple[Submit, Options]:
    """A submission, without its steps.

    Raises:
        RpcError: BAD_PARAMS.
    """
    asked = convert(params, Submit)
    options = convert(asked.options, Options, "options")
    if asked.idempotency_key is not None and not asked.idempotency_key.isprintable():
        raise bad("idempotency_key", "has characters that cannot be printed")
    if asked.open and asked.kind != "batch":
        raise bad("open", "only a batch can be submitted in parts")
    if options.concurrency is not None and asked.kind != "batch":
        raise bad("options.concurrency", "only a batch runs lines side by side")
    if options.webhook is not None:
        _check_url(options.webhook.url)
    if options.metadata is not None:
        _check_metadata(options.metadata)
    if asked.kind == "task" and len(asked.steps) != 1:
        raise bad("steps", "a task has exactly one step; several are a batch or a workflow")
    if not asked.open and not asked.steps:
        raise bad("steps", "there is nothing to do")
    return asked, options


def read_step(value: Any, where: str, kind: str, max_bytes: int) -> tuple[str, str]:
    """One step, checked: its name, and the JSON that is kept of it.

    Raises:
        RpcError: BAD_PARAMS.
    """
    step = convert(value, Step, where)
    if not step.name.isprintable():
        raise bad(f"{where}.name", "has characters that cannot be printed")
    if sum(part is not None for part in (step.chat, step.agent, step.error)) != 1:
        raise bad(where, "expected chat, or agent with prompt")
    if step.chat is not None:
        _known(step.chat, _CHAT, f"{where}.chat")
        if not step.chat.get("messages"):
            raise bad(f"{where}.chat.messages", "expected at least one message")
    if step.agent is not None:
        _known(step.agent, _AGENT, f"{where}.agent")
        if not step.prompt:
            raise bad(f"{where}.prompt", "an agent needs to be told something")
    elif step.prompt is not None:
        raise bad(f"{where}.prompt", "is an agent's; a chat has messages")
    if kind != "workflow" and (step.critical or step.use_context):
        raise bad(where, "critical and use_context are for the steps of a workflow")
    try:
        kept = msgspec.json.encode(step)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise bad(where, f"cannot be kept: {error}") from None
    if len(kept) > max_bytes:
        raise bad(where, f"is larger than {max_bytes} bytes (tasks.max_item_bytes)")
    return step.name, kept.decode()


def digest(asked: Submit) -> str:
    """What an idempotency key stands for: the request, without who sent it."""
    body = msgspec.json.encode([asked.kind, asked.surface, asked.priority, asked.options, asked.steps])
    return hashlib.sha256(body).hexdigest()


def _known(given: dict[str, Any], known: frozenset[str], where: str) -> None:
    for name in given:
        if name == "conversation_id":
            raise bad(f"{where}.{name}", "a step may be repeated, so it cannot be part of a conversation")
        if name not in known:
            raise bad(f"{where}.{name:.60}", "there is no such option")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    except ValueError:
        good = False
    if not good:
        raise bad("options.webhook.url", "expected an http or https URL without a login in it")


def _check_metadata(metadata: dict[str, str]) -> None:
    if len(metadata) > _MAX_METADATA or any(len(k) > 64 or len(v) > 512 for k, v in metadata.items()):
        raise bad(
            "options.metadata", f"at most {_MAX_METADATA} words, names up to 64 and values up to 512 long"
        )
