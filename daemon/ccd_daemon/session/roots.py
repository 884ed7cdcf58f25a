"""The directories in which sessions may work: only beneath the configured roots, whatever the path says.

A path is walked component by component from the root's descriptor, and no component may be a symbolic link, so
neither `..` nor a link nor a directory that is swapped during the walk leads out. What comes of it is a descriptor,
and the CLI is started by that, so that the path is never looked up again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ccd_daemon.request.body import bad
from ccd_protocol.errors import RpcError

_WALK = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MAX_PATH_CHARS = 4096


def split(text: str, roots: Sequence[Path]) -> tuple[Path, tuple[str, ...]]:
    """Returns the root that a path is in, and the way from there; a relative path is taken from the first root.

    Raises:
        RpcError: BAD_PARAMS.
    """
    if not roots:
        raise _refused("names a directory, but sessions.roots lists none; without it a session gets its own")
    if not text or "\0" in text or len(text) > _MAX_PATH_CHARS:
        raise _refused("expected the path of a directory")
    path = PurePosixPath(text)
    if ".." in path.parts:
        raise _refused("a path must not contain '..'")
    if not path.is_absolute():
        return roots[0].absolute(), path.parts
    for root in roots:
        if path.is_relative_to(root.absolute()):
            return root.absolute(), path.relative_to(root.absolute()).parts
    raise _refused("is not in a directory of sessions.roots")


def open_directory(root: Path, parts: Sequence[str]) -> int:
    """Returns an open descriptor of a directory (`O_PATH`), for the caller to close. Blocks: call it in a thread.

    Raises:
        RpcError: BAD_PARAMS, it is not a directory, or a part of the way from the root is a link.
    """
    try:
        folder = os.open(root, _WALK)
    except OSError as error:
        raise _refused(f"the root {root} cannot be used: {error.strerror}") from None
    for part in parts:
        try:
            inner = os.open(part, _WALK | os.O_NOFOLLOW, dir_fd=folder)
        except OSError as error:
            raise _refused(_reason(error)) from None
        finally:
            os.close(folder)
        folder = inner
    return folder


def _reason(error: OSError) -> str:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return "there is no such directory, or a part of the path is a link"
    return f"cannot be used: {error.strerror}"


def _refused(why: str) -> RpcError:
    return bad("cwd", f"cwd: {why}")
