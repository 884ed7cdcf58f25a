"""One CLI process: spawned without forking the daemon, watched by pidfd, ended with its whole tree.

Why not the loop's own subprocess support: uvloop forks, which stalls every stream for tens of milliseconds in a
large daemon; `subprocess.Popen` uses vfork. Exit is noticed by pidfd and never by end of file, so neither a paused
pipe nor a grandchild that holds stdout open can hide a death. Signals go through pidfds, or to the group of a child
that has not been reaped, so a recycled pid is never hit.

Not here: what the process says (`worker.reader`) and what becomes of what it leaves behind (`reaper`). psutil would
find descendants too, by a look at every process of the host: 9.2 ms with 147 of them instead of 0.23 ms, each second
for each worker (DECISIONS, "Popen and pidfd", "A tree is killed before its head is reaped").
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol, cast

WORKER_MARKER = "CCD_WORKER"  # =<worker id>/<daemon pid>, in the environment of all that a worker starts
_PIPE_BYTES = 256 * 1024
_STDERR_RING_BYTES = 64 * 1024
_STDERR_TAIL_CHARS = 4000


class ProcessListener(Protocol):
    """Who is told what the process does; called on the event loop, `on_exit` last and exactly once."""

    def on_stdout(self, data: bytes) -> None:
        """Bytes as they were read."""

    def on_stdout_eof(self) -> None:
        """Stdout was closed; the process may still live."""

    def on_exit(self, status: int) -> None:
        """The process has ended; `status` as in `subprocess.Popen.returncode`."""


def death_wrapper() -> list[str]:
    """Returns a command prefix that makes the kernel kill the process when the daemon dies (PDEATHSIG).

    The flag must be set after exec in the child; `setpriv` does that without the daemon having to fork.
    """
    setpriv = shutil.which("setpriv")
    if setpriv:
        return [setpriv, "--pdeathsig", "KILL", "--"]
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("pdeathsig.py"))]


class _StdoutPipe(asyncio.Protocol):
    def __init__(self, process: Process) -> None:
        self._process = process
        # Bound once: this is the hottest call of the daemon.
        self.data_received = process.listener.on_stdout  # type: ignore[method-assign]

    def connection_lost(self, exc: Exception | None) -> None:
        self._process._stdout_closed()


class _StdinPipe(asyncio.Protocol):
    """Knows whether there is still something to close."""

    def __init__(self) -> None:
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False


class _StderrPipe(asyncio.Protocol):
    """Keeps the last bytes, so that a chatty process neither blocks nor grows the daemon."""

    def __init__(self) -> None:
        self.open = True
        self._ring: deque[bytes] = deque()
        self._size = 0

    def data_received(self, data: bytes) -> None:
        self._ring.append(data[-_STDERR_RING_BYTES:])
        self._size += len(self._ring[-1])
        while self._size - len(self._ring[0]) >= _STDERR_RING_BYTES:
            self._size -= len(self._ring.popleft())

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False

    def tail(self) -> str:
        return b"".join(self._ring).decode(errors="replace").strip()[-_STDERR_TAIL_CHARS:]


class Process:
    """A CLI process and its three pipes; `connect` before use."""

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, listener: ProcessListener
    ) -> None:
        """Start `argv` in a session and process group of its own.

        Raises:
            OSError: it cannot be started.
        """
        self._popen = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            close_fds=True,
            bufsize=0,
        )
        self.pid = self._popen.pid
        self.listener = listener
        self._loop = asyncio.get_running_loop()
        self._pidfd = -1
        self._stderr = _StderrPipe()
        self._stdin_pipe = _StdinPipe()
        self._stdin: asyncio.WriteTransport | None = None
        self._stdout: asyncio.ReadTransport | None = None
        self._stderr_pipe: asyncio.ReadTransport | None = None
        self._paused = False
        self._stdout_open = True
        self._ended = False

    async def connect(self) -> None:
        """Join the pipes to the loop. Only from here on is its exit noticed, so nothing is told before this returns.

        Raises:
            OSError: out of file descriptors; the process has been killed.
        """
        try:
            await self._connect()
        except BaseException:
            self.discard()
            raise

    async def _connect(self) -> None:
        popen, loop = self._popen, self._loop
        assert popen.stdin and popen.stdout and popen.stderr
        self._pidfd = os.pidfd_open(self.pid)
        with contextlib.suppress(OSError):  # over the user's pipe quota: the default size works too
            fcntl.fcntl(popen.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        popen.stdin = _given_to(loop, popen.stdin, "wb")
        self._stdin, _ = await loop.connect_write_pipe(lambda: self._stdin_pipe, popen.stdin)
        popen.stderr = _given_to(loop, popen.stderr, "rb")
        self._stderr_pipe, _ = await loop.connect_read_pipe(lambda: self._stderr, popen.stderr)
        popen.stdout = _given_to(loop, popen.stdout, "rb")
        self._stdout, _ = await loop.connect_read_pipe(lambda: _StdoutPipe(self), popen.stdout)
        loop.add_reader(self._pidfd, self._exited)

    def discard(self) -> None:
        """Kill and reap a process that nobody will listen to."""
        if not self._ended:
            self._ended = True
            self._kill_group(signal.SIGKILL)
            self._popen.wait()  # a killed process is gone within a millisecond
            self._close()

    # --- talking ---

    def write(self, data: bytes) -> None:
        """Queue bytes for stdin; dropped when stdin is closed (the exit will be reported)."""
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(data)

    @property
    def unwritten_bytes(self) -> int:
        """What was written to it and is still here, because it does not read."""
        return self._stdin.get_write_buffer_size() if self._stdin is not None else 0

    def close_stdin(self) -> None:
        """End of input: the CLI finishes its turn and exits."""
        if self._stdin is not None:
            self._stdin.close()

    def pause(self) -> None:
        """Stop reading stdout; the pipe fills and the CLI blocks."""
        if not self._paused and self._stdout is not None and self._stdout_open:
            self._paused = True
            self._stdout.pause_reading()

    def resume(self) -> None:
        """Read stdout again."""
        if self._paused and self._stdout is not None and self._stdout_open:
            self._paused = False
            self._stdout.resume_reading()

    @property
    def paused(self) -> bool:
        """Whether stdout is not being read."""
        return self._paused

    def stderr_tail(self) -> str:
        """Returns the last of what it wrote to stderr, for error reports."""
        return self._stderr.tail()

    # --- ending ---

    def terminate(self, marker: str) -> None:
        """Ask the whole tree to end (SIGTERM)."""
        self._signal_tree(signal.SIGTERM, marker)

    def kill(self, marker: str) -> None:
        """End the whole tree (SIGKILL)."""
        self._signal_tree(signal.SIGKILL, marker)

    def _signal_tree(self, signum: signal.Signals, marker: str) -> None:
        if self._ended:
            return  # reaped: its pid may be somebody else's by now, and its group was killed before
        strays = [pid for pid in descendants(self.pid) if has_marker(pid, marker)]
        self._kill_group(signum)
        signal_each(strays, signum, marker)

    def _kill_group(self, signum: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)  # our own unreaped child: its pid cannot have been recycled

    def _stdout_closed(self) -> None:
        self._stdout_open = False
        if not self._ended:
            self.listener.on_stdout_eof()

    def _exited(self) -> None:
        """It is a zombie now: what is left of its group can be killed safely, and then it is reaped."""
        self._kill_group(signal.SIGKILL)
        status = self._popen.poll()
        if status is None:
            return
        self._ended = True
        self._read_the_rest()
        self._close()
        self.listener.on_exit(status)

    def _read_the_rest(self) -> None:
        """What it wrote last is still in the pipes. Waiting for their end would be waiting for every process that
        inherited them."""
        if self._stdout_open and self._popen.stdout is not None:
            _drain(self._popen.stdout.fileno(), self.listener.on_stdout)
        if self._stderr.open and self._popen.stderr is not None:
            _drain(self._popen.stderr.fileno(), self._stderr.data_received)

    def _close(self) -> None:
        self._stdout_open = False
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        # Aborted, not closed: nobody may ever read what is still to be written to stdin.
        # But one that closes because its reader has gone must not be closed again.
        stdin = self._stdin if self._stdin_pipe.open else None
        if stdin is not None and not (stdin.is_closing() and not stdin.get_write_buffer_size()):
            stdin.abort()
        if self._stdin is None and self._popen.stdin is not None:
            self._popen.stdin.close()
        for transport, pipe in ((self._stdout, self._popen.stdout), (self._stderr_pipe, self._popen.stderr)):
            if transport is not None:
                transport.close()
            elif pipe is not None:
                pipe.close()


def _given_to(loop: asyncio.AbstractEventLoop, pipe: IO[bytes], mode: str) -> IO[bytes]:
    """Returns the same pipe for the loop, which will close it.

    uvloop closes the descriptor and then the file, too, although the number may belong to something else by then: a
    database that another thread has just opened, for instance. So it gets a file that closes nothing.
    """
    if isinstance(loop, asyncio.SelectorEventLoop):
        return pipe
    with pipe:
        return cast(IO[bytes], open(os.dup(pipe.fileno()), mode, buffering=0, closefd=False))


def _drain(fd: int, take: Callable[[bytes], None]) -> None:
    """Read what is in a pipe now, at most as much as a pipe holds; somebody else may still be filling it."""
    left = _PIPE_BYTES
    while left > 0:
        try:
            data = os.read(fd, 65536)
        except OSError:
            return
        if not data:
            return
        take(data)
        left -= len(data)


# --- the process table ---


def descendants(pid: int) -> list[int]:
    """All living descendants of a process, from the kernel's per-thread child lists (no scan of all processes)."""
    found: list[int] = []
    todo = [pid]
    while todo:
        for child in children(todo.pop()):
            found.append(child)
            todo.append(child)
    return found


def children(pid: int) -> list[int]:
    """Returns the direct children of all threads of a process; empty when it is gone."""
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - called every second for every worker
    except OSError:
        return found
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children", "rb", buffering=0) as file:  # noqa: PTH123
                found.extend(map(int, file.read(65536).split()))
        except OSError:
            continue
    return found


def has_marker(pid: int, marker: str) -> bool:
    """Returns whether a process was started with `marker` (`NAME=value`) in its environment."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
            return marker.encode() in file.read().split(b"\0")
    except OSError:
        return False


def is_doomed(pid: int) -> bool:
    """Returns whether a process has been killed already, though it may not have ended yet, or is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:  # noqa: PTH123
            fields = dict(line.split(b":", 1) for line in file.read(8192).splitlines() if b":" in line)
    except OSError:
        return True
    pending = int(fields.get(b"SigPnd", b"0"), 16) | int(fields.get(b"ShdPnd", b"0"), 16)
    return bool(pending & 1 << signal.SIGKILL - 1) or fields[b"State"].split()[0] in (b"Z", b"X")


def marked(marker: str) -> list[int]:
    """Returns every process that was started with `marker` (`NAME=value`) in its environment; scans all processes."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit():
            continue
        if has_marker(int(name), marker):
            found.append(int(name))
    return found


def signal_each(pids: Iterable[int], signum: signal.Signals, marker: str = "") -> int:
    """Signal processes by pidfd; with a marker, only those that still carry it. Returns how many were hit."""
    hit = 0
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            # The pidfd pins the process, so what is checked after opening it is what gets signalled.
            if not marker or has_marker(pid, marker):
                signal.pidfd_send_signal(pidfd, signum)
                hit += 1
        except OSError:
            continue
        finally:
            os.close(pidfd)
    return hit


def exit_words(status: int) -> str:
    """Returns an exit status in words: `exit status 1`, `killed by SIGKILL`."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
