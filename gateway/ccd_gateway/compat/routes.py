"""Where the older projects' own surfaces are: `/stats`, `/version`, `/api`."""

from __future__ import annotations

from ccd_gateway.answer.backend import Backend
from ccd_gateway.compat.rate import SharedLimit
from ccd_gateway.compat.run import ClaudeCode, Version
from ccd_gateway.compat.stats import Stats
from ccd_gateway.compat.task import CompatTaskOptions
from ccd_gateway.edge.description import (
    ANSWERING,
    COUNT,
    TEXT,
    Description,
    operation,
    record,
    ref,
    typed,
)
from ccd_gateway.edge.routing import CHAT, Refusing, Route
from ccd_gateway.errors import ApiError
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.shapes import FLASK

AGENT = ("agent",)
_FAILING = {number: text for number, text in ANSWERING.items() if number not in (404, 413)}


def routes(backend: Backend, settings: GatewaySettings, limit: SharedLimit) -> list[Route]:
    """All of them but those of durable work."""
    task = ClaudeCode(backend, settings, limit)
    missing = Refusing(not_there)
    return [
        Route("/stats", Stats(backend), _stats, scopes=("stats",)),
        Route("/version", Version(backend), _version, scopes=CHAT, shape=FLASK),
        Route("/api/claude-code", task, _task, scopes=AGENT, shape=FLASK),
        Route("/api", missing, scopes=AGENT, shape=FLASK),
        Route("/api/{rest:path}", missing, scopes=AGENT, shape=FLASK),
    ]


def not_there(method: str, path: str) -> ApiError:
    """The 404 for a path below /api that leads nowhere."""
    there = (
        "There are: POST /api/claude-code, and below it POST /async, /batch and /workflow and GET /task/ID; "
        "GET /api/tasks, POST /api/tasks/cleanup, GET /version, GET /health."
    )
    return ApiError(404, f"There is no {method} {path[:200]} here. {there}", code="unknown_url")


def _stats() -> Description:
    cache = record({"enabled": {"type": "boolean"}, "total_entries": COUNT, "total_hits": COUNT})
    return Description({"get": operation("stats", record({"cache": cache, "version": TEXT}), _FAILING)})


def _version() -> Description:
    version = record({"claude_code_version": TEXT, "api_version": TEXT, "timestamp": TEXT})
    return Description({"get": operation("version", version, _FAILING, shape=FLASK)})


def _task() -> Description:
    outcome = {
        "status": {"enum": ["success", "error", "timeout"]},
        "output": TEXT,
        "error": TEXT,
        "return_code": {"type": "integer"},
        "execution_time": {"type": "number"},
        "command": TEXT,
        "success": {"type": "boolean"},
    }
    answer = record({"success": {"type": "boolean"}, "result": record(outcome), "request_id": TEXT})
    options = {"anyOf": [{"type": "null"}, ref("TaskOptions")]}
    task = {**record({"prompt": TEXT}), "properties": {"prompt": TEXT, "options": options}}
    post = operation("claudeCode", answer, ANSWERING, shape=FLASK, body=task, cached=True)
    return Description({"post": post}, typed(CompatTaskOptions))
