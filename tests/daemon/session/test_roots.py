"""Where sessions may work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccd_daemon.session import roots
from ccd_protocol.errors import Code, RpcError


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "root" / "a" / "b").mkdir(parents=True)
    (tmp_path / "root" / "file").write_text("x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "inner").symlink_to("a")
    (tmp_path / "rooted").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    yield tmp_path
    assert len(os.listdir("/proc/self/fd")) == before


def opened(text: str, *allowed: Path) -> str:
    folder = roots.open_directory(*roots.split(text, allowed))
    try:
        return os.readlink(f"/proc/self/fd/{folder}")
    finally:
        os.close(folder)


@pytest.mark.parametrize("text", ["{root}", "{root}/", "{root}/a/b", "{root}/./a", "a", ".", "a/b"])
def test_inside(place: Path, text: str) -> None:
    root = place / "root"
    expected = os.path.realpath(root / text.format(root=root))
    assert opened(text.format(root=root), root) == expected


def test_each_root_counts_and_the_first_is_that_of_relative_paths(place: Path) -> None:
    assert opened(str(place / "outside"), place / "root", place / "outside") == str(place / "outside")
    assert opened("a", place / "root", place / "outside") == str(place / "root" / "a")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\0b",
        "x" * 4097,
        "..",
        "a/../..",
        "{root}/../outside",
        "{base}/outside",
        "{base}/rooted",
        "/",
        "/etc",
        "link",
        "{root}/link",
        "inner/b",
        "file",
        "missing",
        "~",
    ],
)
def test_everything_else_is_refused(place: Path, text: str) -> None:
    root = place / "root"
    with pytest.raises(RpcError) as failure:
        opened(text.format(root=root, base=place), root)
    assert failure.value.code is Code.BAD_PARAMS and failure.value.data["param"] == "cwd"
    assert failure.value.message.startswith("cwd: ")


def test_no_roots_no_directories() -> None:
    with pytest.raises(RpcError, match=r"sessions\.roots"):
        roots.split("/tmp", [])


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RpcError, match="cannot be used"):
        opened("a", tmp_path / "gone")
