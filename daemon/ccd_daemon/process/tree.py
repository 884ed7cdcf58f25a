"""The process tree of one worker: the CLI, its private directory, its control group, its marker; ended as a whole.

Until the process has been started, and where it cannot be, there is nothing to talk to and nothing to end: every
method may be called all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from ccd_daemon.process import memory
from ccd_daemon.process.cgroup import Group
from ccd_daemon.process.process import WORKER_MARKER, Process, ProcessListener, death_wrapper

_LONGEST_BYTES = 75  # of 107 for a socket's path; what programs put below takes up to 30
_SECRET = secrets.token_hex()


class ProcessTree:
    """A CLI process and all that is its own."""

    def __init__(self, listener: ProcessListener) -> None:
        self.process: Process | None = None
        self.marker = ""  # tells its processes from others, in their environment
        self.group: Group | None = None
        self._listener = listener
        self._home: Path | None = None

    async def spawn(
        self,
        command: Path,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        home: Path,
        open_group: Callable[[], Group | None],
        *,
        cwd: Path | None = None,
    ) -> None:
        """Start `command` in `home`, a private directory that is made here and removed with the tree, or in `cwd`.

        The marker is in `env`; `open_group` makes the control group, and is called in a thread.

        Raises:
            OSError: it cannot be started.
            ValueError: a setting has a NUL in it.
        """
        self.marker, self._home = env[WORKER_MARKER], home
        loop = asyncio.get_running_loop()
        self.group = await loop.run_in_executor(None, _make, home, open_group)
        line = [*death_wrapper(), str(command), *argv]
        self.process = process = Process(line, env=env, cwd=cwd or home, listener=self._listener)
        # Confined before it can start anything: it takes the CLI tens of milliseconds to get that far.
        memory.take_workers_first(process.pid)
        if self.group is not None:
            await loop.run_in_executor(None, self.group.join, process.pid)
        await process.connect()

    @property
    def caps_memory(self) -> bool:
        """Whether the kernel bounds its memory, so that nobody needs to watch it closely."""
        return self.group is not None and self.group.caps_memory

    def grouped_pids(self) -> list[int]:
        """Returns all processes in its control group; empty where it has none."""
        return self.group.pids() if self.group is not None else []

    def killed_by_memory_limit(self) -> bool:
        """Returns whether the kernel has ended one of its processes at the limit."""
        return self.group is not None and self.group.oom_kills() > 0

    # --- talking ---

    def write(self, data: bytes) -> None:
        """Send lines to the CLI."""
        if self.process is not None:
            self.process.write(data)

    @property
    def paused(self) -> bool:
        """Whether stdout is not being read."""
        return self.process is not None and self.process.paused

    def pause(self) -> None:
        """Stop reading stdout."""
        if self.process is not None:
            self.process.pause()

    def resume(self) -> None:
        """Read stdout again."""
        if self.process is not None:
            self.process.resume()

    def stderr_tail(self) -> str:
        """Returns the last of what the CLI wrote to stderr, for error reports."""
        return self.process.stderr_tail() if self.process is not None else ""

    # --- ending: one that is not read from could not end ---

    def close_stdin(self) -> None:
        """Let the CLI finish and end."""
        if self.process is not None:
            self.process.resume()
            self.process.close_stdin()

    def terminate(self) -> None:
        """Ask the whole tree to end."""
        if self.process is not None:
            self.process.resume()
            self.process.terminate(self._marker)

    def kill(self) -> None:
        """End the whole tree."""
        if self.group is not None:
            self.group.kill()
        if self.process is not None:
            self.process.kill(self._marker)

    def remove(self) -> None:
        """End whatever is left of the tree and delete what was its own; the deleting is done in a thread."""
        if self.group is not None:
            self.group.kill()  # what is in no group is swept
        asyncio.get_running_loop().run_in_executor(None, _delete, self._home, self.group)

    @property
    def _marker(self) -> str:
        return f"{WORKER_MARKER}={self.marker}"


def temporary_of(home: Path) -> Path:
    """Where a process with this private directory has its temporary files, which go with it.

    In the shared `/tmp` the CLI's directory has a name that anybody can take before it. Inside `home`, but where the
    path is so long that sockets could not be made there; then somewhere with a name that nobody can guess.
    """
    inside = home / "tmp"
    if len(os.fsencode(inside)) <= _LONGEST_BYTES:
        return inside
    return Path(tempfile.gettempdir()) / f"{_elsewhere(home.parent)}{_digest(f'{_SECRET} {home}')}"


def clear_temporary(homes: Path) -> None:
    """Remove what an earlier daemon's processes with private directories in `homes` left elsewhere."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_elsewhere(homes)}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)


def _elsewhere(homes: Path) -> str:
    return f"ccd-{_digest(str(homes))}-"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _make(home: Path, open_group: Callable[[], Group | None]) -> Group | None:
    home.mkdir(parents=True, mode=0o700)
    temporary_of(home).mkdir(mode=0o700)
    return open_group()


def _delete(home: Path | None, group: Group | None) -> None:
    if home is not None:
        shutil.rmtree(temporary_of(home), ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)
    if group is not None:
        group.remove()
