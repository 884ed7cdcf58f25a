"""With and without the tuning variables the real CLI writes the same lines, but for ids and times."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ccd_daemon.claude import argv, control
from ccd_daemon.claude.login import LoginKind, Mode
from ccd_daemon.claude.program import traces_in
from ccd_daemon.claude.tuning import TRACES, Tuning, sparing, speeding
from fakes.stack import Api, clean_environ

TOOL = {"name": "look", "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}}}
#: Name -> the script for the answer, and what else stands in the request.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text": ({"text": "Hello, world", "deltas": 4}, {}),
    "unicode": ({"text": '\u2028 \u00e9 \U0001f600 \\u0041 \\n "', "deltas": 9}, {}),
    "empty": ({"text": ""}, {}),
    "500 deltas": ({"deltas": 500}, {}),
    "thinking": (
        {"thinking": "hm", "text": "yes"},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096},
    ),
    "tools": ({"tool_calls": [{"name": "look", "input": {"at": "x"}, "id": "toolu_1"}]}, {"tools": [TOOL]}),
    "max_tokens": ({"text": "cut", "stop_reason": "max_tokens"}, {}),
    "400": ({"status": 400, "error_type": "invalid_request_error", "message": "no"}, {}),
    "429": ({"status": 429, "error_type": "rate_limit_error", "message": "slow down"}, {}),
    "error in mid-stream": ({"deltas": 6, "error_after_deltas": 3}, {}),
    "cut in mid-stream": ({"deltas": 6, "cut_after_deltas": 3}, {}),
}
VOLATILE = re.compile(
    r"_ms$|uuid|session_id|request_id|^id$|message_id|cost|time|pid|memory|seed|cwd|path|conversation_id|signature"
)


def environ(home: Path, url: str, tuned: dict[str, str]) -> dict[str, str]:
    """Homes with names of the same length: the CLI tells the model where it is, and the tokens are counted."""
    base = clean_environ(home, ANTHROPIC_API_KEY="test-key", ANTHROPIC_BASE_URL=url)
    return argv.worker_env(
        base,
        login=LoginKind.API_KEY,
        extra=(),
        markers={},
        max_retries=1,
        config_dir=str(home),
        tuned=tuned,
    )


@contextlib.contextmanager
def turns(cli: Path, env: dict[str, str]) -> Iterator[Callable[[dict[str, Any]], list[str]]]:
    """One process; what is given asks it one request, and returns the lines of the turn."""
    process = subprocess.Popen(
        [str(cli), *argv.worker_argv(Mode.FULL)],
        env=env,
        cwd=env["HOME"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin and process.stdout
    stdin, stdout = process.stdin, process.stdout

    def ask(body: dict[str, Any]) -> list[str]:
        settings = {"CLAUDE_CODE_EXTRA_BODY": json.dumps(body)}
        stdin.write(control.flags("r", env=settings, model="sonnet") + control.user_line("."))
        stdin.flush()
        found = []
        for line in stdout:
            found.append(stable(json.loads(line)))
            if b'"type":"result"' in line:
                break
        return found

    try:
        yield ask
    finally:
        stdin.close()
        stdout.read()
        stdout.close()
        process.wait()


def lines(cli: Path, env: dict[str, str]) -> Iterator[list[str]]:
    """Each case's turn on one process, as the lines of its output without what differs from run to run."""
    with turns(cli, env) as ask:
        for script, more in CASES.values():
            text = f"[[offline: {json.dumps(script)}]]"
            yield ask({"messages": [{"role": "user", "content": text}], **more})


def stable(value: Any) -> str:
    """The line with everything volatile replaced; order of keys kept, because clients get these bytes."""
    return json.dumps(_stable(value), ensure_ascii=False)


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "*" if VOLATILE.search(key) else _stable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_stable(item) for item in value]
    return re.sub(r"(msg|req|toolu)_[A-Za-z0-9_-]{6,}", "*", value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def home() -> Iterator[Callable[[], Path]]:
    with contextlib.ExitStack() as stack:
        yield lambda: Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ccd-tuning-")))


@pytest.fixture(scope="module")
def plain(cli: Path, api: Api, home: Callable[[], Path]) -> list[list[str]]:
    return list(lines(cli, environ(home(), api.url, {})))


@pytest.mark.parametrize("tuning", Tuning)
def test_the_output_is_the_same_line_by_line(
    cli: Path, api: Api, home: Callable[[], Path], plain: list[list[str]], tuning: Tuning
) -> None:
    tuned = speeding(tuning, traces_in(cli, TRACES))
    assert tuned
    asked = lines(cli, environ(home(), api.url, tuned))
    for name, without, turn in zip(CASES, plain, asked, strict=True):
        if name == "cut in mid-stream":  # how many deltas arrive before the cut is the network's doing
            turn, without = list(dict.fromkeys(turn)), list(dict.fromkeys(without))
            turn, without = ([line for line in one if "_delta" not in line] for one in (turn, without))
        assert len(turn) == len(without), name
        for now, before in zip(turn, without, strict=True):
            assert now == before, name


def test_one_call_for_a_refusal(cli: Path, api: Api, home: Callable[[], Path]) -> None:
    env = environ(home(), api.url, sparing(traces_in(cli, TRACES)))
    script = {"text": "no", "stop_reason": "refusal"}
    before = len(api.bodies())
    with turns(cli, env) as ask:
        ask({"messages": [{"role": "user", "content": f"[[offline: {json.dumps(script)}]]"}]})
    assert len(api.bodies()) == before + 1
