"""`ccd cli list`, `use`, `remove` and `install`, with copies that are scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ccd_cli.root import main


class Ccd:
    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.environ = {
            "HOME": str(folder),
            "CCD_DATA__DIR": str(self.data),
            "CCD_CONFIG": "",
            "PATH": "/nonexistent",
        }

    def copy(self, version: str, release: str | None = None) -> Path:
        place = self.data / "cli" / version
        place.mkdir(parents=True)
        program = place / "claude"
        program.write_text(f"#!/bin/sh\necho '{version} (Claude Code)'\n")
        program.chmod(0o755)
        if release is not None:
            (place / "release").write_text(release)
        return program

    def __call__(self, *arguments: str, status: int = 0) -> Result:
        result = CliRunner().invoke(main, ["cli", *arguments], env=self.environ)
        assert result.exit_code == status, result.output
        return result

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json").stdout)

    def used(self) -> str:
        return Path(self.json("path")["path"]).parent.name


@pytest.fixture
def ccd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ccd:
    monkeypatch.delenv("CCD_CLI__COMMAND", raising=False)
    return Ccd(tmp_path)


def test_a_copy_is_chosen_until_the_newest_is_again(ccd: Ccd) -> None:
    for version in ("2.1.200", "2.1.330"):
        ccd.copy(version)
    assert ccd.used() == "2.1.330"
    ccd("use", "2.1.200")
    assert ccd.used() == "2.1.200"
    assert [(row["version"], row["used"]) for row in ccd.json("list")] == [
        ("2.1.330", False),
        ("2.1.200", True),
    ]
    assert "* " in ccd("list").stdout
    ccd("use", "newest")
    assert ccd.used() == "2.1.330"
    assert "there are: 2.1.330, 2.1.200" in ccd("use", "9.9.9", status=1).stderr


def test_a_copy_that_is_removed_is_no_longer_chosen(ccd: Ccd) -> None:
    for version in ("2.1.200", "2.1.330"):
        ccd.copy(version)
    ccd("use", "2.1.200")
    ccd("remove", "2.1.200")
    assert ccd.used() == "2.1.330"
    ccd("remove", "2.1.330")
    assert "Install one" in ccd("list").stderr
    ccd("remove", "../../x", status=1)


def test_what_is_there_is_not_fetched(ccd: Ccd) -> None:
    ccd.copy("2.1.200", release="0.2.100")
    ccd.copy("2.1.330")
    assert ccd.json("install") == {
        "path": str(ccd.data / "cli" / "2.1.330" / "claude"),
        "version": "2.1.330",
        "fetched": False,
    }
    assert ccd.json("install", "--version", "0.2.100")["version"] == "2.1.200"
    assert "is already installed" in ccd("install").stdout
