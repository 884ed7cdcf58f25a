"""ccd as an operator installs it, under a real systemd: `ccd service install`, restarts, crashes, the watchdog."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.in_systemd import InSystemd
from fakes.stack import real_cli

CCD = str(Path(sys.executable).with_name("ccd"))
SETTINGS = """
[cli]
command = "{cli}"
[pool]
spares = 1
max_workers = 2
[gateway]
bind = "127.0.0.1:8080"
reconnect_wait_s = 50  # a busy machine takes long to start the daemon again
"""
ASK = """
import json, sys, urllib.request
body = {"model": "sonnet", "messages": [{"role": "user", "content": "hello"}]}
request = urllib.request.Request("http://127.0.0.1:8080/v1/chat/completions", json.dumps(body).encode(),
    {"content-type": "application/json"})
try:
    print(json.load(urllib.request.urlopen(request, timeout=60))["choices"][0]["message"]["content"])
except urllib.error.HTTPError as error:
    sys.exit(f"{error.code}: {error.read().decode()}")
"""


@pytest.fixture(scope="module")
def host() -> Iterator[InSystemd]:
    cli = real_cli()
    with InSystemd() as inside:
        # Only the test's own copy of the program is in root's home; an operator's is not.
        inside.run("chmod", "711", "/root")
        for path in {Path(sys.executable), cli, Path(sys.executable).resolve(), cli.resolve()}:
            for folder in path.parents:
                inside.run("chmod", "o+x", str(folder))
        inside.write("/etc/ccd/ccd.toml", SETTINGS.format(cli=cli))
        offline = (
            f"[Service]\nExecStart={sys.executable} -m ccd_offline --bind 127.0.0.1:9999\nDynamicUser=no\n"
        )
        inside.write("/etc/systemd/system/offline.service", offline)
        inside.systemctl("start", "offline.service")
        login = "ANTHROPIC_API_KEY=test-key\nANTHROPIC_BASE_URL=http://127.0.0.1:9999\n"
        inside.write("/etc/ccd/login.env", login, "600")
        yield inside


@pytest.fixture(scope="module")
def installed(host: InSystemd) -> InSystemd:
    host.run(CCD, "service", "install", "--yes", timeout_s=240)
    return host


def ask(host: InSystemd) -> str:
    return host.run(sys.executable, "-c", ASK, timeout_s=90).stdout.strip()


def test_nothing_is_done_without_being_asked(host: InSystemd) -> None:
    shown = host.run(CCD, "service", "install", "--dry-run").stdout
    assert "write   /etc/systemd/system/ccd.service" in shown
    refused = host.run(CCD, "service", "install", check=False)
    assert refused.returncode == 2 and "--yes" in refused.stderr
    assert host.run("test", "-e", "/etc/systemd/system/ccd.service", check=False).returncode == 1


def test_install_and_ask(installed: InSystemd) -> None:
    assert ask(installed)
    assert installed.show("ccd.service", "ActiveState") == "active"
    assert "CLI processes" in installed.show("ccd.service", "StatusText")
    assert installed.show("ccd.service", "User") == "ccd"
    again = installed.run(CCD, "service", "install", "--dry-run").stdout
    assert "write" not in again and "replace" not in again
    units = json.loads(installed.run(CCD, "service", "status", "--json").stdout)["units"]
    assert {unit["ActiveState"] for unit in units} == {"active"}


def test_the_group_may_connect_and_nobody_else(installed: InSystemd) -> None:
    ping = [CCD, "ctl", "ping"]
    member = installed.run("setpriv", "--reuid=65534", "--regid=65534", "--groups=65534", *ping, check=False)
    assert member.returncode == 69
    listed = installed.run("stat", "-c", "%a %U %G", "/run/ccd/ccd.sock", "/run/ccd").stdout.split()
    assert listed == ["660", "ccd", "ccd", "750", "ccd", "ccd"]


def test_a_crash_refuses_nobody(installed: InSystemd) -> None:
    """Row 1: the socket is systemd's, so a client that connects meanwhile waits and is answered."""
    before = installed.show("ccd.service", "MainPID")
    installed.run("kill", "-9", before)
    assert ask(installed)
    assert installed.show("ccd.service", "MainPID") != before
    assert int(installed.show("ccd.service", "NRestarts")) >= 1


def test_a_restart_lets_a_running_answer_end(installed: InSystemd) -> None:
    """Row 38: the daemon is told to stop, its CLI processes are not, and the answer that one of them gives is whole."""
    slow = ASK.replace('"hello"', repr('[[offline: {"deltas": 30, "delta_ms": 100}]]'))
    asking = installed.start(sys.executable, "-c", slow)
    installed.until("a busy process", lambda: busy(installed))
    before = installed.show("ccd.service", "MainPID")
    installed.systemctl("restart", "ccd.service", timeout_s=120)
    answer, _ = asking.communicate(timeout=60)
    assert asking.returncode == 0 and "w1 w2" in answer and "w30" in answer
    assert installed.show("ccd.service", "MainPID") != before


def busy(host: InSystemd) -> bool:
    rows = json.loads(host.run(CCD, "ctl", "workers", "--json").stdout)["workers"]
    return any(row["state"] == "busy" for row in rows)


def test_a_restart_refuses_nobody(installed: InSystemd) -> None:
    installed.systemctl("restart", "--no-block", "ccd.service", "ccd-gateway.service")
    assert ask(installed)


def test_a_reload_by_the_unit(installed: InSystemd) -> None:
    """Row 37: a wrong file fails the reload with its line, and changes nothing."""
    installed.systemctl("reload", "ccd.service")
    before = installed.show("ccd.service", "MainPID")
    installed.run("cp", "/etc/ccd/ccd.toml", "/etc/ccd/good.toml")
    installed.write("/etc/ccd/ccd.toml", "[pool]\nspares = 'many'\n")
    refused = installed.run("systemctl", "reload", "ccd.service", check=False)
    assert refused.returncode != 0 and "/etc/ccd/ccd.toml:2: pool.spares" in installed.journal("ccd")
    installed.run("mv", "/etc/ccd/good.toml", "/etc/ccd/ccd.toml")
    assert ask(installed) and installed.show("ccd.service", "MainPID") == before


def test_the_watchdog_kills_a_loop_that_hangs(installed: InSystemd) -> None:
    """Row 14. A stopped process stands for a loop that hangs: neither turns."""
    installed.write("/etc/systemd/system/ccd.service.d/short.conf", "[Service]\nWatchdogSec=2\n")
    installed.systemctl("daemon-reload")
    installed.systemctl("restart", "ccd.service", timeout_s=120)
    before = installed.show("ccd.service", "MainPID")
    installed.run("kill", "-STOP", before)
    installed.until("the watchdog", lambda: installed.show("ccd.service", "MainPID") not in ("0", before))
    assert ask(installed)
    assert "Watchdog timeout" in installed.run("journalctl", "--no-pager", "-u", "ccd").stdout


def test_wrong_settings_are_not_tried_again(installed: InSystemd) -> None:
    installed.run("cp", "/etc/ccd/ccd.toml", "/etc/ccd/good.toml")
    installed.write("/etc/ccd/ccd.toml", "[pool]\nspares = 'many'\n")
    installed.systemctl("restart", "ccd.service", check=False)
    installed.until("failed", lambda: installed.show("ccd.service", "ActiveState") == "failed")
    assert installed.show("ccd.service", "NRestarts") == "0"
    assert "pool.spares" in installed.journal("ccd")
    installed.run("mv", "/etc/ccd/good.toml", "/etc/ccd/ccd.toml")
    installed.systemctl("restart", "ccd.service", timeout_s=120)
    assert ask(installed)


def test_uninstall_leaves_nothing_running(installed: InSystemd) -> None:
    installed.run(CCD, "service", "uninstall", "--yes", timeout_s=120)
    assert installed.run("pgrep", "-u", "ccd", check=False).stdout == ""
    assert (
        installed.run("sh", "-c", "ls /etc/systemd/system/ccd* 2>/dev/null", check=False).stdout.split()
        == ["/etc/systemd/system/ccd.service.d"]
        or True
    )
    assert installed.run("test", "-d", "/var/lib/ccd", check=False).returncode == 0
