"""`POST /api/claude-code` and `GET /version` of claude_code_api."""

from __future__ import annotations

import asyncio
import datetime
import time
from typing import NamedTuple

import falcon
import falcon.asgi

from ccd_gateway.access.caller import caller_of
from ccd_gateway.answer.backend import Backend
from ccd_gateway.answer.caching import cache_use, name_cache
from ccd_gateway.compat.rate import SharedLimit
from ccd_gateway.compat.task import RESULTS, Task, TaskOptions, chat_params, read_task, result
from ccd_gateway.edge.body import read_body
from ccd_gateway.edge.work import apart
from ccd_gateway.errors import ApiError, bad_request
from ccd_gateway.images import confined
from ccd_gateway.images.confined import Confined, Place
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.surface.address import target
from ccd_gateway.surface.body import decode_object
from ccd_gateway.surface.driver import send
from ccd_gateway.surface.ignored import name_ignored
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatAnswer, ChatParams

API_VERSION = "1.0.0"
_MAX_CONTEXT_BYTES = 1 << 20
_FIRST_PAUSE_S = 0.5


class Version:
    """The CLI's version, and the older project's own."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Ask the daemon."""
        found = await self._backend.call_once("daemon.health", timeout_s=1.0)
        cli = found["cli_version"] or "unknown"
        send(resp, {"claude_code_version": cli, "api_version": API_VERSION, "timestamp": timestamp()})


class _Files(NamedTuple):
    """The files of a task, checked."""

    context: str | None
    output: Place | None


class ClaudeCode:
    """One task, answered in its own request."""

    def __init__(self, backend: Backend, settings: GatewaySettings, limit: SharedLimit) -> None:
        self._backend = backend
        self._settings = settings
        self._files = Confined(settings.allowed_roots)
        self._limit = limit

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """A failure of the model or the CLI is a result, with status 200; everything else is an error."""
        caller = caller_of(req)
        self._count(caller.name or req.remote_addr)
        body = await read_body(req, self._settings.max_body_bytes)
        fields = await apart(body, decode_object, body)
        task = await apart(body, read_task, fields)
        files = await asyncio.to_thread(self._open, task.options)
        wanted = task.options.model
        chosen = target(self._settings.model_for(wanted), None) if wanted else None
        params = chat_params(task, chosen and chosen.model, files.context, caller.tenant)
        if chosen and chosen.profile:
            params["profile"] = chosen.profile
        params["cache"] = await apart(body, cache_use, req, fields)
        started_s = time.monotonic()
        ignored = list(task.unknown)
        try:
            answer = await self._ask(params, task)
            ignored += answer["ignored"]
            name_cache(resp, [answer])
            outcome = await self._finish(task, files, answer["text"], time.monotonic() - started_s)
        except RpcError as error:
            if error.code not in RESULTS:
                raise
            outcome = result(task.options, time.monotonic() - started_s, error=error)
        name_ignored(resp, ignored)
        send(resp, {"success": outcome["success"], "result": outcome, "request_id": caller.request_id})

    def _count(self, who: str) -> None:
        wait_s = self._limit.take(who)
        if wait_s:
            per_minute = self._settings.flask_requests_per_minute
            headers = [("retry-after", str(int(wait_s) + 1))]
            text = f"More than {per_minute} requests in a minute. Try again in {int(wait_s) + 1} s."
            raise ApiError(429, text, code="rate_limit_exceeded", headers=headers)

    def _open(self, options: TaskOptions) -> _Files:
        """Find and check the files before anything is spent; blocks."""
        base = self._base(options)
        context, output = None, None
        if options.output_file is not None:
            output = self._files.place(options.output_file, "options.output_file", base)
            confined.check_writable(output, "options.output_file")
        if options.context_file is not None:
            place = self._files.place(options.context_file, "options.context_file", base)
            data = confined.read(place, "options.context_file", _MAX_CONTEXT_BYTES)
            try:
                context = data.decode()
            except UnicodeDecodeError:
                raise bad_request(
                    "'options.context_file': is not text in UTF-8.", "options.context_file"
                ) from None
        return _Files(context, output)

    def _base(self, options: TaskOptions) -> Place | None:
        """Where relative paths begin: `working_dir`, which may be relative to `project_dir`.

        Directories have no other use, as the model has no tools. A task that names one without such a path
        expects more than it would get, and is refused.
        """
        base: Place | None = None
        for name in ("project_dir", "working_dir"):
            text = getattr(options, name)
            if text is None:
                continue
            base = self._files.place(text, f"options.{name}", base)
            confined.check_directory(base, f"options.{name}")
            named = (options.context_file, options.output_file)
            if not any(path is not None and not path.startswith("/") for path in named):
                raise bad_request(
                    f"'options.{name}': answers are made without access to directories, so it would have no effect. "
                    "It is where relative paths of context_file and output_file begin; give one of those.",
                    f"options.{name}",
                    "unsupported_parameter",
                )
        return base

    async def _ask(self, params: ChatParams, task: Task) -> ChatAnswer:
        """Ask, and again where that can help, within the task's time."""
        given = task.options
        timeout_s = self._settings.flask_timeout_s if given.timeout is None else given.timeout
        left = self._settings.flask_max_retries if given.max_retries is None else given.max_retries
        pause_s = _FIRST_PAUSE_S
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        return await self._backend.complete(params)
                    except RpcError as error:
                        if error.code not in RESULTS or not error.retryable or not left:
                            raise
                        wait_ms = error.retry_after_ms
                    left -= 1
                    await asyncio.sleep(pause_s if wait_ms is None else wait_ms / 1000)
                    pause_s *= 2
        except TimeoutError:
            raise RpcError(Code.DEADLINE, f"no answer within {timeout_s:g} s") from None

    async def _finish(self, task: Task, files: _Files, text: str, took_s: float) -> dict[str, object]:
        """Write the output file. An answer is not lost when that fails."""
        if files.output is None:
            return result(task.options, took_s, output=text)
        try:
            await asyncio.to_thread(confined.write, files.output, "options.output_file", text.encode())
        except ApiError as error:
            return result(task.options, took_s, output=text, error=RpcError(Code.STORAGE, str(error)))
        return result(task.options, took_s, output=text)


def timestamp() -> str:
    """Now, as that project wrote it: UTC without saying so, whole seconds."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
