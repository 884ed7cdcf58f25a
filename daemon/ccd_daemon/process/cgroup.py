"""One control group per worker, where the host lets the daemon have them: a hard memory cap, and an end for all.

Theory of operation. A group catches what no other means does: a process that left its session, lost its parent and
cleared its environment is still in its worker's group, and `cgroup.kill` ends them all in one write. Three
hierarchies can help, each only when the daemon may make directories in its own group there: unified (v2) for
`cgroup.kill` and, with the controllers delegated, `memory.max` and `pids.max`; else v1 `memory` and v1 `pids`. On a
systemd host "may" means that the unit says `Delegate=yes`; elsewhere that the directory is writable. What cannot be
had is left out without a word but in the status: polling and the subreaper's sweep do the rest.

The groups of a daemon lie in `ccd-KEY-PID` of its own group; KEY tells daemons of different sockets apart, so
whoever holds the socket's lock may end and remove what a crashed daemon left under the same key.

Everything here blocks for microseconds, `join` now and then for milliseconds (the kernel waits for its readers):
call it from a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ccd_daemon.process.process import signal_each

_END_GRACE_S = 1.0  # killed processes stay in their group for a moment
_DAEMON_LEAF = "ccd-daemon"  # v2 lets no group with processes of its own give controllers to sub-groups


class Places(NamedTuple):
    """The daemon's own directory in each hierarchy in which it may make sub-groups; None where it may not."""

    unified: Path | None = None
    memory: Path | None = None  # v1
    pids: Path | None = None  # v1


def find(proc: Path = Path("/proc/self"), systemd: Path = Path("/run/systemd/system")) -> Places:
    """Returns where this process may make groups."""
    try:
        own = _own_paths((proc / "cgroup").read_text())
        mounts = _mounts((proc / "mountinfo").read_text())
    except OSError:
        return Places()
    folders = {
        name: folder for name, path in own.items() if (folder := _folder(mounts, name, path)) is not None
    }
    if systemd.is_dir() and not any(_delegated(folders.get(name)) for name in ("", "name=systemd")):
        return Places()
    usable = {name: folder for name, folder in folders.items() if _writable(folder)}
    return Places(usable.get(""), usable.get("memory"), usable.get("pids"))


def _own_paths(text: str) -> dict[str, str]:
    """Path by controller, from `/proc/PID/cgroup`; the unified hierarchy's controller is the empty string."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _mounts(mountinfo: str) -> dict[str, tuple[str, Path]]:
    """Root and mount point by controller, from `/proc/PID/mountinfo`."""
    found: dict[str, tuple[str, Path]] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.partition(" ")
        root, point = left.split()[3:5]
        if kind == "cgroup2":
            found[""] = root, Path(point)
        elif kind == "cgroup":
            found.update(dict.fromkeys(options.split()[-1].split(","), (root, Path(point))))
    return found


def _folder(mounts: Mapping[str, tuple[str, Path]], name: str, path: str) -> Path | None:
    if name not in mounts:
        return None
    root, point = mounts[name]
    inside = path.removeprefix(root.rstrip("/")) if path.startswith(root.rstrip("/")) else path
    return point / inside.lstrip("/")


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK) and os.access(folder / "cgroup.procs", os.W_OK)


def _delegated(folder: Path | None) -> bool:
    """Returns whether systemd has handed the group over (`Delegate=yes`); it notes that on the directory."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if folder is not None and os.getxattr(folder, name) == b"1":
                return True
    return False


class Group:
    """The control group of one worker: a directory in each hierarchy that can be used."""

    def __init__(self, folders: list[Path], *, caps_memory: bool) -> None:
        self.caps_memory = caps_memory
        self._folders = folders

    def join(self, pid: int) -> None:
        """Put a process into the group; what it starts from now on is in it too."""
        for folder in self._folders:
            _write(folder / "cgroup.procs", str(pid))

    def pids(self) -> list[int]:
        """Returns all processes in the group, however they got away from their parent."""
        for folder in self._folders:
            if found := _pids(folder):
                return found
        return []

    def kill(self) -> bool:
        """End every process of the group; False when it has to be done another way."""
        return any(_write(folder / "cgroup.kill", "1") for folder in self._folders)

    def oom_kills(self) -> int:
        """Returns how many of its processes the kernel has killed at the memory limit."""
        for folder in self._folders:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError, ValueError, KeyError):
                    fields = dict(line.split() for line in (folder / name).read_text().splitlines())
                    return int(fields["oom_kill"])
        return 0

    def remove(self) -> None:
        """Give the group back; one that still has processes stays, for `Groups.close` or the next start."""
        for folder in self._folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


class Groups:
    """The control groups of one daemon."""

    def __init__(self, owner: str, places: Places) -> None:
        self._key = hashlib.sha256(owner.encode()).hexdigest()[:12]
        self.prefix = (
            f"ccd-{self._key}-"  # of the names of its directories, and of those before it on its socket
        )
        self._own = {name: folder for name, folder in places._asdict().items() if folder is not None}
        self._taken_over = False
        controllers = self._delegate_controllers(places.unified) if places.unified else set()
        if "memory" in controllers:
            self._own.pop("memory", None)
        if "pids" in controllers:
            self._own.pop("pids", None)
        self._controllers = controllers
        self.parents = {name: folder / f"{self.prefix}{os.getpid()}" for name, folder in self._own.items()}

    @property
    def caps(self) -> str:
        """What holds a worker to its memory limit, for the status; polling is always there as well."""
        if "memory" in self._controllers:
            return "cgroup v2 memory.max"
        return "cgroup v1 memory.limit_in_bytes" if "memory" in self._own else "rss polling"

    @property
    def caps_memory(self) -> bool:
        """Whether the kernel itself holds a worker to its limit."""
        return "memory" in self._controllers or "memory" in self._own

    @property
    def trees(self) -> str:
        """What ends a worker's whole process tree, for the status; the sweep is always there as well."""
        return "cgroup.kill" if "unified" in self._own else "subreaper sweep"

    def open(self, worker_id: str, memory_bytes: int, max_processes: int) -> Group | None:
        """Returns a group for a worker; None when the host has none to give."""
        limits = {
            "memory.max": memory_bytes,
            "memory.limit_in_bytes": memory_bytes,
            "pids.max": max_processes,
        }
        folders = []
        for name, parent in self.parents.items():
            folder = parent / worker_id
            try:
                self._make_parent(name, parent)
                folder.mkdir(exist_ok=True)
            except OSError:
                continue
            for file, value in limits.items():
                if (folder / file).exists():
                    _write(folder / file, str(value))
            _write(folder / "memory.oom.group", "1")
            folders.append(folder)
        return Group(folders, caps_memory=self.caps_memory) if folders else None

    def _make_parent(self, name: str, parent: Path) -> None:
        if not parent.is_dir():
            parent.mkdir(exist_ok=True)
            if name == "unified":
                for controller in self._controllers:
                    _write(parent / "cgroup.subtree_control", f"+{controller}")

    def _delegate_controllers(self, own: Path) -> set[str]:
        """Have memory and pids passed down to sub-groups; the daemon itself must then sit in a leaf of its own."""
        wanted = {"memory", "pids"} & set(_read(own / "cgroup.controllers").split())
        missing = wanted - set(_read(own / "cgroup.subtree_control").split())
        if not missing:
            return wanted
        if all(_write(own / "cgroup.subtree_control", f"+{name}") for name in missing):
            return wanted
        if _pids(own) != [os.getpid()]:
            return wanted - missing  # a group shared with others, who must not be moved
        leaf = own / _DAEMON_LEAF
        with contextlib.suppress(OSError):
            leaf.mkdir(exist_ok=True)
            self._taken_over = _write(leaf / "cgroup.procs", str(os.getpid()))
        return {
            name
            for name in wanted
            if name not in missing or _write(own / "cgroup.subtree_control", f"+{name}")
        }

    def clear_leftovers(self) -> int:
        """End and remove what an earlier daemon of this socket left; call only while holding the socket's lock.

        Returns how many processes there were.
        """
        ended = 0
        for own in self._own.values():
            for parent in own.glob("ccd-*-*"):
                _, key, pid = parent.name.split("-", 2)
                if key == self._key:
                    ended += _end_and_remove(parent)
                elif pid.isdigit() and not Path(f"/proc/{pid}").exists():
                    _remove_empty(parent)
        return ended

    def close(self) -> None:
        """Remove the groups; the daemon goes back to where it was."""
        for parent in self.parents.values():
            _end_and_remove(parent)
        if self._taken_over:
            own = self._own["unified"]
            for name in self._controllers:
                _write(own / "cgroup.subtree_control", f"-{name}")
            if _write(own / "cgroup.procs", str(os.getpid())):
                _remove_empty(own / _DAEMON_LEAF)


def pressure(files: tuple[str, ...] = ("/proc/pressure/memory",)) -> float:
    """Percent of the last ten seconds in which some process waited for memory; 0 where the kernel does not tell."""
    worst = 0.0
    for file in files:
        first = _read(Path(file)).partition("\n")[0]
        for field in first.split():
            if field.startswith("avg10="):
                worst = max(worst, float(field.removeprefix("avg10=")))
    return worst


def _end_and_remove(parent: Path) -> int:
    ended = 0
    for folder in [*_children(parent), parent]:
        if pids := _pids(folder):
            ended += len(pids)
            if not _write(folder / "cgroup.kill", "1"):
                signal_each(pids, signal.SIGKILL)
    deadline = time.monotonic() + _END_GRACE_S
    while _remove_empty(parent) and time.monotonic() < deadline:
        time.sleep(0.005)
    return ended


def _remove_empty(parent: Path) -> bool:
    """Remove what has no processes; True when something is still there."""
    for folder in [*_children(parent), parent]:
        with contextlib.suppress(OSError):
            folder.rmdir()
    return parent.is_dir()


def _children(parent: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from [child for child in parent.iterdir() if child.is_dir()]


def _pids(folder: Path) -> list[int]:
    return [pid for pid in map(int, _read(folder / "cgroup.procs").split()) if pid > 0]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _write(path: Path, text: str) -> bool:
    """Write to a control file that exists; False when the kernel does not have it or says no."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.write(fd, text.encode()) > 0
    except OSError:
        return False
    finally:
        os.close(fd)
