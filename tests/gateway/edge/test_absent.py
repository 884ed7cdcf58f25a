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
        ("GET", "/v1/files", "inside messages"),
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
        ("POST", "/api/claude-code/async", 501),
        ("GET", "/api/claude-code/task/1", 501),
        ("POST", "/api/claude-code/batch", 501),
        ("POST", "/api/claude-code/workflow", 501),
        ("GET", "/api/tasks?status=pending", 501),
        ("POST", "/api/tasks/cleanup", 501),
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
    assert answer.json["error"] == {501: "Not Implemented", 404: "Not Found"}[status]
    assert answer.json["status_code"] == status and "POST /api/claude-code" in answer.json["message"]
    assert ("x-should-retry" in answer.headers) is (status == 501)


def test_paths_elsewhere_are_shown_in_part() -> None:
    error = unknown_route("GET", "/" + "a" * 1000, [])
    assert error.status == 404
    assert len(error.error["message"] or "") < 300
