"""A PostgreSQL server of a test's own: Debian's, installed or unpacked from its packages without installing them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .stack import wait_until

_PACKAGES = ("postgresql-15", "libpq5")
_CACHE = Path.home() / ".cache" / "ccd-tests" / "postgresql"


def binaries() -> Path:
    """The folder of initdb and postgres."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    places += sorted(_CACHE.glob("usr/lib/postgresql/*/bin"))
    return next((place for place in places if (place / "postgres").exists()), None) or _unpacked()


def _unpacked() -> Path:
    _CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", *_PACKAGES], cwd=_CACHE, check=True, capture_output=True)
    for package in _CACHE.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, _CACHE], check=True)
    return next(_CACHE.glob("usr/lib/postgresql/*/bin"))


class Postgres:
    """A server that listens on a Unix socket in its own folder, and nowhere else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bin = binaries()
        self._process: subprocess.Popen[bytes] | None = None
        folder.chmod(0o755)
        if os.getuid() == 0:  # it refuses to run as root
            shutil.chown(folder, "nobody", "nogroup")
        self._run("initdb", "-D", str(folder / "data"), "-U", "ccd", "-A", "trust", "--no-sync", "-E", "UTF8")

    @property
    def url(self) -> str:
        return f"postgresql://ccd@/postgres?host={self.folder}"

    def _command(self, name: str, *arguments: str) -> list[str]:
        drop = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
        return [*drop, str(self._bin / name), *arguments]

    def _environ(self) -> dict[str, str]:
        libraries = _CACHE / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"
        extra = {"LD_LIBRARY_PATH": str(libraries)} if libraries.exists() else {}
        return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **extra}

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            self._command(name, *arguments),
            env=self._environ(),
            cwd=self.folder,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        settings = ("-c", "listen_addresses=", "-c", "fsync=off", "-k", str(self.folder))
        command = self._command("postgres", "-D", str(self.folder / "data"), *settings)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environ(), cwd=self.folder, stderr=log, stdout=log
            )
        wait_until(lambda: (self.folder / ".s.PGSQL.5432").exists(), what="PostgreSQL")

    def stop(self) -> None:
        """At once, as in a crash of its host it would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server for the length of a with block, in a folder with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="ccd-pg-", dir="/tmp"))
    try:
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
