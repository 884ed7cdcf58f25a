"""Checks of the host: what it allows, how much of it is left, and whether its clock can be trusted."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from ccd_cli.doctor.finding import Finding
from ccd_daemon.config import MIB, Settings
from ccd_daemon.process import cgroup, memory

_FDS_PER_PROCESS = 4
_FDS_OTHERWISE = 300
_WORKER_BYTES = 200 * MIB  # an ordinary one after some turns
_LEAST_FREE_BYTES = 500 * MIB
_LEAST_FREE_FILES = 1000
_SKEW_S = 60.0


def limits(settings: Settings) -> Iterator[Finding]:
    """Open files and processes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = _FDS_PER_PROCESS * (settings.max_workers + settings.sessions.max_count) + _FDS_OTHERWISE
    if hard != resource.RLIM_INFINITY and hard < need:
        mend = f"Raise LimitNOFILE= of the service, or `ulimit -Hn`, to {need} or more."
        yield Finding("limits", "warning", f"at most {hard} open files; {need} may be needed", mend)
    else:
        yield Finding("limits", "ok", f"{'unlimited' if hard == resource.RLIM_INFINITY else hard} open files")
    _, processes = resource.getrlimit(resource.RLIMIT_NPROC)
    if 0 <= processes < 20 * settings.max_workers:
        mend = "Raise LimitNPROC= of the service, or `ulimit -Hu`."
        yield Finding("limits", "warning", f"at most {processes} processes and threads for this user", mend)


def memory_left(settings: Settings) -> Iterator[Finding]:
    """Whether the workers fit."""
    try:
        total, available = (memory.host_memory()[key] for key in ("total_bytes", "available_bytes"))
    except (OSError, KeyError, ValueError):
        yield Finding("memory", "note", "the host does not tell how much memory it has")
        return
    need = settings.max_workers * _WORKER_BYTES
    free = f"{available // MIB} of {total // MIB} MiB free"
    text = f"{free}; {settings.max_workers} CLI processes take some {need // MIB}"
    if need > total:
        yield Finding("memory", "warning", text, "Set pool.max_workers lower.")
    else:
        yield Finding("memory", "ok", text)


def disk(settings: Settings) -> Iterator[Finding]:
    """Room for conversations, keys and usage."""
    place = _existing(settings.data_dir)
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    if free < _LEAST_FREE_BYTES or (found.f_files > 0 and found.f_favail < _LEAST_FREE_FILES):
        mend = "Free some space: a full disk refuses conversations and stored answers with 507."
        text = f"{place}: {free // MIB} MiB and {found.f_favail} files free"
        yield Finding("disk", "warning", text, mend)
    elif found.f_flag & os.ST_RDONLY:
        yield Finding(
            "disk", "fault", f"{place} is read-only", "Set data.dir to a directory that can be written to."
        )
    else:
        yield Finding("disk", "ok", f"{place}: {free // MIB} MiB free")


def clock(settings: Settings) -> Iterator[Finding]:
    """A clock that was set back makes keys and conversations look as if they came from the future."""
    now = time.time()
    ahead = [path.name for path in _files(settings.data_dir) if path.stat().st_mtime > now + _SKEW_S]
    if ahead:
        text = f"files in {settings.data_dir} are from the future: {', '.join(sorted(ahead)[:3])}"
        yield Finding("clock", "warning", text, "Check the host's clock: timedatectl")
    else:
        yield Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S %z"))


def control_groups(settings: Settings) -> Iterator[Finding]:
    """What bounds the workers' memory and ends their trees."""
    if not settings.pool.control_groups:
        yield Finding("cgroups", "note", "switched off by pool.control_groups; memory is polled")
        return
    groups = cgroup.Groups("doctor", cgroup.find())
    if groups.caps_memory:
        yield Finding("cgroups", "ok", f"memory: {groups.caps}; trees: {groups.trees}")
    else:
        text = f"no control group of its own here (memory: {groups.caps}; trees: {groups.trees})"
        yield Finding("cgroups", "note", text, "Under `ccd service install` systemd delegates one.")


def sandbox(settings: Settings) -> Iterator[Finding]:
    """The tools that confine an agent's commands."""
    missing = [name for name in ("bwrap", "socat") if shutil.which(name) is None]
    if not missing:
        yield Finding("sandbox", "ok", "bubblewrap and socat are installed")
    else:
        mend = "For agents with a sandbox: apt install bubblewrap socat"
        yield Finding("sandbox", "note", f"not installed: {', '.join(missing)}", mend)


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file()]
    except OSError:
        return []


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
