"""Installs a copy of the Claude Code CLI of ccd's own, from the Python package that carries the binary.

pip downloads the wheel, so index, proxy, certificates and credentials are whatever pip is configured with,
and pip checks the wheel's hash. The binary is checked again against the wheel's own record while it is
unpacked, is run once, and only then renamed into its place: a version directory holds a whole working CLI
or does not exist.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from ccd_daemon.claude import binary as cli_binary

PACKAGE = "claude-agent-sdk"
MEMBER = "claude_agent_sdk/_bundled/claude"
KEPT_VERSIONS = 2
_LEAST_FREE_BYTES = 1_000_000_000  # the wheel, the binary out of it, and what pip needs meanwhile
_MAX_BINARY_BYTES = 4 * 1024**3
_CHUNK_BYTES = 1024 * 1024
_POLL_S = 0.2
_REQUESTABLE = re.compile(r"[0-9][0-9A-Za-z.+!-]{0,40}")
_SIZE = re.compile(rb"\.whl \(([0-9.]+) ([kMG]?B)\)")
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    csv.Error,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)
_UNITS = {b"B": 1, b"kB": 1000, b"MB": 1000**2, b"GB": 1000**3}
_ALTERNATIVE = (
    "You can also install it yourself with `npm install -g @anthropic-ai/claude-code` (needs Node 22 or"
    " newer), or"
    " name an existing one in the setting cli.command (CCD_CLI__COMMAND)."
)


class InstallFailed(cli_binary.CliError):
    """The CLI was not installed, and nothing was changed. The message says why and what to do."""


class Progress(NamedTuple):
    """How far an installation is."""

    stage: str  # waiting, downloading, unpacking, checking, done
    done_bytes: int = 0
    total_bytes: int | None = None  # where it is known


class Installed(NamedTuple):
    """A copy of the CLI in its place."""

    path: Path
    version: str


def install(
    data_dir: Path,
    *,
    version: str | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    python: str = sys.executable,
) -> Installed:
    """Download, check and place the CLI; blocks for the minute that this may take.

    `version` is a release of the `claude-agent-sdk` package (not of the CLI), by default the newest;
    `python` is the interpreter whose pip is used. A second installation into the same data directory waits
    for the first. Keeps the new version and the newest other one.

    Raises:
        InstallFailed: with the reason and what to do.
    """
    if version is not None and not _REQUESTABLE.fullmatch(version):
        raise InstallFailed(f"{version!r} is no release number of {PACKAGE}; one looks like 0.2.187.")
    root = cli_binary.installed_dir(data_dir)
    try:
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _locked(root, progress), _workspace(root) as work:
            return _install(root, work, version, progress, python)
    except OSError as error:
        raise _os_failure(error, root) from error


def _install(
    root: Path, work: Path, version: str | None, progress: Callable[[Progress], None], python: str
) -> Installed:
    _check_space(root)
    wheel = _download(work, version, progress, python)
    binary = work / "new" / cli_binary.NAME
    binary.parent.mkdir()
    unpack(wheel, binary, progress)
    progress(Progress("checking"))
    try:
        told = cli_binary.version(binary, os.environ)
        cli_binary.check_supported(told, PACKAGE)
    except cli_binary.CliError as error:
        raise InstallFailed(f"The downloaded CLI is not usable here. {error} {_ALTERNATIVE}") from error
    placed = _place(binary, root, told)
    _prune(root, told)
    progress(Progress("done"))
    return Installed(placed, told)


@contextlib.contextmanager
def _locked(root: Path, progress: Callable[[Progress], None]) -> Iterator[None]:
    with (root / ".lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(Progress("waiting"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _workspace(root: Path) -> Iterator[Path]:
    """A directory beside the versions, so that a rename is enough; earlier leftovers go first."""
    for stale in root.glob(".new-*"):
        shutil.rmtree(stale, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_space(root: Path) -> None:
    free = shutil.disk_usage(root).free
    if free < _LEAST_FREE_BYTES:
        raise InstallFailed(
            f"{root} has {free // 10**6} MB left, and installing the CLI takes about"
            f" {_LEAST_FREE_BYTES // 10**6} MB. Free some space, or choose a data directory on a"
            " larger disk."
        )


def _download(work: Path, version: str | None, progress: Callable[[Progress], None], python: str) -> Path:
    """Returns the wheel, fetched by pip. Its temporary files go into the workspace too: they are its progress."""
    wheels, scratch = work / "wheels", work / "scratch"
    wheels.mkdir()
    scratch.mkdir()
    command = [python, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(wheels)]
    command.append(PACKAGE if version is None else f"{PACKAGE}=={version}")
    with (work / "pip.out").open("w+b") as output:
        status = _watched(command, output, scratch, progress)
        said = _tail(output)
    found = sorted(wheels.glob("*.whl"))
    if status != 0 or len(found) != 1:
        raise InstallFailed(f"{_pip_failure(said, python)} {_ALTERNATIVE}")
    return found[0]


def _watched(
    command: list[str], output: IO[bytes], scratch: Path, progress: Callable[[Progress], None]
) -> int:
    """Run pip to its end, telling how much it has fetched. It never outlives this call."""
    env = {**os.environ, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    fetched = 0
    try:
        while True:
            total = _announced(output)
            fetched = max(fetched, min(_size(scratch), total or sys.maxsize))  # at the end pip has it twice
            progress(Progress("downloading", fetched, total))
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_POLL_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _size(directory: Path) -> int:
    """Returns the bytes of all files below, some of which may vanish meanwhile."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(Path(parent) / name).st_size
    return total


def _announced(output: IO[bytes]) -> int | None:
    """Returns the wheel's size as pip printed it: "Downloading NAME.whl (110.3 MB)"."""
    found = _SIZE.search(os.pread(output.fileno(), 65536, 0))
    return int(float(found[1]) * _UNITS[found[2]]) if found else None


def _tail(output: IO[bytes]) -> str:
    size = os.fstat(output.fileno()).st_size
    return os.pread(output.fileno(), 4000, max(0, size - 4000)).decode("utf-8", "replace").strip()


_PIP_SAYS = (
    (
        "No module named pip",
        "{python} has no pip, which is what downloads the CLI. Run `{python} -m ensurepip --upgrade`, or"
        " install your"
        " system's pip and venv packages.",
    ),
    ("No space left on device", "The disk is full. Free about 1 GB and try again."),
    (
        "name resolution|Name or service not known|NewConnectionError|Connection refused|timed"
        " out|unreachable"
        "|ReadTimeoutError|RemoteDisconnected|ConnectionResetError",
        "The package index cannot be reached: check the network, and pip's proxy and index settings"
        " (`{python} -m pip config list`).",
    ),
    ("ProxyError|Tunnel connection failed", "The proxy refused the connection: check HTTPS_PROXY."),
    (
        "SSLError|CERTIFICATE_VERIFY_FAILED",
        "The index's certificate is not trusted: set pip's `cert` option.",
    ),
    (
        "DO NOT MATCH THE HASHES",
        "The download does not match the index's hash and was thrown away. Try again.",
    ),
    (
        "No matching distribution|Could not find a version",
        "The package index has no claude-agent-sdk for this machine, or not that release.",
    ),
)


def _pip_failure(said: str, python: str) -> str:
    """Returns what to tell about pip's failure, with its last words."""
    known = (meaning for pattern, meaning in _PIP_SAYS if re.search(pattern, said, re.IGNORECASE))
    meaning = next(known, "pip could not download the CLI.")
    last = "\n".join(said.splitlines()[-3:])
    return f"{meaning.format(python=python)} pip said: {last}\n"


def unpack(wheel: Path, target: Path, progress: Callable[[Progress], None] = lambda _: None) -> None:
    """Write the wheel's binary to `target`, executable and on the disk, if it is what the wheel's record
    says.

    Raises:
        InstallFailed: the wheel is damaged, or carries no binary.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            expected = _recorded(archive)
            found = _copy(archive, target, progress)
    except _DAMAGED as error:
        raise InstallFailed(f"{wheel.name} is damaged ({error}). Try again. {_ALTERNATIVE}") from error
    if found != expected:
        target.unlink()
        raise InstallFailed(
            f"{wheel.name} is damaged: its binary does not have the hash that its record names. Try again."
            f" {_ALTERNATIVE}"
        )


def _recorded(archive: zipfile.ZipFile) -> bytes:
    """Returns the sha256 of the binary in the wheel's RECORD."""
    for name in archive.namelist():
        if re.fullmatch(r"[^/]+\.dist-info/RECORD", name) and archive.getinfo(name).file_size < 10**7:
            for row in csv.reader(io.StringIO(archive.read(name).decode())):
                if len(row) == 3 and row[0] == MEMBER and row[1].startswith("sha256="):
                    text = row[1].removeprefix("sha256=")
                    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    raise InstallFailed(
        f"{archive.filename and Path(archive.filename).name} carries no CLI for this machine. {_ALTERNATIVE}"
    )


def _copy(archive: zipfile.ZipFile, target: Path, progress: Callable[[Progress], None]) -> bytes:
    """Copy the binary piece by piece; the result is its sha256."""
    try:
        member = archive.getinfo(MEMBER)
    except KeyError as error:
        raise zipfile.BadZipFile(f"no {MEMBER} in it") from error
    if member.file_size > _MAX_BINARY_BYTES:
        raise zipfile.BadZipFile(f"{MEMBER} has {member.file_size} bytes")
    digest = hashlib.sha256()
    done = 0
    with archive.open(member) as source, target.open("xb") as sink:
        while piece := source.read(_CHUNK_BYTES):
            digest.update(piece)
            sink.write(piece)
            done += len(piece)
            progress(Progress("unpacking", done, member.file_size))
        os.fchmod(sink.fileno(), 0o755)
        sink.flush()
        os.fsync(sink.fileno())
    return digest.digest()


def _place(binary: Path, root: Path, version: str) -> Path:
    """Rename the checked binary into its version's directory, where the same version may be in use."""
    place = root / version
    try:
        binary.parent.rename(place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        binary.replace(place / cli_binary.NAME)
    for directory in (place, root):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return place / cli_binary.NAME


def _prune(root: Path, version: str) -> None:
    """Remove all but the new version and the newest others."""
    kept = (version, cli_binary.chosen(root.parent))
    others = [path.parent for path in cli_binary.installed(root.parent) if path.parent.name not in kept]
    for directory in others[KEPT_VERSIONS - 1 :]:
        shutil.rmtree(directory, ignore_errors=True)


def _os_failure(error: OSError, root: Path) -> InstallFailed:
    reason = {
        errno.ENOSPC: "the disk is full; free about 1 GB and try again",
        errno.EDQUOT: "your disk quota is used up",
        errno.EACCES: "you may not write there; choose a data directory of your own",
        errno.EROFS: "it is on a read-only file system; choose another data directory",
    }.get(error.errno or 0, str(error))
    return InstallFailed(f"The CLI cannot be installed in {root}: {reason}. {_ALTERNATIVE}")
