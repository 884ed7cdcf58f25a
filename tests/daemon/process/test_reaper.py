"""What a sweep kills, reaps and leaves alone. In a process of its own, because it reaps every child there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, subprocess, sys, time
from ccd_daemon.process import reaper
from ccd_daemon.process.process import WORKER_MARKER

def sleeper(marker=None):
    env = {} if marker is None else {WORKER_MARKER: marker}
    return subprocess.Popen(["/bin/sleep", "600"], env=env)

def gone(process, bound=5):
    end = time.monotonic() + bound
    while os.path.exists(f"/proc/{process.pid}") and time.monotonic() < end:
        reaper.sweep_strays(known, live)
    return not os.path.exists(f"/proc/{process.pid}")

reaper.become_subreaper()
worker, background, bare, of_dead, unknown = (
    sleeper("w1/1"), sleeper("w1/1"), sleeper(), sleeper("w0/1"), sleeper("w1/2"))
known = {worker.pid}
live = {"w1/1": lambda: [bare.pid]}
found = reaper.sweep_strays(known, live)
assert found.dying == 2, found
assert sorted(found.living["w1/1"]) == sorted([background.pid, bare.pid]), found
assert gone(of_dead) and gone(unknown)
assert worker.poll() is None and background.poll() is None and bare.poll() is None
live.clear()
assert gone(background) and gone(bare) and worker.poll() is None

# Double-forked: its parent ends, it becomes ours.
orphan = subprocess.run([sys.executable, "-ISc", '''
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        os.close(1)
        time.sleep(600)
    os._exit(0)
os.wait()
'''], env={}, stdout=subprocess.PIPE, check=True)
pid = int(orphan.stdout)
class P: pass
p = P(); p.pid = pid
assert gone(p)

leftover = subprocess.Popen(["/bin/sleep", "600"], env={reaper.DAEMON_MARKER: "/some/socket"})
other = subprocess.Popen(["/bin/sleep", "600"], env={reaper.DAEMON_MARKER: "/some/socket2"})
assert reaper.sweep_leftovers("/some/socket", grace_s=0) == 1
assert leftover.wait(5) == -9 and other.poll() is None
assert reaper.sweep_leftovers("/none") == 0
for process in (worker, other):
    process.kill(); process.wait()
print("fine")
"""


def test_sweeping(tmp_path: Path) -> None:
    # A file, not a pipe: a child that a failure leaves behind must not keep the test waiting.
    with (tmp_path / "out").open("w") as out:
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, stdout=out, stderr=out, timeout=60, check=False)
    text = (tmp_path / "out").read_text()
    assert done.returncode == 0, text
    assert text.endswith("fine\n")
