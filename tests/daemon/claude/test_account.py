from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ccd_daemon.claude.account import Account, LoginWatch, account, described
from ccd_daemon.claude.login import LoginKind


class Home:
    """A user's home directory, as the CLI leaves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / ".claude").mkdir()
        self.environ = {"HOME": str(folder)}
        self._written = 0

    def log_in(self, who: str) -> None:
        self.note(
            {"accountUuid": f"id-{who}", "emailAddress": f"{who}@example.org", "organizationName": "Acme"}
        )
        self.renew()

    def note(self, noted: Any) -> None:
        text = json.dumps({"projects": {"x": "y" * 1000}, "oauthAccount": noted, "numStartups": 7}, indent=2)
        (self.folder / ".claude.json").write_text(text)
        self._touch(self.folder / ".claude.json")

    def renew(self) -> None:
        """As the CLI renews a token: another file under the same name."""
        part = self.folder / ".claude" / "part"
        part.write_text("{}")
        part.chmod(0)  # to be looked at, never opened
        self._touch(part)
        part.replace(self.folder / ".claude" / ".credentials.json")

    def log_out(self) -> None:
        (self.folder / ".claude" / ".credentials.json").unlink()

    def _touch(self, file: Path) -> None:
        self._written += 1
        os.utime(file, (self._written, self._written))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_the_account_is_what_the_cli_noted(home: Home) -> None:
    assert account(home.environ) is None
    home.log_in("ada")
    assert account(home.environ) == Account("id-ada", "ada@example.org", "Acme")
    assert "ada@example.org of Acme" in described(home.environ)
    for noted in (None, "x", [], {"emailAddress": 5}, {"emailAddress": "a\x1b[2J"}):
        home.note(noted)
        assert account(home.environ) in (None, Account(None, None, None))
    (home.folder / ".claude.json").write_text('{"oauthAccount": {"emailAddr')
    assert account(home.environ) is None


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "none"),
        ({"ANTHROPIC_API_KEY": "sk-secret"}, "an API key in ANTHROPIC_API_KEY"),
        ({"ANTHROPIC_AUTH_TOKEN": "secret"}, "a token in ANTHROPIC_AUTH_TOKEN"),
        ({"CLAUDE_CODE_OAUTH_TOKEN": "secret"}, "a subscription, by the token"),
        ({"CLAUDE_CODE_USE_BEDROCK": "1"}, "a cloud provider's"),
    ],
)
def test_a_login_is_described_without_its_secret(home: Home, variables: dict[str, str], words: str) -> None:
    text = described({**home.environ, **variables})
    assert words in text and "secret" not in text


def test_every_change_is_seen_and_another_account_apart(home: Home) -> None:
    watch = LoginWatch(home.environ)
    seen: list[tuple[LoginKind, int]] = []

    def changed() -> bool:
        before = watch.generation
        watch.look(closely=True)
        seen.append((watch.kind, watch.account_generation))
        return watch.generation > before

    assert not changed()
    home.log_in("ada")
    assert changed() and seen[-1] == (LoginKind.OAUTH, 0)
    assert not changed()
    home.renew()
    assert changed() and seen[-1] == (LoginKind.OAUTH, 0)
    home.log_in("bob")
    assert changed() and seen[-1] == (LoginKind.OAUTH, 1)
    home.note({"accountUuid": "id-eve"})  # noted before the credentials are written, or after
    assert changed() and seen[-1] == (LoginKind.OAUTH, 2)
    home.log_out()
    assert changed() and seen[-1] == (LoginKind.NONE, 3)
    home.log_in("eve")
    assert changed() and seen[-1] == (LoginKind.OAUTH, 3)


def test_a_login_from_variables_is_not_watched(home: Home) -> None:
    for variables in ({"ANTHROPIC_API_KEY": "k"}, {"CLAUDE_CODE_OAUTH_TOKEN": "t"}):
        watch = LoginWatch({**home.environ, **variables})
        home.log_in("ada")
        watch.look(closely=True)
        assert watch.generation == 0
