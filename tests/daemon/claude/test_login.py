from pathlib import Path

import pytest

from ccd_daemon.claude.login import LoginKind, Mode, login_kind, mode_for


@pytest.mark.parametrize(
    ("environ", "file", "kind", "mode"),
    [
        ({}, False, LoginKind.NONE, Mode.REPLAY),
        ({"ANTHROPIC_API_KEY": "k"}, True, LoginKind.API_KEY, Mode.FULL),
        ({"ANTHROPIC_AUTH_TOKEN": "t"}, False, LoginKind.TOKEN, Mode.FULL),
        ({"CLAUDE_CODE_OAUTH_TOKEN": "t"}, False, LoginKind.OAUTH, Mode.REPLAY),
        ({}, True, LoginKind.OAUTH, Mode.REPLAY),
        ({"CLAUDE_CODE_USE_BEDROCK": "1"}, False, LoginKind.PROVIDER, Mode.FULL),
        ({"CLAUDE_CODE_USE_BEDROCK": "0", "ANTHROPIC_API_KEY": ""}, False, LoginKind.NONE, Mode.REPLAY),
    ],
)
def test_the_login_decides_how_requests_travel(
    environ: dict[str, str], file: bool, kind: LoginKind, mode: Mode, tmp_path: Path
) -> None:
    if file:
        (tmp_path / ".claude").mkdir()
        (tmp_path / ".claude/.credentials.json").write_text("{}")
    assert login_kind({"HOME": str(tmp_path), **environ}) is kind
    assert mode_for("auto", kind) is mode
    assert mode_for("replay", kind) is Mode.REPLAY


def test_a_configuration_directory_of_its_own_is_where_the_login_lies(tmp_path: Path) -> None:
    (tmp_path / ".credentials.json").write_text("{}")
    assert login_kind({"CLAUDE_CONFIG_DIR": str(tmp_path)}) is LoginKind.OAUTH
    assert login_kind({"HOME": str(tmp_path)}) is LoginKind.NONE


def test_what_a_login_allows() -> None:
    assert [kind for kind in LoginKind if kind.is_key] == [LoginKind.API_KEY, LoginKind.TOKEN]
    assert {kind for kind in LoginKind if not kind.is_private} == {LoginKind.OAUTH, LoginKind.NONE}


def test_each_mode_but_the_last_has_a_slower_one() -> None:
    assert [mode.slower for mode in Mode] == [Mode.KEEP_SYSTEM, Mode.REPLAY, None]
