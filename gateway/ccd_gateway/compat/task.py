"""One task of claude_code_api: its options, what is asked for it, and the form of its result. No I/O."""

from __future__ import annotations

import shlex
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from ccd_gateway.errors import bad_request
from ccd_gateway.surface.body import violation
from ccd_gateway.surface.ignored import safe_name
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatParams

MISSING_PROMPT = "缺少必需的prompt参数"
TIMED_OUT = 124  # as timeout(1) says it
_Path = Annotated[str, Meta(min_length=1, max_length=4096)]

#: Failures of the model or the CLI: they are results. All others are answered with their status.
RESULTS = frozenset(
    {
        Code.WORKER_CRASHED,
        Code.WORKER_OOM,
        Code.WORKER_STUCK,
        Code.WORKER_SPAWN,
        Code.UPSTREAM_AUTH,
        Code.UPSTREAM_LIMIT,
        Code.UPSTREAM_ERROR,
        Code.UPSTREAM_OVERLOADED,
        Code.MODEL_NOT_FOUND,
        Code.CONTEXT_TOO_LONG,
        Code.DEADLINE,
    }
)


class CompatTaskOptions(Struct, kw_only=True):
    """`options` of a task; null and absent mean the same."""

    format: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    model: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    timeout: Annotated[float, Meta(gt=0, le=3600)] | None = None
    max_retries: Annotated[int, Meta(ge=0, le=10)] | None = None
    output_file: _Path | None = None
    context_file: _Path | None = None
    project_dir: _Path | None = None
    working_dir: _Path | None = None


OPTIONS = frozenset(CompatTaskOptions.__struct_fields__)


class Task(NamedTuple):
    """What is to be asked; `unknown` are options that there never were."""

    prompt: str
    options: CompatTaskOptions
    unknown: list[str]


def read_task(fields: dict[str, Any]) -> Task:
    """A task from a request.

    Raises:
        ApiError: 400.
    """
    prompt = fields.get("prompt")
    if prompt is None or prompt == "":
        raise bad_request(MISSING_PROMPT, "prompt", "missing_required_parameter")
    if not isinstance(prompt, str) or not prompt.strip():
        raise bad_request("'prompt' must be a text that is not blank.", "prompt")
    given = fields.get("options")
    if not isinstance(given, dict | None):
        raise bad_request("'options' must be an object.", "options")
    try:
        options = msgspec.convert(given or {}, CompatTaskOptions)
    except msgspec.ValidationError as error:
        what, path, _ = violation(error)
        raise bad_request(f"'options.{path}': {what[:1].lower()}{what[1:]}.", f"options.{path}") from None
    if options.format is not None and not options.format.isprintable():
        raise bad_request("'options.format': expected a word, for example json.", "options.format")
    names = [f"options.{safe_name(name)}" for name in given or {} if name not in OPTIONS]
    return Task(
        prompt, options, names + [safe_name(name) for name in fields if name not in ("prompt", "options")]
    )


def chat_params(task: Task, model: str | None, context: str | None, tenant: str) -> ChatParams:
    """The call for a task; `context` is the content of its context file."""
    options = task.options
    text = task.prompt if context is None else f"<context>\n{context}\n</context>\n\n{task.prompt}"
    params = ChatParams(messages=[{"role": "user", "content": text}], tenant=tenant)
    if model is not None:
        params["model"] = model
    if options.max_tokens is not None:
        params["max_tokens"] = options.max_tokens
    if options.temperature is not None:
        params["temperature"] = options.temperature
    kind = (options.format or "text").lower()
    if kind == "json":
        params["format"] = {"type": "json_object"}
    elif kind != "text":
        params["system"] = f"Write the whole answer as {options.format}, and nothing else."
    return params


def result(
    options: CompatTaskOptions, took_s: float, *, output: str = "", error: RpcError | None = None
) -> dict[str, Any]:
    """RESULT of a task that was answered, or failed."""
    timed_out = error is not None and error.code is Code.DEADLINE
    return {
        "status": "success" if error is None else "timeout" if timed_out else "error",
        "output": output,
        "error": "" if error is None else error.message,
        "return_code": 0 if error is None else TIMED_OUT if timed_out else 1,
        "execution_time": round(took_s, 3),
        "command": command(options),
        "success": error is None,
    }


def command(options: CompatTaskOptions) -> str:
    """The command that the older project would have run, without key and prompt. ccd runs none for a task."""
    words = ["claude", "code", "--api-key", "***", "--prompt", "..."]
    for name in ("format", "model", "max_tokens", "temperature"):
        value = getattr(options, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", shlex.quote(str(value))]
    return " ".join(words)
