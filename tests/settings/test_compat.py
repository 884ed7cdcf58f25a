"""Settings of the two older projects: what is found, what it becomes, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ccd_daemon import config
from ccd_gateway.settings import load_settings
from ccd_settings.compat import RUST_KEYS, CompatSettings, read
from ccd_settings.compat_files import FLASK_NAMES
from ccd_settings.settings import SettingsError

ROOT = Path(__file__).parents[2]


def found(folder: Path, **environ: str) -> dict[str, Any]:
    return {setting.key: setting.value for setting in read(environ, folder).settings}


def lines(compat: CompatSettings) -> str:
    return "\n".join(note.text for note in compat.notes)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


# Every key of claude-code-api: a value as its documents give it, and what ccd makes of it.
RUST: dict[str, tuple[str, dict[str, Any]]] = {
    "server.host": ("0.0.0.0", {"gateway.bind": "0.0.0.0:8080"}),
    "server.port": ("9090", {"gateway.bind": "127.0.0.1:9090"}),
    "claude.command": ("/opt/claude", {"cli.command": "/opt/claude"}),
    "claude.timeout_seconds": ("600", {"deadlines.turn_s": 600, "gateway.request_timeout_s": 660}),
    "claude.max_concurrent_sessions": ("10", {"pool.max_workers": "10"}),
    "claude.use_interactive_sessions": ("True", {}),
    "database.url": ("sqlite://./claude_code.db", {}),
    "database.max_connections": ("5", {}),
    "auth.enabled": ("on", {"gateway.require_keys": True}),
    "auth.secret_key": ("change-me-in-production", {}),
    "auth.token_expiry_hours": ("24", {}),
    "file_access.skip_permissions": ("1", {"sessions.allow_bypass": True}),
    "file_access.additional_dirs": ('["/a", "/b"]', {}),
    "mcp.enabled": ("true", {}),
    "mcp.config_file": ("/etc/mcp.json", {}),
    "mcp.config_json": ('{"mcpServers": {}}', {}),
    "mcp.strict": ("no", {}),
    "mcp.debug": ("FALSE", {}),
    "process_pool.size": ("5", {"pool.spares": 5}),
    "process_pool.min_idle": ("2", {"pool.spares": 2}),
    "process_pool.max_idle": ("5", {}),
    "cache.enabled": ("true", {"cache.enabled": True}),
    "cache.max_entries": ("500", {"cache.max_entries": "500"}),
    "cache.ttl_seconds": ("600", {"cache.ttl_s": "600"}),
    "conversation.max_history_messages": ("20", {"conversations.max_messages": "20"}),
    "conversation.session_timeout_minutes": ("45", {"conversations.retention_s": 2700}),
    "conversation.max_context_tokens": ("100000", {"conversations.max_bytes": 400000}),
}
ALWAYS = {"gateway.always_conversations": True, "conversations.retention_s": 1800}


def variable(key: str) -> str:
    return "CLAUDE_CODE__" + key.replace(".", "__").upper()


def test_the_list_is_complete() -> None:
    assert set(RUST) == RUST_KEYS


@pytest.mark.parametrize("key", RUST)
def test_every_variable_of_the_rust_project(tmp_path: Path, key: str) -> None:
    value, becomes = RUST[key]
    environ = {variable(key): value}
    assert found(tmp_path, **environ) == ALWAYS | becomes
    compat = read(environ, tmp_path)
    assert len([note for note in compat.notes if note.text.startswith(variable(key))]) >= 1
    assert "change-me" not in lines(compat) and "mcpServers" not in lines(compat)
    for_agents = key == "file_access.additional_dirs" or (
        key.startswith("mcp") and value.lower() not in ("no", "false")
    )
    assert ("kept for agent profiles, NO EFFECT YET" in lines(compat)) is for_agents


def test_everything_at_once_is_good_for_daemon_and_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {variable(key): value for key, (value, _) in RUST.items()} | {"HOME": str(tmp_path)}
    settings, gateway = config.read(environ), load_settings(environ, {})
    assert (settings.cli.command, settings.pool.max_workers, settings.pool.spares) == ("/opt/claude", 10, 5)
    assert (settings.deadlines.turn_s, settings.conversations.max_messages) == (600, 20)
    assert (settings.cache.enabled, settings.cache.max_entries, settings.cache.ttl_s) == (True, 500, 600)
    assert (gateway.bind, gateway.always_conversations) == ("0.0.0.0:9090", True)
    assert any("cli.command" in note.text for note in settings.compat_notes)
    assert not any("gateway.bind" in note.text for note in settings.compat_notes)


def test_ccds_own_settings_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    toml = write(tmp_path, "ccd.toml", "[pool]\nspares = 1\n[gateway]\nbind = '127.0.0.1:1'\n")
    environ = {"HOME": str(tmp_path), "CCD_CONFIG": str(toml), "CCD_DEADLINES__TURN_S": "7"}
    environ |= {variable("process_pool.size"): "9", variable("server.port"): "2"}
    environ |= {variable("claude.timeout_seconds"): "300", variable("claude.max_concurrent_sessions"): "3"}
    settings = config.read(environ)
    assert (settings.pool.spares, settings.deadlines.turn_s, settings.pool.max_workers) == (1, 7, 3)
    assert load_settings(environ, {}).bind == "127.0.0.1:1"


def test_without_a_sign_nothing_is_read(tmp_path: Path) -> None:
    write(tmp_path, "config/local.toml", "[claude]\ncommand = './evil'\n")
    write(
        tmp_path,
        ".env",
        "CLAUDE_CODE__CLAUDE__COMMAND=./evil\nCLAUDE_API_KEY=k\nANTHROPIC_BASE_URL=http://evil",
    )
    for environ in ({}, {"API_PORT": "1", "LOG_LEVEL": "x", "CLAUDE_API_KEY": "k", "RUST_LOG": "debug"}):
        compat = read(environ, tmp_path)
        assert compat.settings == ()
        assert "CCD_COMPAT=rust" in lines(compat) and "CCD_COMPAT=flask" in lines(compat)
        assert all(note.warning for note in compat.notes)


def test_run_mode_alone_is_some_other_programs(tmp_path: Path) -> None:
    assert read({"RUN_MODE": "production"}, tmp_path) == CompatSettings((), ())


def test_files_in_their_order(tmp_path: Path) -> None:
    write(
        tmp_path,
        "config/fast.toml",
        "[server]\nport = 1\n[process_pool]\nsize = 8\nmin_idle = 3\nmax_idle = 6\n",
    )
    write(
        tmp_path,
        "config/local.json",
        '{"server": {"port": 2, "host": "::1"}, "claude": {"timeout_seconds": 5}}',
    )
    write(tmp_path, "config/development.toml", "[server]\nport = 99\n")
    write(tmp_path, ".env", 'export CLAUDE_CODE__SERVER__PORT="3" # three\n# CLAUDE_CODE__X=1\nOTHER=1\n')
    got = found(tmp_path, RUN_MODE="fast")
    assert (got["gateway.bind"], got["pool.spares"], got["deadlines.turn_s"]) == ("[::1]:3", 6, 5)
    assert found(tmp_path, RUN_MODE="fast", CLAUDE_CODE__SERVER__PORT="4")["gateway.bind"] == "[::1]:4"
    assert found(tmp_path, CCD_COMPAT="rust")["gateway.bind"] == "[::1]:3"


def test_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    write(tmp_path, "config/local.yaml", "server: {port: 1}")
    assert "local.yaml is not read" in lines(read({"CCD_COMPAT": "rust"}, tmp_path))


def test_unknown_keys_are_ignored_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path, "config/local.toml", "top = 1\n[server]\ncolour = 'red'\n[claude.deep]\nx = 1\n")
    compat = read({"CCD_COMPAT": "rust", "CLAUDE_CODE__NOTHING__HERE": "1"}, tmp_path)
    for name in ("CLAUDE_CODE__NOTHING__HERE", "server.colour", "top", "claude.deep"):
        assert any(f"{name}: unknown, ignored" in note.text and note.warning for note in compat.notes), name


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("server.port", "http"),
        ("server.port", "70000"),
        ("server.port", "1.5"),
        ("claude.timeout_seconds", "-1"),
        ("claude.timeout_seconds", "nan"),
        ("claude.use_interactive_sessions", "maybe"),
        ("auth.enabled", "2"),
        ("file_access.additional_dirs", '["/a", 1]'),
        ("file_access.additional_dirs", "[broken"),
        ("process_pool.size", "many"),
        ("claude.max_concurrent_sessions", "ten"),
        ("conversation.max_history_messages", "1"),
    ],
)
def test_values_that_cannot_be_used_are_named(tmp_path: Path, key: str, value: str) -> None:
    environ = {variable(key): value, "HOME": str(tmp_path)}
    with pytest.raises(SettingsError, match=variable(key)):
        config.read(environ)


@pytest.mark.parametrize("value", ["/a:/b", "/a,/b", '["/a", "/b"]', " /a , /b "])
def test_directories_in_each_form(tmp_path: Path, value: str) -> None:
    assert read({variable("file_access.additional_dirs"): value}, tmp_path).settings


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ("debug", "debug"),
        ("claude_code_api=trace,tower_http=warn", "debug"),
        ("warn", "warning"),
        ("off", "error"),
    ],
)
def test_rust_log(tmp_path: Path, given: str, level: str) -> None:
    assert found(tmp_path, CCD_COMPAT="rust", RUST_LOG=given)["log.level"] == level


def test_a_file_that_others_can_write_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "config/local.toml", "[server]\nport = 1\n").chmod(0o666)
    with pytest.raises(SettingsError, match="another user can write it"):
        read({"CCD_COMPAT": "rust"}, tmp_path)


@pytest.mark.parametrize("text", ["[server", "server = 1\nserver = 2", "\xff"])
def test_files_that_are_broken(tmp_path: Path, text: str) -> None:
    write(tmp_path, "config/local.toml", "").write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match=r"local\.toml"):
        read({"CCD_COMPAT": "rust"}, tmp_path)


def test_run_mode_leads_nowhere_else(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RUN_MODE"):
        read({"RUN_MODE": "../../etc/passwd"}, tmp_path)


# --- the Flask project ---


def test_every_variable_of_the_flask_project(tmp_path: Path) -> None:
    values = {
        "API_HOST": "0.0.0.0",
        "API_PORT": "5001",
        "CLAUDE_API_KEY": "sk-secret",
        "CLAUDE_DEFAULT_TIMEOUT": "90",
        "CLAUDE_MAX_RETRIES": "5",
        "FLASK_ENV": "production",
        "LOG_FILE": "logs/claude_api.log",
        "LOG_LEVEL": "WARNING",
        "RATE_LIMIT_PER_MINUTE": "7",
        "SECRET_KEY": "also-secret",
    }
    assert set(values) == FLASK_NAMES
    compat = read({"CCD_COMPAT": "flask", **values}, tmp_path)
    assert {setting.key: setting.value for setting in compat.settings} == {
        "gateway.bind": "0.0.0.0:5001",
        "gateway.flask_timeout_s": 90,
        "gateway.flask_max_retries": "5",
        "gateway.flask_requests_per_minute": "7",
        "gateway.json_health": True,
        "log.level": "warning",
        "cli.env": {"ANTHROPIC_API_KEY": "sk-secret"},
    }
    for name in values:
        assert name in lines(compat)
    assert "secret" not in lines(compat).replace("SECRET_KEY", "")
    environ = {"CCD_COMPAT": "flask", "HOME": str(tmp_path), **values}
    gateway = load_settings(environ, {})
    assert (gateway.flask_timeout_s, gateway.flask_max_retries) == (90, 5)
    assert config.read(environ).cli.env == {"ANTHROPIC_API_KEY": "sk-secret"}


def test_its_port_is_the_default_where_it_is_asked_for(tmp_path: Path) -> None:
    assert found(tmp_path, CCD_COMPAT="flask")["gateway.bind"] == "127.0.0.1:5000"
    both = found(tmp_path, CCD_COMPAT="flask, rust", CLAUDE_CODE__SERVER__PORT="1234")
    assert both["gateway.bind"] == "127.0.0.1:1234"
    assert "gateway.json_health" not in both  # the other project's /health is plain


def test_a_login_of_the_environments_own_wins(tmp_path: Path) -> None:
    compat = read({"CCD_COMPAT": "flask", "CLAUDE_API_KEY": "a", "ANTHROPIC_API_KEY": "b"}, tmp_path)
    assert "cli.env" not in {setting.key for setting in compat.settings}
    assert "CLAUDE_API_KEY: no effect: ANTHROPIC_API_KEY is set" in lines(compat)


def test_a_login_in_the_dotenv_file(tmp_path: Path) -> None:
    write(tmp_path, ".env", "ANTHROPIC_API_KEY='sk-1'\nANTHROPIC_BASE_URL=http://127.0.0.1:1\n")
    got = found(tmp_path, CCD_COMPAT="rust", ANTHROPIC_BASE_URL="http://127.0.0.1:2")
    assert got["cli.env"] == {"ANTHROPIC_API_KEY": "sk-1"}


def test_the_switch_knows_two_projects(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="CCD_COMPAT: expected rust or flask"):
        read({"CCD_COMPAT": "django"}, tmp_path)


def test_every_setting_is_in_the_guide() -> None:
    guide = (ROOT / "docs" / "moving.md").read_text()
    missing = [name for name in (*sorted(RUST_KEYS), *sorted(FLASK_NAMES)) if f"`{name}`" not in guide]
    assert missing == []
