import pytest

from ccd_daemon.claude import argv
from ccd_daemon.claude.login import LoginKind, Mode


def test_the_environment_is_an_enumerated_list() -> None:
    hostile = {
        "PATH": "/bin",
        "HOME": "/home/x",
        "CLAUDECODE": "1",
        "CLAUDE_CODE_SESSION_ID": "x",
        "CLAUDE_CODE_ENTRYPOINT": "cli",
        "LISTEN_FDS": "3",
        "NOTIFY_SOCKET": "/run/x",
        "LD_PRELOAD": "/evil.so",
        "NODE_OPTIONS": "--require /evil.js",
        "MY_SECRET": "s",
        "ANTHROPIC_API_KEY": "k",
    }
    env = argv.worker_env(
        hostile,
        login=LoginKind.API_KEY,
        extra=({"EXTRA": "1"}, {"EXTRA": "2"}),
        markers={"CCD_WORKER": "w1"},
        max_retries=2,
        config_dir="/tmp/private",
    )
    assert set(env) == {
        *("PATH", "HOME", "ANTHROPIC_API_KEY", "EXTRA", "CCD_WORKER"),
        *("CLAUDE_CODE_MAX_RETRIES", "CLAUDE_CODE_SIMPLE", "CLAUDE_CONFIG_DIR"),
        *argv.WORKER_ENV,
    }
    assert env["EXTRA"] == "2"
    assert env["HOME"] == env["CLAUDE_CONFIG_DIR"] == "/tmp/private"


@pytest.mark.parametrize("login", [LoginKind.OAUTH, LoginKind.NONE, LoginKind.PROVIDER])
def test_simple_mode_is_for_keys_only(login: LoginKind) -> None:
    # It reads no OAuth login.
    env = argv.worker_env({}, login=login, extra=(), markers={}, max_retries=0, config_dir=None)
    assert "CLAUDE_CODE_SIMPLE" not in env
    assert "CLAUDE_CONFIG_DIR" not in env


def test_a_provider_finds_its_own_files_in_the_home_directory() -> None:
    env = argv.worker_env(
        {"HOME": "/home/u"},
        login=LoginKind.PROVIDER,
        extra=(),
        markers={},
        max_retries=0,
        config_dir="/tmp/private",
    )
    assert env["HOME"] == "/home/u"


def test_no_value_of_a_request_is_in_the_arguments() -> None:
    for mode in Mode:
        words = argv.worker_argv(mode)
        assert all(isinstance(word, str) for word in words)
        assert "--disable-slash-commands" not in words  # it would refuse the reset
        assert words[words.index("--tools") + 1] == ""
        assert ("--max-turns" in words) == (mode != Mode.REPLAY)  # there a turn goes on after a tool's result


@pytest.mark.parametrize("kind", ["worker", "session"])
def test_temporary_files_are_its_own_but_for_what_the_operator_says(kind: str) -> None:
    def env(**environ: str) -> dict[str, str]:
        given = {"extra": (), "markers": {}, "max_retries": 0, "config_dir": None, "temporary": "/run/w1/tmp"}
        if kind == "worker":
            return argv.worker_env(environ, login=LoginKind.API_KEY, **given)  # type: ignore[arg-type]
        return argv.session_env(environ, **given)  # type: ignore[arg-type]

    assert env(TMPDIR="/shared")["TMPDIR"] == env()["CLAUDE_CODE_TMPDIR"] == "/run/w1/tmp"
    assert env(CLAUDE_CODE_TMPDIR="/big")["CLAUDE_CODE_TMPDIR"] == "/big"
