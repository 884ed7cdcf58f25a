"""The wheel: one distribution, whose base install needs msgpack alone and says what is missing."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", target, ROOT)
    assert built.returncode == 0, built.stderr
    (found,) = target.glob("ccdaemon-*.whl")
    return found


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the base install."""
    folder = tmp_path_factory.mktemp("base") / "venv"
    assert run(sys.executable, "-m", "venv", folder).returncode == 0
    installed = run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", wheel)
    assert installed.returncode == 0, installed.stderr
    return folder / "bin"


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {
        "ccd_protocol",
        "ccd_settings",
        "ccd_client",
        "ccd_daemon",
        "ccd_cli",
        "ccd_tasks",
        "ccd_gateway",
        "ccd_offline",
    }
    assert {f"{top}/py.typed" for top in tops} <= set(names)


def test_the_base_install_is_the_client_and_msgpack(base: Path) -> None:
    listed = run(base / "python", "-m", "pip", "list", "--format", "freeze").stdout.split()
    assert {line.partition("==")[0] for line in listed} - {"pip", "setuptools"} == {"ccdaemon", "msgpack"}
    imported = run(
        base / "python", "-W", "error", "-c", "from ccd_client import AsyncClient, Client; print(Client)"
    )
    assert imported.returncode == 0, imported.stderr


def test_the_script_names_the_missing_extra(base: Path) -> None:
    asked = run(base / "ccd", "ask", "hello")
    assert asked.returncode == 69
    assert "ccdaemon[daemon]" in asked.stderr
    assert "Traceback" not in asked.stderr
