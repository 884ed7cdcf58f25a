"""`ccd bugreport`: one archive with what somebody needs who was not there, and nothing that was asked or answered.

Values of settings that may hold secrets, and everything that looks like a key or a token, are replaced before they are
written. What is collected is listed in `_collected`; a part that cannot be had says why in its place.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import platform
import re
import secrets
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import psutil

from ccd_cli.doctor import finding
from ccd_cli.doctor.doctor import check
from ccd_cli.options import command
from ccd_client import Client
from ccd_daemon import config
from ccd_daemon.claude.argv import LOGIN_ENV
from ccd_gateway.settings import load_settings

_HIDDEN = "[removed]"
_SECRET_WORDS = re.compile(r"(?i)(key|token|secret|password|credential|authorization|cookie)")
_LOOKS_SECRET = re.compile(
    r"sk-[A-Za-z0-9_-]{8,}|ccd-[A-Za-z0-9_-]{20,}|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_.-]+|(?i:bearer\s+)\S{8,}"
    r"|AKIA[A-Z0-9]{12,}|ghp_[A-Za-z0-9]{20,}|[A-Za-z0-9+/_-]{64,}={0,2}|://[^/\s:@]+:[^/\s@]+@"
)
_JOURNAL_LINES = "2000"
_PACKAGES = ("ccdaemon", "uvloop", "msgpack", "msgspec", "falcon", "gunicorn", "psutil", "click", "dbos")


@command(
    "bugreport",
    "ccd bugreport",
    "sudo -u ccd -H ccd bugreport -o /tmp/report.tar.gz     # as the service's user",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write it.  [default: ccd-bugreport-ID.tar.gz here]",
)
def bugreport(output: Path | None) -> None:
    """Write one archive for a bug report: versions, settings with their sources, events, processes. No content."""
    name = secrets.token_hex(4)
    path = output or Path(f"ccd-bugreport-{name}.tar.gz")
    entries = {title: _text(collect) for title, collect in _collected(name).items()}
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
    with open(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:  # noqa: PTH123 - a descriptor
        for title, text in entries.items():
            _add(archive, f"ccd-bugreport-{name}/{title}", text)
    _mark_the_log(name)
    click.echo(
        f"Wrote {path} (id {name}, which is also in the daemon's log). Look through it before you send it."
    )


def _collected(name: str) -> Mapping[str, Callable[[], Any]]:
    return {
        "about.json": lambda: _about(name),
        "settings.json": _settings,
        "variables.json": lambda: _variables(os.environ),
        "doctor.json": lambda: finding.as_json(list(check(os.environ, with_round_trip=False))),
        "status.json": lambda: _asked(lambda client: client.status()),
        "workers.json": lambda: _asked(lambda client: client.workers()),
        "processes.json": _processes,
        "journal.txt": _journal,
    }


def _text(collect: Callable[[], Any]) -> str:
    try:
        value = collect()
    except Exception as error:  # a part that cannot be had must not keep the others from being sent
        value = {"not collected": f"{type(error).__name__}: {error}"}
    text = value if isinstance(value, str) else json.dumps(value, indent=1, default=str)
    return redacted(text)


def redacted(text: str) -> str:
    """Returns the text without anything that looks like a key, a token, or a password in an address."""
    return _LOOKS_SECRET.sub(_HIDDEN, text)


def _about(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": sys.version,
        "host": {"system": platform.platform(), "cpus": os.cpu_count(), "boot": psutil.boot_time()},
        "packages": {package: _version(package) for package in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _settings() -> dict[str, Any]:
    settings = config.read(os.environ)
    return {
        "file": str(settings.source),
        "daemon": _plain(settings),
        "gateway": _plain(load_settings(os.environ, {})),
        "from variables": sorted(key for key in os.environ if key.startswith("CCD_")),
    }


def _plain(value: Any) -> Any:
    """Settings as plain values; those that are marked secret, and tables of variables, are hidden."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _HIDDEN if field.metadata.get("secret") else _plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {
            str(key): _HIDDEN if _SECRET_WORDS.search(str(key)) else _plain(item)
            for key, item in value.items()
        }
    if isinstance(value, str | int | float | bool | None):
        return value
    return [_plain(item) for item in value] if isinstance(value, Iterable) else str(value)


def _variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """Which of the variables are set that ccd looks at; the values of logins are never shown."""
    return {name: _HIDDEN for name in LOGIN_ENV if name in environ} | {
        name: value if not _SECRET_WORDS.search(name) and "ENV" not in name else _HIDDEN
        for name, value in environ.items()
        if name.startswith("CCD_") or name in ("PATH", "HOME", "LANG", "XDG_RUNTIME_DIR", "XDG_DATA_HOME")
    }


def _asked(ask: Callable[[Client], Any]) -> Any:
    with Client(config.read(os.environ).socket) as client:
        return ask(client)


def _processes() -> list[dict[str, Any]]:
    """This user's processes of ccd and what they started: no arguments of others, no environments."""
    found = []
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                words = process.cmdline()[:4]
                if not any("ccd" in word for word in words) and not _below_ccd(process):
                    continue
                found.append(
                    {
                        "pid": process.pid,
                        "parent": process.ppid(),
                        "name": process.name(),
                        "state": process.status(),
                        "started": process.create_time(),
                        "cpu_s": sum(process.cpu_times()[:2]),
                        "rss_bytes": process.memory_info().rss,
                        "threads": process.num_threads(),
                        "open_files": process.num_fds(),
                    }
                )
        except psutil.Error:
            continue
    return found


def _below_ccd(process: psutil.Process) -> bool:
    return any(any("ccd" in word for word in parent.cmdline()[:4]) for parent in process.parents()[:4])


def _journal() -> str:
    command = ["journalctl", "--no-pager", "-o", "short-iso", "-n", _JOURNAL_LINES]
    units = [part for unit in ("ccd", "ccd-gateway", "ccd-worker") for part in ("-u", unit)]
    done = subprocess.run([*command, *units], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout or f"journalctl: {done.stderr.strip() or 'nothing'}"


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode(errors="replace")
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
    archive.addfile(entry, io.BytesIO(data))


def _mark_the_log(name: str) -> None:
    """Leave the id in the daemon's log, so that the report and the events around it can be brought together."""
    try:
        _asked(lambda client: client.call("admin.note", {"text": f"bug report {name} was written"}))
    except Exception as error:
        logging.getLogger("ccd").debug("the daemon was not told: %s", error)
