"""From what is wished for to what has to be done, and doing it: files compared, then `systemctl`, step by step."""

from __future__ import annotations

import os
import pwd
import shlex
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ccd_cli.service.units import MARK, ServiceWish, files, unit_names

_COMMAND_TIMEOUT_S = 180


class ServiceError(Exception):
    """A step failed; the message says which and what to do."""


@dataclass(frozen=True)
class PlanStep:
    """One thing to be done.

    Attributes:
        what: for the person who reads the plan.
        path, content: a file to write (content None: to remove), or no path.
        command: a command to run, or empty.
    """

    what: str
    path: Path | None = None
    content: str | None = None
    command: tuple[str, ...] = ()

    def do(self) -> None:
        """Do it.

        Raises:
            ServiceError: it failed.
        """
        if self.path is not None:
            _place(self.path, self.content)
        else:
            _run(self.command)


def _place(path: Path, content: str | None) -> None:
    try:
        if content is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(content)
        fresh.chmod(0o644)
        fresh.replace(path)
    except OSError as error:
        raise ServiceError(f"{path}: {error.strerror}. Run it as root, or with --user.") from None


def _run(command: Sequence[str]) -> None:
    shown = shlex.join(command)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise ServiceError(f"{command[0]} is not there: this host has no systemd.") from None
    except subprocess.TimeoutExpired:
        raise ServiceError(f"{shown} did not end within {_COMMAND_TIMEOUT_S} s.") from None
    if done.returncode != 0:
        raise ServiceError(f"{shown} failed: {(done.stderr or done.stdout).strip()}")


def to_install(wish: ServiceWish, home: Path, *, start: bool) -> list[PlanStep]:
    """Returns the steps to the wished-for state; files that are right already need none.

    Raises:
        ServiceError: a file is in the way that `ccd service` did not write, or the program cannot be run.
    """
    wanted = files(wish, home)
    steps = [step for path, content in wanted.items() if (step := _to_write(path, content)) is not None]
    steps += [
        PlanStep(f"remove  {path} (not wished for any more)", path)
        for path in _ours(
            ServiceWish(**{**vars(wish), "agents": True, "gateway": True, "worker": True}), home
        )
        if path not in wanted
    ]
    changed, replaced = bool(steps), any(step.path and step.path.is_file() for step in steps)
    control = ("systemctl", "--user") if wish.for_user else ("systemctl",)
    if changed and not wish.for_user:
        steps.append(_command("systemd-sysusers", "/etc/sysusers.d/ccd.conf"))
        steps.append(_command("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/ccd.conf"))
    if changed:
        steps.append(_command(*control, "daemon-reload"))
    names = unit_names(wish)
    if start:
        steps.append(_command(*control, "enable", "--now", *names))
        if replaced:
            services = [name for name in names if name.endswith(".service")]
            steps.append(_command(*control, "try-restart", *services))
    elif changed:
        steps.append(_command(*control, "enable", *names))
    return steps


def to_uninstall(wish: ServiceWish, home: Path) -> list[PlanStep]:
    """Returns the steps that take the service away. Its user, login, conversations and settings stay."""
    everything = ServiceWish(**{**vars(wish), "agents": True, "gateway": True, "worker": True})
    control = ("systemctl", "--user") if wish.for_user else ("systemctl",)
    found = _ours(everything, home)
    if not found:
        return []
    present = [name for name in unit_names(everything) if any(path.name == name for path in found)]
    steps = [_command(*control, "disable", "--now", *present)] if present else []
    steps += [PlanStep(f"remove  {path}", path) for path in found]
    return [*steps, _command(*control, "daemon-reload")]


def _command(*command: str) -> PlanStep:
    return PlanStep(f"run     {shlex.join(command)}", command=command)


def _to_write(path: Path, content: str) -> PlanStep | None:
    try:
        before = path.read_text()
    except FileNotFoundError:
        return PlanStep(f"write   {path}", path, content)
    except OSError as error:
        raise ServiceError(f"{path}: {error.strerror}") from None
    if before == content:
        return None
    if not before.startswith(MARK):
        raise ServiceError(
            f"{path} exists and was not written by ccd. Move it away, or keep it and put changes beside it "
            f"with: systemctl edit {path.name}"
        )
    return PlanStep(f"replace {path}", path, content)


def _ours(wish: ServiceWish, home: Path) -> list[Path]:
    return [
        path
        for path in files(wish, home)
        if path.is_file() and path.read_text(errors="replace").startswith(MARK)
    ]


def why_not_runnable(program: Path, user: str) -> str | None:
    """Returns why `user` could not run the program, with what to do, or None when it can."""
    for path in _reached(program):
        if not _may_pass(path, user):
            return (
                f"{path} is closed to the user {user}, so the service could not run {program}. Install ccd where "
                f"everybody may read it, for example: python3 -m venv /opt/ccd && /opt/ccd/bin/pip install <the wheel>"
            )
    return None


def needs_homes(programs: Sequence[Path]) -> bool:
    """Returns True when one of the programs, or what runs it, is in a home directory."""
    reached = (path for program in programs for path in _reached(program))
    return any(path.parts[:2] in (("/", "home"), ("/", "root")) and len(path.parts) > 2 for path in reached)


def _reached(program: Path) -> Iterator[Path]:
    """Every file and directory that starting the program needs: its own, and its interpreter's, links followed."""
    interpreter = _interpreter(program)
    seen: set[Path] = set()
    for start in (program, program.resolve(), *([interpreter, interpreter.resolve()] if interpreter else [])):
        for path in (*reversed(start.parents), start):
            if path not in seen:
                seen.add(path)
                yield path


def _interpreter(program: Path) -> Path | None:
    with program.open("rb") as file:
        first = file.readline(512)
    words = first[2:].decode(errors="replace").split() if first.startswith(b"#!") else []
    return Path(words[0]) if words else None


def _may_pass(path: Path, user: str) -> bool:
    """Returns True when the user may enter a directory, or read and run a file."""
    info = path.stat()
    need = stat.S_IXOTH if stat.S_ISDIR(info.st_mode) else stat.S_IXOTH | stat.S_IROTH
    if info.st_mode & need == need:
        return True
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return False  # a user that is still to be made is nobody's owner and in nobody's group
    if entry.pw_uid == 0:
        return True
    if info.st_uid == entry.pw_uid:
        return info.st_mode & (need << 6) == need << 6
    groups = set(os.getgrouplist(user, entry.pw_gid))
    return info.st_gid in groups and info.st_mode & (need << 3) == need << 3


def state_of(names: Sequence[str], *, for_user: bool) -> list[Mapping[str, str]]:
    """Returns what systemd says of each unit: `Id`, `LoadState`, `ActiveState`, `SubState`, `StatusText`, …

    Raises:
        ServiceError: there is no systemd, or it does not answer.
    """
    keys = "Id,LoadState,ActiveState,SubState,UnitFileState,StatusText,MainPID,NRestarts,Result"
    blocks = _asked("show", "-p", keys, *names, for_user=for_user).strip().split("\n\n")
    return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]


def _asked(*arguments: str, for_user: bool) -> str:
    command = ["systemctl", *(["--user"] if for_user else []), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        raise ServiceError("systemctl does not answer: this host has no systemd.") from None
    if done.returncode != 0:
        raise ServiceError(f"systemctl does not answer: {done.stderr.strip()}")
    return done.stdout
