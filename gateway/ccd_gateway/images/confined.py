"""Files that a request names: only beneath the directories that `gateway.allowed_roots` lists.

A path is walked component by component from the root's descriptor, and no component may be a symbolic link, so
neither `..` nor a link nor a directory that is swapped during the walk leads out. Only regular files with a single
name, on the root's own file system, are read or replaced: no devices, pipes, `/proc`, or other names of files
elsewhere. Everything here blocks; call it in a thread.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ccd_gateway.errors import ApiError, bad_request

_WALK = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MAX_PATH_CHARS = 4096


class Place(NamedTuple):
    """A path beneath a root; `parts` has been checked, the files have not."""

    root: Path
    parts: tuple[str, ...]


class Confined:
    """Access to the files beneath some directories.

    Args:
        roots: the directories; a relative path in a request is taken from the first.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = [root.absolute() for root in roots]

    def place(self, text: str, param: str, base: Place | None = None) -> Place:
        """Where a path of a request leads: absolute, or from `base`, or from the first root.

        Raises:
            ApiError: 400, also when no roots are set.
        """
        if not self._roots:
            raise bad_request(
                f"'{param}' names a file or directory, and this gateway lets requests name none. "
                "List the directories that they may use in gateway.allowed_roots.",
                param,
            )
        if not text or "\0" in text or len(text) > _MAX_PATH_CHARS:
            raise bad_request(f"'{param}': expected a path.", param)
        path = PurePosixPath(text)
        if ".." in path.parts:
            raise bad_request(f"'{param}': a path must not contain '..'.", param)
        if not path.is_absolute():
            root, parts = base or Place(self._roots[0], ())
            return Place(root, (*parts, *path.parts))
        for root in self._roots:
            if path.is_relative_to(root):
                return Place(root, path.relative_to(root).parts)
        raise bad_request(f"'{param}': is not in a directory of gateway.allowed_roots.", param)


def check_directory(place: Place, param: str) -> None:
    """See that there is such a directory.

    Raises:
        ApiError: 400.
    """
    with _refusing(param), _walked(place.root, place.parts):
        pass


def read(place: Place, param: str, max_bytes: int) -> bytes:
    """The content of a file.

    Raises:
        ApiError: 400 when there is no such regular file, or it is larger than `max_bytes`.
    """
    with _refusing(param), _parent(place, param) as (folder, name, device):
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            _check(os.fstat(handle), device, param)
            # The very file that was looked at: opening a pipe or device by its name could block or do something.
            opened = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(handle)
        with os.fdopen(opened, "rb") as file:
            data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise bad_request(f"'{param}': the file is larger than {max_bytes} bytes.", param)
    return data


def check_writable(place: Place, param: str) -> None:
    """See, before anything is spent on it, that `write` could put a file there.

    Raises:
        ApiError: 400.
    """
    with _refusing(param), _parent(place, param) as (folder, name, device):
        _check_target(folder, name, device, param)
        if not os.access(".", os.W_OK, dir_fd=folder):
            raise bad_request(f"'{param}': the gateway may not write to that directory.", param)


def write(place: Place, param: str, data: bytes) -> None:
    """Put a file there, or replace the regular file that is there, at once or not at all.

    Raises:
        ApiError: 400.
    """
    with _refusing(param), _parent(place, param) as (folder, name, device):
        _check_target(folder, name, device, param)
        temporary = f".ccd-{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        opened = os.open(temporary, flags, 0o644, dir_fd=folder)
        try:
            with os.fdopen(opened, "wb") as file:
                file.write(data)
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise


@contextlib.contextmanager
def _refusing(param: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise bad_request(f"'{param}': {_reason(error)}.", param) from None


def _reason(error: OSError) -> str:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return "there is no such file or directory, or a part of the path is a link"
    return f"cannot be used: {os.strerror(error.errno)}" if error.errno else "cannot be used"


@contextlib.contextmanager
def _walked(root: Path, parts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The descriptor of a directory, and the root's device."""
    folder = os.open(root, _WALK)
    try:
        device = os.fstat(folder).st_dev
        for part in parts:
            inner = os.open(part, _WALK | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder, device
    finally:
        os.close(folder)


@contextlib.contextmanager
def _parent(place: Place, param: str) -> Iterator[tuple[int, str, int]]:
    if not place.parts:
        raise bad_request(f"'{param}': names a directory, not a file.", param)
    with _walked(place.root, place.parts[:-1]) as (folder, device):
        yield folder, place.parts[-1], device


def _check_target(folder: int, name: str, device: int, param: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        _check(os.stat(name, dir_fd=folder, follow_symlinks=False), device, param)
    if os.fstat(folder).st_dev != device:
        raise _not_regular(param)


def _check(status: os.stat_result, device: int, param: str) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_dev != device:
        raise _not_regular(param)


def _not_regular(param: str) -> ApiError:
    return bad_request(
        f"'{param}': is not a regular file with a single name on the file system of its allowed root.", param
    )
