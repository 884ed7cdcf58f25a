"""Finding the CLI, asking its version, refusing what cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ccd_daemon.claude import binary as cli_binary
from ccd_daemon.claude.binary import CliBroken, CliNotFound, CliTooOld


def executable(path: Path, script: str = "echo '2.1.330 (Claude Code)'") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_setting_goes_before_path_and_path_before_own_copies(tmp_path: Path) -> None:
    named = executable(tmp_path / "named" / "my-claude")
    on_path = executable(tmp_path / "bin" / "claude")
    own = executable(tmp_path / "data" / "cli" / "2.1.330" / "claude")
    data, path = tmp_path / "data", f"/nonexistent:{tmp_path / 'bin'}"
    assert cli_binary.find(str(named), data, path) == named
    assert cli_binary.find("claude", data, path) == on_path
    assert cli_binary.find(None, data, path) == on_path
    assert cli_binary.find("", data, path) == on_path
    assert cli_binary.find(None, data, "/nonexistent") == own
    assert cli_binary.find(None, tmp_path / "empty", "/nonexistent") is None


def test_a_command_that_is_not_there_is_an_error_and_no_fallback(tmp_path: Path) -> None:
    executable(tmp_path / "bin" / "claude")
    plain = tmp_path / "plain"
    plain.write_text("x")
    cases = {
        str(tmp_path / "none"): "there is no such file",
        str(tmp_path): "that is a directory",
        str(plain): "that file is not executable",
        "claude-beta": "no such program on PATH",
    }
    for command, reason in cases.items():
        with pytest.raises(CliNotFound, match=reason) as caught:
            cli_binary.find(command, tmp_path, str(tmp_path / "bin"))
        assert command in str(caught.value)


def test_directories_and_files_without_permission_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "one" / "claude").mkdir(parents=True)
    executable(tmp_path / "two" / "claude").chmod(0o644)
    good = executable(tmp_path / "three" / "claude")
    path = ":".join(str(tmp_path / name) for name in ("one", "two", "three"))
    assert cli_binary.find(None, tmp_path, path) == good


def test_relative_directories_of_path_are_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(tmp_path / "claude")
    monkeypatch.chdir(tmp_path)
    assert cli_binary.find(None, tmp_path / "data", ":.:") is None


def test_the_newest_own_copy_is_used(tmp_path: Path) -> None:
    for version in ("2.1.99", "2.1.330", "2.2.0", "10.0.0"):
        executable(tmp_path / "cli" / version / "claude")
    (tmp_path / "cli" / "10.0.0" / "claude").unlink()
    executable(tmp_path / "cli" / ".new-x" / "claude")
    executable(tmp_path / "cli" / "latest" / "claude")
    names = [path.parent.name for path in cli_binary.installed(tmp_path)]
    assert names == ["2.2.0", "2.1.330", "2.1.99"]


def test_the_version_is_asked_without_the_environment_and_remembered(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    path = executable(tmp_path / "claude", f"env >> {seen}; echo run >> {seen}; echo '2.1.330 (Claude Code)'")
    env = {"PATH": os.environ["PATH"], "ANTHROPIC_API_KEY": "secret", "HOME": "/root"}
    assert [cli_binary.version(path, env) for _ in range(2)] == ["2.1.330"] * 2
    lines = seen.read_text().splitlines()
    assert lines.count("run") == 1
    assert not any("secret" in line or line == "HOME=/root" for line in lines)
    executable(path, "echo '2.1.331 (Claude Code)'; :")
    assert cli_binary.version(path, env) == "2.1.331"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo hello", "said 'hello'"),
        ("echo '2.1.330'; exit 3", "ended with 3"),
        ("echo 2.1", "said '2.1'"),
        ("exec yes", "does not tell its version"),
        ("exec sleep 60", "did not come to an end"),
        ("sleep 60 & exit 0", "did not come to an end|does not tell its version"),
    ],
)
def test_what_is_no_cli_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    monkeypatch.setattr(cli_binary, "_VERSION_TIMEOUT_S", 0.3)
    path = executable(tmp_path / "claude", script)
    with pytest.raises(CliBroken, match=reason):
        cli_binary.version(path, os.environ)


def test_a_file_of_another_machine_is_broken(tmp_path: Path) -> None:
    path = executable(tmp_path / "claude")
    path.write_bytes(b"\x7fELF" + bytes(60))
    with pytest.raises(CliBroken, match="Is it made for this machine"):
        cli_binary.version(path, os.environ)
    path.unlink()
    with pytest.raises(CliBroken, match="No such file"):
        cli_binary.version(path, os.environ)


@pytest.mark.parametrize("version", ["2.1.196", "2.0.999", "1.0.128", "0.2.9"])
def test_old_versions_are_refused(version: str) -> None:
    with pytest.raises(CliTooOld, match=rf"{version}; ccd needs {cli_binary.LOWEST_SUPPORTED}"):
        cli_binary.check_supported(version)


@pytest.mark.parametrize("version", [cli_binary.LOWEST_SUPPORTED, "2.1.330", "2.2.0", "3.0.0-beta.1"])
def test_supported_versions(version: str) -> None:
    cli_binary.check_supported(version)


def test_resolve_says_what_to_do(tmp_path: Path) -> None:
    env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    with pytest.raises(CliNotFound, match="Run `ccd cli install`"):
        cli_binary.resolve(None, tmp_path, env)
    path = executable(tmp_path / "bin" / "claude")
    assert cli_binary.resolve(None, tmp_path, env) == (path, "2.1.330", "PATH")
    assert cli_binary.resolve(str(path), tmp_path, env).source == "setting"
    executable(path, "echo '1.0.1 (Claude Code)'")
    with pytest.raises(CliTooOld):
        cli_binary.resolve(None, tmp_path, env)
