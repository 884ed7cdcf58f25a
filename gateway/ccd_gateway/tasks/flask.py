"""claude_code_api's tasks, batches and workflows: its keys, words and statuses, over durable work."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from typing import Any

import falcon
import falcon.asgi
import msgspec

from ccd_gateway.access.caller import Caller, caller_of
from ccd_gateway.compat import task as flask_task
from ccd_gateway.compat.rate import SharedLimit
from ccd_gateway.compat.task import OPTIONS, CompatTaskOptions, chat_params, read_task
from ccd_gateway.compat.task_files import TaskFiles
from ccd_gateway.edge.body import read_body
from ccd_gateway.edge.work import apart
from ccd_gateway.errors import bad_request
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.surface.address import target
from ccd_gateway.surface.body import decode_object
from ccd_gateway.surface.driver import send
from ccd_gateway.tasks.options import (
    WHOLE,
    idempotency_key,
    refuse_unknown,
    wait_of,
    whole,
    whole_number,
)
from ccd_gateway.tasks.worker import Item, Task, TaskWorker
from ccd_protocol.errors import Code, RpcError

SUBMITTED = "任务已提交,请使用task_id查询结果"
CLEANED = "已清理 {days} 天前的旧任务"
STATUSES = ("pending", "running", "completed", "failed", "cancelled", "interrupted")
_SURFACES = ["flask", "task"]
_STEP = ("name", "prompt", "options", "critical", "use_context", "retries", "budget_usd")
_ONE = ("prompt", "options", "priority", "idempotency_key", *WHOLE)
_BATCH = ("tasks", "timeout", "max_retries", "concurrency", "priority", "idempotency_key", "async", *WHOLE)
_WORKFLOW = ("workflow", "priority", "idempotency_key", "async", *WHOLE)


class FlaskTasks:
    """The resource; one instance per worker process."""

    def __init__(self, worker: TaskWorker, settings: GatewaySettings, limit: SharedLimit) -> None:
        self._worker = worker
        self._settings = settings
        self._limit = limit
        self._files = TaskFiles(settings.allowed_roots)
        self._leaving: set[asyncio.Future[Any]] = set()

    # --- submitting ---

    async def on_post_async(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Accept one task: 202 with its id."""
        caller, fields = await self._read(req, _ONE)
        step = await self._step(fields, self._settings.flask_timeout_s, self._settings.flask_max_retries)
        task = await self._submit(req, caller, "task", [step], fields)
        self._accepted(resp, task, caller)

    async def on_post_batch(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Run many, side by side; one that fails does not hurt the others."""
        caller, fields = await self._read(req, _BATCH)
        given = _list(fields, "tasks")
        timeout_s = _number(fields, "timeout", self._settings.flask_timeout_s, 0.001, 3600)
        retries = int(_number(fields, "max_retries", self._settings.flask_max_retries, 0, 10))
        steps = []
        for number, one in enumerate(given):
            where = f"tasks[{number}]."
            refuse_unknown(one, ("prompt", "options"), where)
            steps.append(await self._step(one, timeout_s, retries, where, f"task-{number + 1}"))
        task = await self._submit(
            *(req, caller, "batch", steps, fields), concurrency=fields.get("concurrency")
        )
        await self._answer(req, resp, caller, task, fields)

    async def on_post_workflow(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Run steps in order."""
        caller, fields = await self._read(req, _WORKFLOW)
        defaults = (self._settings.flask_timeout_s, self._settings.flask_max_retries)
        steps = []
        for number, one in enumerate(_list(fields, "workflow")):
            where = f"workflow[{number}]."
            refuse_unknown(one, _STEP, where)
            name = one.get("name")
            if not isinstance(name, str) or not name.strip():
                raise bad_request(f"'{where}name': every step needs a name.", f"{where}name")
            step = await self._step(one, *defaults, where, name)
            for word in ("critical", "use_context"):
                if not isinstance(one.get(word), bool | None):
                    raise bad_request(f"'{where}{word}': expected true or false.", f"{where}{word}")
                step[word] = bool(one.get(word))
            for word in ("retries", "budget_usd"):
                if one.get(word) is not None:
                    step[word] = one[word]
            steps.append(step)
        task = await self._submit(req, caller, "workflow", steps, fields)
        await self._answer(req, resp, caller, task, fields)

    async def _submit(
        self,
        req: falcon.asgi.Request,
        caller: Caller,
        kind: str,
        steps: list[dict[str, Any]],
        fields: Mapping[str, Any],
        **more: Any,
    ) -> Task:
        params: dict[str, Any] = {"kind": kind, "surface": "flask", "steps": steps}
        params["options"] = whole(fields, **more)
        if fields.get("priority") is not None:
            params["priority"] = fields["priority"]
        return await self._worker.submit(caller, {**params, "idempotency_key": idempotency_key(req, fields)})

    async def _step(
        self,
        one: Mapping[str, Any],
        timeout_s: float,
        retries: int,
        where: str = "",
        name: str = "task",
    ) -> dict[str, Any]:
        task = read_task({word: one[word] for word in ("prompt", "options") if word in one})
        refuse_unknown(one.get("options") or {}, OPTIONS, f"{where}options.")
        options = task.options
        files = await asyncio.to_thread(self._files.open, options)
        chosen = target(self._settings.model_for(options.model), None) if options.model else None
        params = dict(chat_params(task, chosen and chosen.model, files.context, ""))
        del params["tenant"]
        if chosen and chosen.profile:
            params["profile"] = chosen.profile
        params = {**await self._worker.permit(params)}
        params.pop("tenant", None)
        step: dict[str, Any] = {
            **{"name": name, "chat": params},
            "timeout_s": timeout_s if options.timeout is None else options.timeout,
            "retries": retries if options.max_retries is None else options.max_retries,
            "meta": {"options": msgspec.to_builtins(options)},
        }
        if files.output_path is not None:
            step["output_file"] = files.output_path
        return step

    async def _answer(
        self,
        req: falcon.asgi.Request,
        resp: falcon.asgi.Response,
        caller: Caller,
        task: Task,
        fields: Mapping[str, Any],
    ) -> None:
        """Wait for the end, as the older project does; with `"async": true` answer at once.

        A client that leaves takes its work with it, unless it can come back for it by an idempotency key.
        """
        if not isinstance(fields.get("async"), bool | None):
            raise bad_request("'async': expected true or false.", "async")
        if fields.get("async"):
            self._accepted(resp, task, caller)
            return
        try:
            task = await self._worker.wait(caller, task["id"], None)
        except asyncio.CancelledError:
            if idempotency_key(req, fields) is None:
                leaving = asyncio.ensure_future(
                    self._worker.call(caller, "task.cancel", {"task_id": task["id"]})
                )
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
                leaving.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise
        items = [item async for item in self._worker.items(caller, task["id"])]
        send(resp, {**shown(task, items), "request_id": caller.request_id})

    def _accepted(self, resp: falcon.asgi.Response, task: Task, caller: Caller) -> None:
        resp.status = 202
        told = {"task_id": task["id"], "status": "pending" if not task["final"] else task["status"]}
        send(resp, {**told, "message": SUBMITTED, "request_id": caller.request_id})

    # --- looking ---

    async def on_get_task(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str) -> None:
        """One task; `?wait=SECONDS` waits for its end."""
        caller, wait_s = caller_of(req), wait_of(req)
        if wait_s:
            task = await self._worker.wait(caller, task_id, wait_s)
        else:
            task = await self._worker.call(caller, "task.get", {"task_id": task_id})
        result = None
        if task["final"]:
            items = [item async for item in self._worker.items(caller, task_id)]
            result = result_of(items[0]) if task["kind"] == "task" else shown(task, items)
        send(
            resp,
            {**row(task), "task_id": task["id"], **_times(task), "result": result, **_further(task, caller)},
        )

    async def on_get_list(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Tasks, newest first."""
        caller = caller_of(req)
        status = req.get_param("status")
        if status is not None and status not in STATUSES:
            raise bad_request(f"'status': expected one of {', '.join(STATUSES)}.", "status")
        limit = whole_number(req, "limit", 50, 1, 1000)
        offset = whole_number(req, "offset", 0, 0, 1_000_000_000)
        params = {"statuses": [status] if status else [], "surfaces": _SURFACES}
        found = await self._worker.call(caller, "task.list", {**params, "limit": limit, "offset": offset})
        tasks = [{"id": task["id"], **row(task)} for task in found["tasks"]]
        told = {"total": found["total"], "limit": limit, "offset": offset}
        send(resp, {"tasks": tasks, **told, "request_id": caller.request_id})

    async def on_post_cleanup(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Forget old tasks."""
        caller, fields = await self._read(req, ("days",), body_needed=False)
        days = fields.get("days", 7)
        if not isinstance(days, int) or isinstance(days, bool) or not 0 <= days <= 36500:
            raise bad_request("'days': expected a whole number from 0 to 36500.", "days")
        done = await self._worker.call(caller, "task.cleanup", {"older_than_s": days * 86400})
        told = {"message": CLEANED.format(days=days), "deleted": done["deleted"]}
        send(resp, {**told, "request_id": caller.request_id})

    async def _read(
        self, req: falcon.asgi.Request, known: tuple[str, ...], *, body_needed: bool = True
    ) -> tuple[Caller, dict[str, Any]]:
        caller = caller_of(req)
        self._limit.check(caller.name or req.remote_addr)
        body = await read_body(req, self._settings.max_body_bytes)
        fields = {} if not body.strip() and not body_needed else await apart(body, decode_object, body)
        refuse_unknown(fields, known)
        return caller, fields


# --- that project's shapes ---


def row(task: Task) -> dict[str, Any]:
    """What both the list and the task say."""
    return {
        "status": task["status"] if task["status"] != "open" else "pending",
        "created_at": when(task["created_at"]),
        "updated_at": when(task["updated_at"]),
    }


def _times(task: Task) -> dict[str, Any]:
    return {name: when(task[name]) for name in ("started_at", "completed_at")}


def _further(task: Task, caller: Caller) -> dict[str, Any]:
    return {
        **{"error": task["error"], "usage": task["usage"], "cost_usd": task["cost_usd"]},
        **{"interruptions": task["interruptions"], "request_id": caller.request_id},
    }


def when(at_s: float | None) -> str | None:
    """A time as that project wrote it: UTC without saying so, whole seconds."""
    if at_s is None:
        return None
    return datetime.datetime.fromtimestamp(at_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")


def result_of(item: Item) -> dict[str, Any]:
    """RESULT of an item that has ended."""
    options = msgspec.convert((item["meta"] or {}).get("options") or {}, CompatTaskOptions)
    answer, error = item["result"] or {}, item["error"]
    took_s = (item["completed_at"] or 0) - (item["started_at"] or item["completed_at"] or 0)
    failure = None
    if error is not None or item["status"] != "completed":
        said = error or {"code": item["status"], "message": f"this task is {item['status']}"}
        code = Code.DEADLINE if said["code"] == "deadline" else Code.INTERNAL
        failure = RpcError(code, f"{said['code']}: {said['message']}")
    elif answer.get("output_error"):
        failure = RpcError(Code.STORAGE, str(answer["output_error"]))
    return flask_task.result(options, took_s, output=answer.get("text", ""), error=failure)


def shown(task: Task, items: list[Item]) -> dict[str, Any]:
    """BATCH or WORKFLOW."""
    results = [result_of(item) for item in items]
    good = sum(result["success"] for result in results)
    if task["kind"] == "batch":
        return {
            **{"success": good == len(results), "total_tasks": len(results), "successful_tasks": good},
            **{"failed_tasks": len(results) - good, "results": results, "task_id": task["id"]},
        }
    begun = [pair for pair in zip(items, results, strict=True) if pair[0]["started_at"] is not None]
    done = sum(result["success"] for _, result in begun)
    steps = [
        {
            **{"step_name": item["name"], "step_number": item["number"] + 1},
            **{"success": result["success"], "result": result},
        }
        for item, result in begun
    ]
    context = {item["name"]: result["output"] for item, result in begun if result["success"]}
    return {
        **{"success": good == len(results), "total_steps": len(results), "completed_steps": len(begun)},
        **{"successful_steps": done, "failed_steps": len(begun) - done, "results": steps},
        **{"final_context": context, "task_id": task["id"]},
    }


def _list(fields: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    given = fields.get(name)
    if not isinstance(given, list) or not given or not all(isinstance(one, dict) for one in given):
        raise bad_request(f"'{name}': expected a list of at least one object.", name)
    return given


def _number(fields: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise bad_request(f"'{name}': expected a number from {least:g} to {most:g}.", name)
    return float(value)
