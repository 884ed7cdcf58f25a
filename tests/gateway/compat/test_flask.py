"""The Flask project's HTTP surface, in front of a stand-in for the daemon."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccd_protocol.errors import Code, RpcError
from fakes.gateway_daemon import HEALTHY, RESULT, Call, Daemon
from fakes.gateway_process import Answer, Gateway

PATH = "/api/claude-code"


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ccd-") as folder:
        (Path(folder) / "root" / "sub").mkdir(parents=True)
        yield Path(folder) / "root"


@pytest.fixture(scope="module")
def files(_daemon: Daemon, root: Path) -> Iterator[Gateway]:
    """A gateway that lets requests name files beneath `root`."""
    with Gateway(_daemon.path, allowed_roots=[str(root)]) as running:
        yield running


def run(
    gateway: Gateway, prompt: Any = "hi", headers: dict[str, str] | None = None, **options: Any
) -> Answer:
    return gateway.request("POST", PATH, {"prompt": prompt, "options": options}, headers)


def error(answer: Answer) -> dict[str, Any]:
    body: dict[str, Any] = answer.json
    assert set(body) == {"error", "message", "status_code"}
    assert body["status_code"] == answer.status
    assert answer.headers["content-type"].startswith("application/json")
    assert int(answer.headers["content-length"]) == len(answer.body)
    return body


def test_an_answer(gateway: Gateway, daemon: Daemon) -> None:
    answer = run(gateway, headers={"X-Request-ID": "mine"}, model="sonnet", max_tokens=9, temperature=0.5)
    assert (answer.status, answer.headers["x-request-id"]) == (200, "mine")
    body = answer.json
    assert isinstance(body["result"].pop("execution_time"), float)
    assert body == {
        "success": True,
        "request_id": "mine",
        "result": {
            "status": "success",
            "output": "whole",
            "error": "",
            "return_code": 0,
            "command": "claude code --api-key *** --prompt ... --model sonnet --max-tokens 9 --temperature 0.5",
            "success": True,
        },
    }
    assert daemon.calls[0][1].pop("cache")["key"]
    assert daemon.calls == [
        (
            "chat.complete",
            {
                "messages": [{"role": "user", "content": "hi"}],
                "tenant": "local",
                "model": "sonnet",
                "max_tokens": 9,
                "temperature": 0.5,
            },
        )
    ]


def test_request_id_is_made_and_the_same_in_body_and_header(gateway: Gateway, daemon: Daemon) -> None:
    answer = run(gateway)
    assert answer.json["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("given", "key", "sent"),
    [
        (None, "format", None),
        ("text", "system", None),
        ("json", "format", {"type": "json_object"}),
        ("python", "system", "Write the whole answer as python, and nothing else."),
        ("markdown", "system", "Write the whole answer as markdown, and nothing else."),
    ],
)
def test_formats(gateway: Gateway, daemon: Daemon, given: str | None, key: str, sent: Any) -> None:
    assert run(gateway, format=given).status == 200
    assert daemon.calls[-1][1].get(key) == sent


def test_a_model_that_does_not_exist_is_a_result_not_a_refusal(gateway: Gateway, daemon: Daemon) -> None:
    daemon.fail(Code.MODEL_NOT_FOUND, "no such model")
    answer = run(gateway, model="claude-x", max_retries=2)
    assert (answer.status, answer.json["success"]) == (200, False)
    found = answer.json["result"]
    assert (found["status"], found["return_code"], found["error"]) == ("error", 1, "no such model")
    assert (found["success"], found["output"], len(daemon.calls)) == (False, "", 1)
    assert daemon.calls[0][1]["model"] == "claude-x"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "缺少必需的prompt参数"),
        ({"prompt": ""}, "缺少必需的prompt参数"),
        ({"prompt": None, "options": {}}, "缺少必需的prompt参数"),
        ({"prompt": "  "}, "blank"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": "x", "options": []}, "options"),
        ({"prompt": "x", "options": {"temperature": 1.5}}, "options.temperature"),
        ({"prompt": "x", "options": {"max_tokens": "many"}}, "options.max_tokens"),
        ({"prompt": "x", "options": {"timeout": 0}}, "options.timeout"),
        ({"prompt": "x", "options": {"max_retries": 11}}, "options.max_retries"),
        ({"prompt": "x", "options": {"format": "a\nb"}}, "options.format"),
        ({"prompt": "x", "options": {"output_file": "a.txt"}}, "gateway.allowed_roots"),
        ({"prompt": "x", "options": {"context_file": "/etc/passwd"}}, "gateway.allowed_roots"),
        ({"prompt": "x", "options": {"project_dir": "/"}}, "gateway.allowed_roots"),
        ({"prompt": "x", "options": {"working_dir": "."}}, "gateway.allowed_roots"),
        (b"{", "JSON"),
        (b"[]", "object"),
    ],
)
def test_bad_requests(gateway: Gateway, daemon: Daemon, body: Any, message: str) -> None:
    answer = gateway.request("POST", PATH, body)
    assert answer.status == 400
    found = error(answer)
    assert found["error"] == "Bad Request"
    assert message in found["message"]
    assert daemon.calls == []


def test_what_there_never_was_is_named(gateway: Gateway, daemon: Daemon) -> None:
    answer = gateway.request("POST", PATH, {"prompt": "x", "options": {"colour": 1}, "extra": 2})
    assert answer.headers["x-ccd-ignored"] == "options.colour, extra"
    daemon.chat(ignored=["temperature"])
    assert run(gateway, temperature=0.1).headers["x-ccd-ignored"] == "temperature"


def test_framework_errors_have_that_form_too(gateway: Gateway, daemon: Daemon) -> None:
    assert error(gateway.request("GET", "/api/nothing"))["error"] == "Not Found"
    refused = gateway.request("GET", PATH)
    assert error(refused)["error"] == "Method Not Allowed"
    assert "POST" in refused.headers["allow"]
    assert error(gateway.request("POST", "/version"))["status_code"] == 405
    assert error(gateway.request("POST", PATH, b"x" * 1_000_001))["status_code"] == 413
    assert error(run(gateway, headers={"Host": "evil.example"}))["error"] == "Forbidden"
    assert gateway.request("GET", "/v1/nothing").error["code"] == "unknown_url"
    head = gateway.request("HEAD", "/api/nothing")
    assert (head.status, head.body) == (404, b"")


@pytest.mark.parametrize(("code", "status"), [(Code.BUSY, 429), (Code.BUDGET, 429), (Code.INTERNAL, 500)])
def test_failures_that_are_no_results(gateway: Gateway, daemon: Daemon, code: Code, status: int) -> None:
    daemon.fail(code, "what to do")
    answer = run(gateway, max_retries=0)
    assert (answer.status, error(answer)["message"]) == (status, "what to do")


def test_it_is_asked_again_where_that_can_help(gateway: Gateway, daemon: Daemon) -> None:
    tries = 0

    async def twice(call: Call) -> Any:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise RpcError(Code.UPSTREAM_OVERLOADED, "busy", {"retry_after_ms": 1})
        return {**RESULT, "content": [], "text": "at last"}

    daemon.scripts["chat.complete"] = twice
    assert run(gateway, max_retries=2).json["result"]["output"] == "at last"
    tries = 0
    answer = run(gateway, max_retries=1).json
    assert (tries, answer["success"], answer["result"]["error"]) == (2, False, "busy")


def test_timeout_cancels_the_turn(gateway: Gateway, daemon: Daemon) -> None:
    daemon.hang()
    found = run(gateway, timeout=0.2).json["result"]
    assert (found["status"], found["return_code"], found["success"]) == ("timeout", 124, False)
    assert daemon.cancellations.acquire(timeout=10)
    assert daemon.cancelled == ["chat.complete"]


def test_version(gateway: Gateway, daemon: Daemon) -> None:
    body = gateway.request("GET", "/version").json
    assert len(body.pop("timestamp")) == len("2024-01-01T00:00:00")
    assert body == {"claude_code_version": HEALTHY["cli_version"], "api_version": "1.0.0"}


def test_rate_limit_is_shared_by_the_processes(daemon: Daemon) -> None:
    with Gateway(daemon.path, workers=2, flask_requests_per_minute=5) as limited:
        answers = [run(limited) for _ in range(7)]
        assert [answer.status for answer in answers[:5]] == [200] * 5
        late = [answer for answer in answers if answer.status != 200]
        assert late and all(answer.status == 429 for answer in late)
        assert error(late[0])["error"] == "Too Many Requests"
        assert 1 <= int(late[0].headers["retry-after"]) <= 13
        assert limited.chat().status == 200  # the other surfaces have limits of their own


# --- files ---


def test_files_are_read_and_written(files: Gateway, daemon: Daemon, root: Path) -> None:
    (root / "sub" / "notes.txt").write_text("ünïcode notes")
    answer = run(files, context_file=str(root / "sub" / "notes.txt"), output_file="sub/out.txt")
    assert answer.json["success"] is True
    assert "<context>\nünïcode notes\n</context>" in daemon.calls[-1][1]["messages"][0]["content"]
    assert (root / "sub" / "out.txt").read_text() == "whole"
    run(files, context_file="notes.txt", output_file="out.txt", working_dir="sub", project_dir=str(root))
    assert "notes" in daemon.calls[-1][1]["messages"][0]["content"]
    assert sorted(os.listdir(root / "sub")) == ["notes.txt", "out.txt"]


def test_a_directory_that_would_have_no_effect_is_refused(files: Gateway, daemon: Daemon, root: Path) -> None:
    for options in ({"project_dir": str(root)}, {"working_dir": "sub", "context_file": "/x"}):
        answer = run(files, **options)
        assert (answer.status, "no effect" in error(answer)["message"]) == (400, True)
    assert daemon.calls == []


@pytest.fixture
def traps(root: Path) -> Iterator[list[str]]:
    """Paths that lead out of the root, or to what is not a file; each exists."""
    outside = root.parent / "secret.txt"
    outside.write_text("secret")
    made = {name: root / name for name in ("link", "dirlink", "hard", "pipe", "big")}
    made["link"].symlink_to(outside)
    made["dirlink"].symlink_to(root.parent)
    made["hard"].hardlink_to(outside)
    os.mkfifo(made["pipe"])
    made["big"].write_bytes(b"x" * ((1 << 20) + 1))
    yield [
        *("link", "dirlink/secret.txt", "hard", "pipe", "sub", ".", ""),
        *("../secret.txt", f"{root}/../secret.txt", str(outside), f"{root}x/secret.txt"),
        *("/proc/self/environ", "/dev/zero", "a\0b", "x" * 5000, "missing/a"),
    ]
    for path in made.values():
        path.unlink()


def test_no_path_leads_out(files: Gateway, daemon: Daemon, root: Path, traps: list[str]) -> None:
    for name in traps:
        for option in ("context_file", "output_file"):
            answer = run(files, **{option: name})
            assert answer.status == 400, (option, name)
            assert f"options.{option}" in error(answer)["message"]
            assert "secret" not in answer.json["message"].replace("secret.txt", "")
    for name in ("big", "missing"):
        assert run(files, context_file=name).status == 400
    for name in ("dirlink", "..", "/etc", "big"):
        assert run(files, working_dir=name, context_file="secret.txt").status == 400
    assert daemon.calls == []
    assert (root.parent / "secret.txt").read_text() == "secret"


def test_an_answer_is_not_lost_when_its_file_cannot_be_written(
    files: Gateway, daemon: Daemon, root: Path
) -> None:
    async def spoil(call: Call) -> Any:
        (root / "late").symlink_to("/etc/passwd")
        return {**RESULT, "content": [], "text": "precious"}

    daemon.scripts["chat.complete"] = spoil
    found = run(files, output_file="late").json["result"]
    (root / "late").unlink()
    assert (found["success"], found["output"], found["return_code"]) == (False, "precious", 1)
    assert "options.output_file" in found["error"]
