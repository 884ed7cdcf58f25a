"""The units as shipped: silent in `systemd-analyze verify`, and hardened as far as the documents say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ccd_cli.service.units import MARK, ServiceWish, files, unit_names

#: Exposure, 0.0 best to 10.0 worst, that each service may have at most; see docs/operating.md.
LIMITS = {"ccd.service": 2.0, "ccd-gateway.service": 2.0, "ccd-worker.service": 2.0}
AGENTS_LIMIT = 4.0


def wish(**changes: object) -> ServiceWish:
    values: dict[str, object] = {
        "program": Path("/bin/true"),
        "user": "daemon",
        "bind": "127.0.0.1:8080",
        "for_user": False,
        "gateway": True,
        "worker": True,
        "agents": False,
        "roots": (Path("/srv/projects"),),
    }
    return ServiceWish(**{**values, **changes})  # type: ignore[arg-type]


def written(folder: Path, wanted: ServiceWish) -> Path:
    for path, content in files(wanted, Path("/home/somebody")).items():
        place = folder / path.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    return folder


def units(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("ccd*.s*") if path.suffix in (".service", ".socket", ".slice")
    )


@pytest.mark.parametrize("for_user", [False, True])
def test_verify_is_silent(tmp_path: Path, for_user: bool) -> None:
    found = units(written(tmp_path, wish(for_user=for_user)))
    assert {path.name for path in found} >= set(unit_names(wish()))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(["--user"] if for_user else []), *map(str, found)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (0, "")


def exposure(unit: Path) -> float:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", str(unit)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout
    return float(found[1])


@pytest.mark.parametrize("name", LIMITS)
def test_exposure_as_shipped(tmp_path: Path, name: str) -> None:
    folder = written(tmp_path, wish())
    assert exposure(folder / "etc/systemd/system" / name) <= LIMITS[name]


def test_exposure_with_agents(tmp_path: Path) -> None:
    folder = written(tmp_path, wish(agents=True)) / "etc/systemd/system"
    # The analysis reads no drop-ins of a file outside of the search path, so its lines are put where they count.
    unit = folder / "ccd.service"
    before, install = unit.read_text().split("[Install]")
    drop_in = (folder / "ccd.service.d/agents.conf").read_text().split("[Service]")[1]
    unit.write_text(f"{before}{drop_in}\n[Install]{install}")
    assert exposure(unit) <= AGENTS_LIMIT


def test_every_switch_has_its_reason_and_every_place_is_filled() -> None:
    for path, content in files(wish(agents=True), Path("/home/somebody")).items():
        assert content.startswith(MARK), path
        assert not re.search(r"@[A-Z_]+@", content), path


def test_the_roots_of_agents_are_the_only_homes_they_see() -> None:
    text = files(wish(agents=True), Path("/h"))[Path("/etc/systemd/system/ccd.service.d/agents.conf")]
    assert "BindPaths=/srv/projects" in text and "ProtectHome=tmpfs" in text
