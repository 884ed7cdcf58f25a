"""Finds the Claude Code CLI, asks for its version, and says whether ccd can use it.

Order: the setting `cli.command` (which is never second-guessed), `claude` on PATH, ccd's own copies in
`<data>/cli/<version>/claude` (`install` puts them there): the one that was chosen, else the newest.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from ccd_settings.paths import is_file

LOWEST_SUPPORTED = "2.1.197"
NAME = "claude"
_VERSION_TIMEOUT_S = 10.0
_MAX_OUTPUT_BYTES = 4096
_VERSION = re.compile(r"(\d+\.\d+\.\d+)(?:[^\s.]\S*)?(?=\s|$)")

_known: dict[tuple[str, int, int], str] = {}


class CliError(Exception):
    """The CLI cannot be used. The message says why and what to do."""


class CliNotFound(CliError):
    """There is no CLI where one was named, or none at all."""


class CliBroken(CliError):
    """The file runs, or not even that, but it is no usable CLI."""


class CliTooOld(CliError):
    """The CLI is older than `LOWEST_SUPPORTED`."""


class Cli(NamedTuple):
    """A usable CLI."""

    path: Path
    version: str
    source: Literal["setting", "PATH", "installed"]


def find(command: str | None, data_dir: Path, path_env: str) -> Path | None:
    """Returns the CLI's path, or None when none is named and none is there. Only ever an executable file.

    Raises:
        CliNotFound: `command` (a path, or a name to look up in PATH) is given and is not there.
    """
    found = _find(command, data_dir, path_env)
    return found[0] if found else None


def resolve(command: str | None, data_dir: Path, env: Mapping[str, str]) -> Cli:
    """Returns the CLI to use, with its version checked; `env` gives PATH. Blocks while it runs the CLI once.

    Raises:
        CliNotFound: there is none.
        CliBroken: it does not tell its version.
        CliTooOld: it is older than ccd supports.
    """
    found = _find(command, data_dir, env.get("PATH", os.defpath))
    if found is None:
        raise CliNotFound(
            "Claude Code is not installed: there is no `claude` on PATH and none in"
            f" {installed_dir(data_dir)}. Run `ccd cli install`, or name it in the setting cli.command"
            " (CCD_CLI__COMMAND)."
        )
    path, source = found
    told = version(path, env)
    check_supported(told, path)
    return Cli(path, told, source)


def version(path: Path, env: Mapping[str, str]) -> str:
    """Returns what `PATH --version` says, for example "2.1.330"; remembered until the file changes.

    The CLI sees PATH of `env` and nothing else of it: no login, and an empty temporary HOME.

    Raises:
        CliBroken: it cannot be run, does not end in time, or says something else.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise CliBroken(f"{path} cannot be used: {error.strerror}.") from error
    key = (str(path), stat.st_mtime_ns, stat.st_size)
    if key not in _known:
        told = _ask(path, env)
        if len(_known) > 100:
            _known.clear()
        _known[key] = told
    return _known[key]


def check_supported(version: str, path: Path | str = NAME) -> None:
    """Refuse a version that ccd cannot use.

    Raises:
        CliTooOld: it is older than `LOWEST_SUPPORTED`.
    """
    if sortable(version) < sortable(LOWEST_SUPPORTED):
        raise CliTooOld(
            f"{path} is Claude Code {version}; ccd needs {LOWEST_SUPPORTED} or newer. Update it, or run"
            " `ccd cli install` for a copy of ccd's own and leave cli.command unset."
        )


def installed_dir(data_dir: Path) -> Path:
    """Returns where ccd's own copies are, one directory for each version."""
    return data_dir / "cli"


def installed(data_dir: Path) -> list[Path]:
    """ccd's own copies, newest first."""
    try:
        names = [path.name for path in installed_dir(data_dir).iterdir()]
    except OSError:
        return []
    versions = sorted((name for name in names if _VERSION.fullmatch(name)), key=sortable, reverse=True)
    paths = [installed_dir(data_dir) / name / NAME for name in versions]
    return [path for path in paths if _runnable(path)]


def chosen_file(data_dir: Path) -> Path:
    """Where `ccd cli use` notes which of ccd's own copies is to be used."""
    return installed_dir(data_dir) / "chosen"


def chosen(data_dir: Path) -> str | None:
    """The version of the copy that was chosen; None is the newest."""
    try:
        with chosen_file(data_dir).open(encoding="ascii", errors="replace") as file:
            return file.read(100).strip() or None
    except OSError:
        return None


def sortable(version: str) -> tuple[int, ...]:
    """Returns a version as numbers that compare rightly; what follows the third number does not count."""
    match = _VERSION.match(version)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def _find(
    command: str | None, data_dir: Path, path_env: str
) -> tuple[Path, Literal["setting", "PATH", "installed"]] | None:
    if command:
        return _named(command, path_env), "setting"
    on_path = _on_path(NAME, path_env)
    if on_path:
        return on_path, "PATH"
    own = {path.parent.name: path for path in installed(data_dir)}
    wanted = chosen(data_dir)
    found = own.get(wanted or "") or next(iter(own.values()), None)
    return (found, "installed") if found else None


def _named(command: str, path_env: str) -> Path:
    if "/" not in command and not command.startswith("~"):
        found = _on_path(command, path_env)
        if found is None:
            raise CliNotFound(
                f"cli.command is {command!r}, and there is no such program on PATH ({path_env})."
            )
        return found
    path = Path(command).expanduser().absolute()
    if not _runnable(path):
        raise CliNotFound(f"cli.command is {command!r}, but {_why_not(path)}.")
    return path


def _why_not(path: Path) -> str:
    if os.path.isdir(path):  # noqa: PTH112 - does not raise where a directory is closed
        return "that is a directory"
    return "that file is not executable" if is_file(path) else "there is no such file that ccd may see"


def _on_path(name: str, path_env: str) -> Path | None:
    """Like a shell's lookup, but never in relative directories: ccd may be started anywhere."""
    for directory in path_env.split(os.pathsep):
        path = Path(directory) / name
        if path.is_absolute() and _runnable(path):
            return path
    return None


def _runnable(path: Path) -> bool:
    return is_file(path) and os.access(path, os.X_OK)


def _ask(path: Path, env: Mapping[str, str]) -> str:
    home = tempfile.mkdtemp(prefix="ccd-cli-")
    try:
        status, output = _run([str(path), "--version"], _probe_env(env, home))
    except OSError as error:
        raise CliBroken(f"{path} cannot be run: {error.strerror}. Is it made for this machine?") from error
    finally:
        shutil.rmtree(home, ignore_errors=True)
    match = _VERSION.match(output.strip())
    if status != 0 or match is None:
        said = f"it ended with {status} and said {output.strip()[:200]!r}"
        if status == -signal.SIGKILL:
            said = f"it did not come to an end within {_VERSION_TIMEOUT_S:g} s"
        raise CliBroken(f"{path} does not tell its version: {said}. Is it Claude Code?")
    return match[1]


def _probe_env(env: Mapping[str, str], home: str) -> dict[str, str]:
    """What it leaves goes with its home directory."""
    return {"PATH": env.get("PATH", os.defpath), "HOME": home, "TMPDIR": home, "CLAUDE_CODE_TMPDIR": home}


def _run(command: list[str], env: dict[str, str]) -> tuple[int, str]:
    """Exit status and first output of a command, killed with its children when it takes too long."""
    process = subprocess.Popen(
        command,
        env={**env, "DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1", "LANG": "C.UTF-8"},
        cwd=env["HOME"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    timer = threading.Timer(_VERSION_TIMEOUT_S, _kill_group, [process.pid])
    timer.start()
    try:
        assert process.stdout is not None
        output = process.stdout.read(_MAX_OUTPUT_BYTES)
        if len(output) == _MAX_OUTPUT_BYTES:  # it will not stop talking
            _kill_group(process.pid)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # not reaped: its group is still its own
    finally:
        timer.cancel()
        timer.join()
        _kill_group(process.pid)
        status = process.wait()
        if process.stdout is not None:
            process.stdout.close()
    return status, output.decode("utf-8", "replace")


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
