"""Claude Code itself, with the gateway for its API."""

import json
import os
import subprocess
import tempfile
from typing import Any

import driver
from driver import ANTHROPIC_URL, contains, same


def claude(prompt: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One run of the command in an empty directory."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "ANTHROPIC_BASE_URL": ANTHROPIC_URL,
            "ANTHROPIC_API_KEY": "not-needed",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "IS_SANDBOX": "1",
        }
        return subprocess.run(
            [os.environ["CLAUDE"], "-p", *arguments, prompt],
            env=environ,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )


def events(prompt: str, *arguments: str) -> list[Any]:
    """The lines of a run with partial messages."""
    form = ("--output-format", "stream-json", "--verbose", "--include-partial-messages")
    done = claude(prompt, *form, *arguments)
    same((done.returncode, done.stderr), (0, ""))
    return [json.loads(line) for line in done.stdout.splitlines()]


@driver.feature("messages", "plain")
def _(case: Any) -> None:
    contains(claude(case.says("hello from the model")).stdout, "hello from the model")


@driver.feature("messages", "stream")
def _(case: Any) -> None:
    deltas = [
        line["event"]["delta"] for line in events(case.says(deltas=5)) if "delta" in line.get("event", {})
    ]
    same("".join(delta.get("text", "") for delta in deltas), "w1 w2 w3 w4 w5")


@driver.feature("messages", "tool")
@driver.feature("messages", "tool_loop")
def _(case: Any) -> None:
    call = {"name": "Bash", "input": {"command": "echo ran-$((6*7))", "description": "test"}}
    lines = events(case.says(tool_calls=[call]), "--dangerously-skip-permissions")
    result = next(line for line in lines if line["type"] == "result")
    same((result["is_error"], result["num_turns"]), (False, 2))
    contains(result["result"], "ran-42")
    contains(case.bodies()[-1]["messages"][-1], "ran-42")


@driver.feature("messages", "system")
def _(case: Any) -> None:
    claude(case.says(), "--system-prompt", "Be brief, «exactly» so.")
    contains(case.body()["system"], "Be brief, «exactly» so.")


@driver.feature("messages", "errors")
def _(case: Any) -> None:
    done = claude(case.says(status=400, message="not today"))
    same(done.returncode, 1)
    contains(done.stdout, "not today")


driver.main()
