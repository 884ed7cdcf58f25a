import pytest

from ccd_daemon.claude import argv


@pytest.mark.parametrize(
    ("environ", "file", "kind", "mode"),
    [
        ({}, False, "none", "replay"),
        ({"ANTHROPIC_API_KEY": "k"}, True, "api_key", "full"),
        ({"ANTHROPIC_AUTH_TOKEN": "t"}, False, "token", "full"),
        ({"CLAUDE_CODE_OAUTH_TOKEN": "t"}, False, "oauth", "replay"),
        ({}, True, "oauth", "replay"),
        ({"CLAUDE_CODE_USE_BEDROCK": "1"}, False, "provider", "full"),
        ({"CLAUDE_CODE_USE_BEDROCK": "0", "ANTHROPIC_API_KEY": ""}, False, "none", "replay"),
    ],
)
def test_the_login_decides_how_requests_travel(
    environ: dict[str, str], file: bool, kind: str, mode: str
) -> None:
    assert argv.login_kind(environ, credentials_file=file) == kind
    assert argv.body_mode("auto", kind) == mode
    assert argv.body_mode("replay", kind) == "replay"


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
        login="api_key",
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


@pytest.mark.parametrize("login", ["oauth", "none", "provider"])
def test_simple_mode_is_for_keys_only(login: str) -> None:
    # It reads no OAuth login.
    env = argv.worker_env({}, login=login, extra=(), markers={}, max_retries=0, config_dir=None)
    assert "CLAUDE_CODE_SIMPLE" not in env
    assert "CLAUDE_CONFIG_DIR" not in env


def test_a_provider_finds_its_own_files_in_the_home_directory() -> None:
    env = argv.worker_env(
        {"HOME": "/home/u"}, login="provider", extra=(), markers={}, max_retries=0, config_dir="/tmp/private"
    )
    assert env["HOME"] == "/home/u"


def test_no_value_of_a_request_is_in_the_arguments() -> None:
    assert all(isinstance(word, str) for word in argv.LEAN_ARGV)
    assert "--disable-slash-commands" not in argv.LEAN_ARGV  # it would refuse the reset
    assert argv.LEAN_ARGV[argv.LEAN_ARGV.index("--tools") + 1] == ""
