"""Logging in and out: the scripted CLI asks at a real terminal, and the daemon, with the real CLI, goes on by itself.

What only a real login could show: that the CLI's own pages work, and that the model API takes the token.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccd_client import Client, RpcError
from fakes.stack import Api, Stack, wait_until
from fakes.terminal import terminal

_SCRIPT = r"""#!/bin/sh
# Logs in as the real one does: a question at the terminal, then its two files. Everything else is the real one's work.
home="$HOME/.claude"
case "$1 $2" in
"auth login")
  [ -t 0 ] || exit 3
  printf 'Who are you? '
  read -r who
  mkdir -p "$home"
  cat > "$home/part" <<END
{"claudeAiOauth": {"accessToken": "sk-ant-oat01-$who", "refreshToken": "sk-ant-ort01-$who",
 "expiresAt": 99999999999999, "scopes": ["user:inference", "user:profile"], "subscriptionType": "max"}}
END
  mv "$home/part" "$home/.credentials.json"
  account="\"accountUuid\": \"$who\", \"emailAddress\": \"$who@example.org\""
  echo "{\"oauthAccount\": {$account}}" > "$HOME/.claude.json"
  echo "Welcome, $who" ;;
"auth logout") rm -f "$home/.credentials.json" ;;
*) exec REAL "$@" ;;
esac
"""


class LoginStack(Stack):
    """A stack without a key."""

    def environ(self) -> dict[str, str]:
        environ = super().environ()
        del environ["ANTHROPIC_API_KEY"]
        return environ


@pytest.fixture
def stack(tmp_path: Path, cli: Path, api: Api) -> Iterator[LoginStack]:
    script = tmp_path / "claude"
    script.write_text(_SCRIPT.replace("REAL", str(cli)))
    script.chmod(0o755)
    stack = LoginStack(tmp_path, script, api)
    stack.start_daemon()
    yield stack
    stack.daemon.stop()
    wait_until(lambda: not stack.processes(), timeout_s=5, what="every worker process to be gone")


def login(stack: Stack) -> dict[str, object]:
    return dict(stack.status()["login"])


def test_logging_in_reaches_every_process(stack: LoginStack, tmp_path: Path) -> None:
    with Client(stack.socket) as client, terminal(tmp_path / "terminal", stack.environ()) as screen:
        with pytest.raises(RpcError, match=r"(?i)log"):
            client.chat("before any login")
        assert login(stack)["kind"] == "none"
        for who in ("ada", "bob"):
            before = {row["pid"] for row in stack.workers()}
            screen.ccd("login")
            screen.wait("Who are you?")
            screen.type(who)
            screen.wait(f"of {who}@example.org")
            began = time.monotonic()
            wait_until(
                lambda who=who: str(login(stack)["account"]).startswith(who), what="the daemon to notice"
            )
            assert time.monotonic() - began < 10  # a second, on a machine that has nothing else to do
            assert "hello" in client.chat(f"hello from {who}").text
            after = {
                row["pid"] for row in stack.workers() if row["state"] in ("ready", "held", "busy", "parked")
            }
            assert after and not after & before
            screen.clear()
        assert stack.ccd("logout").returncode == 0
        wait_until(lambda: login(stack)["kind"] == "none", what="the daemon to notice")
        with pytest.raises(RpcError):
            client.chat("after the logout")


def test_a_session_of_another_account_ends(stack: LoginStack, tmp_path: Path) -> None:
    with Client(stack.socket) as client, terminal(tmp_path / "terminal", stack.environ()) as screen:
        screen.ccd("login")
        screen.wait("Who are you?")
        screen.type("ada")
        screen.wait("of ada@example.org")
        session = client.open_session()
        screen.clear()
        screen.ccd("login")
        screen.wait("Who are you?")
        screen.type("bob")
        screen.wait("of bob@example.org")
        with pytest.raises(RpcError, match="no such session"):
            session.send("hello")


def test_a_key_goes_before_a_login_and_that_is_said(stack: LoginStack) -> None:
    import os
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "ccd_cli", "login"],
        env={**stack.environ(), "ANTHROPIC_API_KEY": "canary"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2 and "an API key in ANTHROPIC_API_KEY" in done.stderr
    assert "canary" not in done.stderr and os.path.exists(stack.socket)
    assert "(Claude Code)" in stack.ccd("cli", "run", "--version").stdout
