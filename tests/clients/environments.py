"""One virtual environment per client, made once from a pinned list and kept in a cache.

Clients disagree about the versions of what they need, so each has its own. The folder's name holds a digest of all
that it was made from: a changed list is another environment, and an old one is never repaired.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
BUILD_TIMEOUT_S = 900.0
# What would make the new environment's interpreter or pip look at this one's packages.
_OURS = (
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "__PYVENV_LAUNCHER__",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_USER",
)


class BuildError(Exception):
    """An environment could not be made; the text has what was run and what it said."""


def cache_folder() -> Path:
    """Where the environments are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ccd-tests" / "clients"


def folder(client: str, requirements: Path = REQUIREMENTS, cache: Path | None = None) -> Path:
    """The environment's folder, whether it has been made or not."""
    made_from = [
        (requirements / f"{client}.txt").read_text(),
        sys.version,
        platform.machine(),
        sys.base_prefix,
    ]
    digest = hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:16]
    return (cache or cache_folder()) / f"{client}-{digest}"


def python(client: str, requirements: Path = REQUIREMENTS, cache: Path | None = None) -> Path:
    """The interpreter of a client's environment, which is made first if it is not there.

    Raises:
        BuildError: it could not be made.
    """
    place = folder(client, requirements, cache)
    done = place / ".complete"
    if not done.exists():
        with _locked(place):
            if not done.exists():  # another run may have made it meanwhile
                _build(place, requirements / f"{client}.txt")
                done.touch()
    return place / "bin" / "python"


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Hold the environment's lock; the system lets go of it when its holder dies."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(place: Path, requirements: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)  # what a run that was killed has left
    _run(sys.executable, "-m", "venv", "--without-pip", str(place))
    # The outer pip fills it: faster than one pip for each environment, and a Python may come without ensurepip.
    pip = (sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"))
    options = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-compile")
    _run(*pip, "install", *options, "--requirement", str(requirements))


def _run(*command: str) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in _OURS}
    try:
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{' '.join(command)} took longer than {BUILD_TIMEOUT_S:g} s") from error
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
