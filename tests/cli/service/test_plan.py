"""What `ccd service` would do: only what is missing, never to others' files, and not where it cannot work."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ccd_cli.service import plan
from ccd_cli.service.units import MARK, ServiceWish

WISH = ServiceWish(
    program=Path("/opt/ccd/bin/ccd"),
    user="ccd",
    bind="127.0.0.1:8080",
    for_user=True,
    gateway=True,
    worker=False,
    agents=False,
    roots=(),
)


def written(steps: list[plan.PlanStep]) -> list[str]:
    return [step.path.name for step in steps if step.path is not None]


def do_files(steps: list[plan.PlanStep]) -> None:
    for step in steps:
        if step.path is not None:
            step.do()


def test_everything_then_nothing_then_what_changed(tmp_path: Path) -> None:
    first = plan.to_install(WISH, tmp_path, start=True)
    assert written(first) == ["ccd.socket", "ccd.service", "ccd-gateway.socket", "ccd-gateway.service"]
    assert [step.command[-1] for step in first if step.command][:1] == ["daemon-reload"]
    assert not any("try-restart" in step.command for step in first), "what was not there needs no restart"
    do_files(first)
    again = plan.to_install(WISH, tmp_path, start=True)
    assert written(again) == [] and [step.command[2] for step in again] == ["enable"]
    moved = plan.to_install(replace(WISH, bind="127.0.0.1:9"), tmp_path, start=True)
    assert written(moved) == ["ccd-gateway.socket"]
    assert any("try-restart" in step.command for step in moved)


def test_what_is_not_wished_for_any_more_goes(tmp_path: Path) -> None:
    do_files(plan.to_install(replace(WISH, agents=True), tmp_path, start=False))
    steps = plan.to_install(replace(WISH, gateway=False), tmp_path, start=False)
    assert written(steps) == ["ccd-gateway.socket", "ccd-gateway.service", "agents.conf"]
    do_files(steps)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"ccd.socket", "ccd.service"}


def test_a_file_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / ".config/systemd/user"
    folder.mkdir(parents=True)
    (folder / "ccd.service").write_text("[Service]\nExecStart=/mine\n")
    with pytest.raises(plan.ServiceError, match=r"was not written by ccd.*systemctl edit"):
        plan.to_install(WISH, tmp_path, start=True)
    (folder / "ccd.socket").write_text(f"{MARK}\n")
    steps = plan.to_uninstall(WISH, tmp_path)
    assert written(steps) == ["ccd.socket"]
    assert ("systemctl", "--user", "disable", "--now", "ccd.socket") in [step.command for step in steps]


def test_nothing_to_uninstall(tmp_path: Path) -> None:
    assert plan.to_uninstall(WISH, tmp_path) == []


@pytest.mark.parametrize("script", ["exit 3", "echo no >&2; exit 1"])
def test_a_step_that_fails_says_which(script: str) -> None:
    with pytest.raises(plan.ServiceError, match="sh -c"):
        plan.PlanStep("run", command=("sh", "-c", script)).do()


def test_without_systemd() -> None:
    with pytest.raises(plan.ServiceError, match="has no systemd"):
        plan.PlanStep("run", command=("/nowhere/systemctl",)).do()


def program(folder: Path, interpreter: str = sys.executable) -> Path:
    """A command as pip writes it, reachable for everybody, with an interpreter that is."""
    path = folder / "bin" / "ccd"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!{interpreter}\n")
    path.chmod(0o755)
    return path


def test_a_program_that_the_user_cannot_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What lies above the test's own folder is the machine's matter.
    monkeypatch.setattr(plan, "_may_pass", reaching(tmp_path, plan._may_pass))
    tmp_path.chmod(0o755)
    ccd = program(tmp_path / "open")
    assert plan.why_not_runnable(ccd, "nobody") is None
    (tmp_path / "open").chmod(0o700)
    refusal = plan.why_not_runnable(ccd, "nobody")
    assert (
        refusal is not None and f"{tmp_path / 'open'} is closed" in refusal and "python3 -m venv" in refusal
    )
    (tmp_path / "open").chmod(0o755)
    ccd.chmod(0o700)
    assert plan.why_not_runnable(ccd, "a-user-that-is-still-to-be-made") is not None


def reaching(folder: Path, really: object) -> object:
    return lambda path, user: not path.is_relative_to(folder) or really(path, user)  # type: ignore[operator]


def test_interpreters_in_homes_are_seen(tmp_path: Path) -> None:
    assert not plan.needs_homes([program(tmp_path / "a", "/usr/bin/env")]) or str(tmp_path).startswith(
        ("/home", "/root")
    )
    assert plan.needs_homes([program(tmp_path / "b", f"/root/{os.getpid()}/python")])
