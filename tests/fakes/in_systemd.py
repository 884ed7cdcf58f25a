"""A real systemd to test under: an nspawn container on a throw-away overlay of this machine's root.

Checkouts and virtual environments are visible inside at the same paths, the network is a loopback of its own, and
whatever is written vanishes at the end. Needs root, Debian's systemd-container, and unshare and nsenter. Where they
are missing the tests fail: what a service does under systemd cannot be known without one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_TOOLS = ("systemd-nspawn", "unshare", "nsenter", "systemctl")
_BOOT_S = 90
_STOP_S = 30


class InSystemd:
    """A booted container; a context manager. `run` executes a command inside."""

    def __init__(self) -> None:
        missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
        assert not missing, f"install Debian's systemd-container: {', '.join(missing)} not found"
        assert os.getuid() == 0, "a container needs root"
        self.name = f"ccd-test-{os.getpid()}"
        self.leader = 0
        self._groups = _groups(self.name)
        self._work = Path(tempfile.mkdtemp(prefix="ccd-systemd-"))
        self._nspawn: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> InSystemd:
        try:
            self._boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self, *command: str, check: bool = True, timeout_s: float = 60, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root inside. Returns its output; a failure shows it."""
        done = subprocess.run(
            [*self._enter(), *command],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command as root inside, which goes on by itself. Returns it; its output is to be read."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*self._enter(), *command], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )

    def systemctl(self, *arguments: str, check: bool = True, timeout_s: float = 60) -> str:
        """Run `systemctl` inside. Returns what it printed."""
        return self.run("systemctl", *arguments, check=check, timeout_s=timeout_s).stdout.strip()

    def show(self, unit: str, key: str) -> str:
        """Returns one property of a unit."""
        return self.systemctl("show", "-P", key, unit)

    def journal(self, unit: str) -> str:
        """Returns what a unit has logged."""
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit).stdout

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Write a file inside; it vanishes with the container."""
        self.run("sh", "-c", f'mkdir -p "$(dirname {path})"; cat > {path}; chmod {mode} {path}', stdin=text)

    def until(self, what: str, check: object, timeout_s: float = 60) -> object:
        """Ask again and again until `check()` is true. Returns its value."""
        end = time.monotonic() + timeout_s
        while True:
            value = check()  # type: ignore[operator]
            if value:
                return value
            assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
            time.sleep(0.05)

    def close(self) -> None:
        """Power off, and remove what was made for it. Never kill nspawn itself: its systemd would survive."""
        if self._nspawn is not None:
            if self.leader:
                subprocess.run([*self._enter(), "systemctl", "poweroff", "-ff"], check=False, timeout=_STOP_S)
            self._nspawn.wait(_STOP_S)
        for folder in self._groups:
            for _ in range(50):
                if not _remove_groups(folder):
                    break
                time.sleep(0.1)
        shutil.rmtree(self._work, ignore_errors=True)

    def _enter(self) -> list[str]:
        return ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "--root", "--wd"]

    def _boot(self) -> None:
        root = self._work / "fs" / "root"
        groups = " ".join(f'"{group}"' for group in self._groups)
        script = f"""
            set -eu
            mkdir -p "{self._work}/fs"; mount -t tmpfs tmpfs "{self._work}/fs"
            cd "{self._work}/fs"; mkdir upper work root
            mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
            for name in dev run proc sys; do rm -rf "root/$name"; mkdir "root/$name"; done
            : > root/etc/machine-id
            for group in {groups}; do mkdir -p "$group"; echo $$ > "$group/cgroup.procs"; done
            exec setsid systemd-nspawn --register=no --keep-unit -q -M {self.name} -D "{root}" --private-network \\
                --link-journal=no --boot systemd.unit=multi-user.target systemd.show_status=0
        """
        with (self._work / "boot.log").open("wb") as log:
            command = ["unshare", "-m", "sh", "-c", script]
            self._nspawn = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + _BOOT_S
        while not self._found_leader():
            said = (self._work / "boot.log").read_text(errors="replace")
            assert self._nspawn.poll() is None and time.monotonic() < end, f"systemd did not boot:\n{said}"
            time.sleep(0.05)
        # The v1 controllers come read-only, so MemoryMax= and TasksMax= would do nothing.
        for controller in ("memory", "pids"):
            self.run("mount", "-o", "remount,bind,rw", f"/sys/fs/cgroup/{controller}", check=False)
        self.systemctl("daemon-reexec", check=False)
        self.until(
            "booted", lambda: self.systemctl("is-system-running", check=False) in ("running", "degraded")
        )

    def _found_leader(self) -> bool:
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        for pid in children.read_text().split() if children.exists() else ():
            if Path(f"/proc/{pid}/root/run/systemd/private").exists():
                self.leader = int(pid)
        return bool(self.leader)


def _groups(name: str) -> list[Path]:
    """Returns the control groups to put the container into, below this process's own."""
    root = Path("/sys/fs/cgroup")
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path.lstrip("/")
    places = [root / "memory" / own.get("memory", ""), root / "unified", root / "systemd"]
    return [place / name for place in places if place.is_dir()]


def _remove_groups(folder: Path) -> bool:
    """Remove a control group and those below it. Returns True while something is left."""
    for below, _, _ in os.walk(folder, topdown=False):
        try:
            Path(below).rmdir()
        except OSError:
            return True
    return False


if __name__ == "__main__":
    with InSystemd() as container:
        sys.exit(
            subprocess.run(
                [*container._enter(), "env", "-C", str(Path.cwd()), *sys.argv[1:]], check=False
            ).returncode
        )
