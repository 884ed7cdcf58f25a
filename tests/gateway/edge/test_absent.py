from __future__ import annotations

import pytest

from ccd_gateway.edge.absent import unknown_route
from fakes.gateway_daemon import Daemon
from fakes.gateway_process import Gateway


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("POST", "/v1/embeddings", "makes no embeddings"),
        ("POST", "/v1/completions", "as a user message"),
        ("POST", "/v1/audio/speech", "neither speaks"),
        ("POST", "/v1/images/generations", "makes no images"),
        ("POST", "/v1/moderations", "no moderation model"),
        ("POST", "/v1/fine_tuning/jobs", "cannot be tuned"),
        ("POST", "/v1/surprise", "There is no POST /v1/surprise here."),
    ],
)
def test_what_is_not_here_says_what_is(
    gateway: Gateway, daemon: Daemon, method: str, path: str, reason: str
) -> None:
    answer = gateway.request(method, path, {"model": "m", "input": "x"} if method == "POST" else None)
    assert (answer.status, answer.error["code"], answer.error["type"]) == (
        404,
        "unknown_url",
        "not_found_error",
    )
    assert reason in answer.error["message"]
    assert "/v1/chat/completions" in answer.error["message"] and "/v1/models" in answer.error["message"]
    assert daemon.calls == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/claude-code/nothing", 404),
        ("GET", "/api/nothing", 404),
        ("GET", "/api/", 404),
    ],
)
def test_what_the_flask_project_had_says_what_there_is(
    gateway: Gateway, daemon: Daemon, method: str, path: str, status: int
) -> None:
    answer = gateway.request(method, path, {} if method == "POST" else None)
    assert answer.status == status
    assert set(answer.json) == {"error", "message", "status_code"}
    assert answer.json["error"] == "Not Found"
    assert answer.json["status_code"] == status and "POST /api/claude-code" in answer.json["message"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/claude-code/async", {"prompt": "hi"}),
        ("GET", "/api/claude-code/task/1", None),
        ("POST", "/api/claude-code/batch", {"tasks": [{"prompt": "hi"}]}),
        ("GET", "/api/tasks?status=pending", None),
        ("GET", "/v1/tasks", None),
        ("GET", "/v1/tasks/1/events", None),
    ],
)
def test_without_a_worker_tasks_say_what_to_start(
    gateway: Gateway, method: str, path: str, body: object
) -> None:
    answer = gateway.request(method, path, body)
    assert answer.status == 503 and "ccd worker" in str(answer.json)
    assert answer.headers["retry-after"]


def test_paths_elsewhere_are_shown_in_part() -> None:
    error = unknown_route("GET", "/" + "a" * 1000, [])
    assert error.status == 404
    assert len(error.error["message"] or "") < 300
