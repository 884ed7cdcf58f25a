"""Control groups: what is found, what is made of it, and that nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccd_daemon.process import cgroup
from ccd_daemon.process.cgroup import Groups, Places

MIB = 1 << 20


def host(tmp_path: Path, cgroups: str, mounts: str) -> Path:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(cgroups)
    (proc / "mountinfo").write_text(mounts)
    return proc


def hierarchy(folder: Path, **files: str) -> Path:
    """A directory that looks like a control group; writes to it can be read back."""
    folder.mkdir(parents=True)
    for name, text in {"cgroup_procs": "", **files}.items():
        (folder / name.replace("_", ".", 1)).write_text(text)
    return folder


def test_where_groups_can_be_made_is_read_from_the_kernel(tmp_path: Path) -> None:
    v1 = hierarchy(tmp_path / "fs" / "memory" / "slice")
    v2 = hierarchy(tmp_path / "fs" / "unified" / "slice")
    mounts = (
        f"30 20 0:1 / {tmp_path}/fs/memory rw,relatime shared:1 - cgroup cgroup rw,memory\n"
        f"31 20 0:2 / {tmp_path}/fs/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
        f"32 20 0:3 / {tmp_path}/fs/gone rw - cgroup cgroup rw,pids\n"
        "33 20 0:4 / / rw - ext4 /dev/root rw\n"
    )
    proc = host(tmp_path, "5:pids:/slice\n4:memory:/slice\n0::/slice\n", mounts)
    none = tmp_path / "no-systemd"
    assert cgroup.find(proc, none) == Places(unified=v2, memory=v1, pids=None)
    assert cgroup.find(proc, tmp_path) == Places(), "on a systemd host only what is delegated is used"
    assert cgroup.find(tmp_path / "none", none) == Places()


def test_a_mount_that_shows_only_a_part_of_the_hierarchy(tmp_path: Path) -> None:
    own = hierarchy(tmp_path / "mnt" / "deep")
    mounts = f"31 20 0:2 /docker/id {tmp_path}/mnt rw - cgroup2 cgroup2 rw\n"
    proc = host(tmp_path, "0::/docker/id/deep\n", mounts)
    assert cgroup.find(proc, tmp_path / "no-systemd").unified == own


def test_delegated_v2_controllers_are_passed_down_from_a_leaf(tmp_path: Path) -> None:
    own = hierarchy(tmp_path / "own", cgroup_controllers="memory pids hugetlb\n", cgroup_subtree_control="")
    groups = Groups("/run/ccd.sock", Places(unified=own, memory=tmp_path / "v1"))
    assert groups.caps == "cgroup v2 memory.max"
    assert groups.trees == "cgroup.kill"
    assert groups.caps_memory
    assert (own / "cgroup.subtree_control").read_text()
    assert "memory" not in groups.parents, "one memory limit is enough"


def test_without_any_group_there_is_none() -> None:
    groups = Groups("/run/ccd.sock", Places())
    assert groups.open("w1", MIB, 8) is None
    assert (groups.caps, groups.trees) == ("rss polling", "subreaper sweep")
    assert groups.clear_leftovers() == 0
    groups.close()


def test_a_group_that_cannot_be_made_is_left_out(tmp_path: Path) -> None:
    groups = Groups("/run/ccd.sock", Places(unified=tmp_path / "gone"))
    assert groups.open("w1", MIB, 8) is None


@pytest.fixture
def real() -> Iterator[Groups]:
    groups = Groups(f"/test/{os.getpid()}", cgroup.find())
    yield groups
    groups.close()
    assert not [parent for parent in groups.parents.values() if parent.exists()]


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["/bin/sleep", "600"])


def test_a_group_ends_all_that_is_in_it(real: Groups) -> None:
    group = real.open("w1", 256 * MIB, 64)
    if group is None:
        assert real.caps == "rss polling"
        assert real.trees == "subreaper sweep"
        return
    children = [sleeper() for _ in range(3)]
    for child in children:
        group.join(child.pid)
    assert sorted(group.pids()) == sorted(child.pid for child in children)
    assert real.open("w1", 256 * MIB, 64) is not None, "a group of that name may exist"
    group.remove()
    assert group.pids(), "one with processes stays"
    started = time.perf_counter()
    if not group.kill():
        for child in children:
            child.kill()
    assert [child.wait(5) for child in children] == [-signal.SIGKILL] * 3
    assert time.perf_counter() - started < 1
    assert group.oom_kills() == 0
    group.remove()
    assert group.pids() == []


def test_what_a_crashed_daemon_left_is_ended_by_the_next_one_of_its_socket(real: Groups) -> None:
    crashed = Groups(f"/test/{os.getpid()}", cgroup.find())
    crashed.parents = {name: parent.with_name(parent.name + "9") for name, parent in crashed.parents.items()}
    group = crashed.open("w1", 256 * MIB, 64)
    if group is None:
        assert real.clear_leftovers() == 0
        return
    child = sleeper()
    group.join(child.pid)
    stranger = Groups("/test/another", cgroup.find())
    assert stranger.clear_leftovers() == 0
    assert child.poll() is None, "it belongs to another socket"
    assert real.clear_leftovers() >= 1
    assert child.wait(5) == -signal.SIGKILL
    real.clear_leftovers()
    assert not [parent for parent in crashed.parents.values() if parent.exists()]


def test_pressure_is_the_worst_of_the_last_ten_seconds(tmp_path: Path) -> None:
    file = tmp_path / "memory"
    file.write_text(
        "some avg10=12.34 avg60=0.00 avg300=0.00 total=5\nfull avg10=99.00 avg60=0 avg300=0 total=1\n"
    )
    assert cgroup.pressure((str(file),)) == 12.34
    assert cgroup.pressure((str(file), str(tmp_path / "none"))) == 12.34
    file.write_text("nonsense")
    assert cgroup.pressure((str(file),)) == 0
