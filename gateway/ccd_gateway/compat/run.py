"""`POST /api/claude-code` and `GET /version` of claude_code_api."""

from __future__ import annotations

import asyncio
import datetime
import time

import falcon
import falcon.asgi

from ccd_gateway.access.caller import caller_of
from ccd_gateway.answer.backend import Backend
from ccd_gateway.answer.caching import cache_use, name_cache
from ccd_gateway.compat.rate import SharedLimit
from ccd_gateway.compat.task import RESULTS, Task, chat_params, read_task, result
from ccd_gateway.compat.task_files import Files, TaskFiles
from ccd_gateway.edge.body import read_body
from ccd_gateway.edge.work import apart
from ccd_gateway.errors import ApiError
from ccd_gateway.images import confined
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.surface.address import target
from ccd_gateway.surface.body import decode_object
from ccd_gateway.surface.driver import send
from ccd_gateway.surface.ignored import name_ignored
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatAnswer, ChatParams

API_VERSION = "1.0.0"
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


class ClaudeCode:
    """One task, answered in its own request."""

    def __init__(self, backend: Backend, settings: GatewaySettings, limit: SharedLimit) -> None:
        self._backend = backend
        self._settings = settings
        self._files = TaskFiles(settings.allowed_roots)
        self._limit = limit

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """A failure of the model or the CLI is a result, with status 200; everything else is an error."""
        caller = caller_of(req)
        self._limit.check(caller.name or req.remote_addr)
        body = await read_body(req, self._settings.max_body_bytes)
        fields = await apart(body, decode_object, body)
        task = await apart(body, read_task, fields)
        files = await asyncio.to_thread(self._files.open, task.options)
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

    async def _finish(self, task: Task, files: Files, text: str, took_s: float) -> dict[str, object]:
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
