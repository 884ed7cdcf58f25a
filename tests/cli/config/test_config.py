"""`ccd config check` and `show`: every mistake with file and line, every value with its source, no secret."""

from __future__ import annotations

import json
import os
from pathlib import Path

from click.testing import CliRunner, Result

from ccd_cli.root import main

GOOD = """
[pool]
spares = 3
[gateway]
workers = 4
[cli]
env = { TOKEN = "canary" }
"""
BAD = """
[pool]
spares = "three"
spawns = 1
[gateway]
workers = 1000
"""


def run(*arguments: str, **environ: str) -> Result:
    cleared = dict.fromkeys(os.environ) | {"HOME": "/nonexistent"} | environ
    return CliRunner().invoke(main, ["config", *arguments], env=cleared)


def test_a_file_in_order(tmp_path: Path) -> None:
    file = tmp_path / "ccd.toml"
    file.write_text(GOOD)
    result = run("check", str(file))
    assert result.exit_code == 0 and str(file) in result.stdout
    assert json.loads(run("check", "--json", str(file)).stdout) == {"file": str(file), "problems": []}


def test_every_mistake_has_its_line(tmp_path: Path) -> None:
    file = tmp_path / "ccd.toml"
    file.write_text(BAD)
    result = run("check", str(file))
    assert result.exit_code == 2
    assert [
        line.partition(": expected")[0].partition(": unknown")[0] for line in result.stderr.splitlines()
    ] == [
        f"{file}:3: pool.spares",
        f"{file}:4: pool.spawns",
        f"{file}:6: gateway.workers",
    ]
    assert json.loads(run("check", "--json", str(file)).stdout)["problems"] == result.stderr.splitlines()


def test_a_file_that_is_not_there() -> None:
    result = run("check", "/nonexistent/ccd.toml")
    assert result.exit_code == 2 and "cannot be read" in result.stderr


def test_where_each_value_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "ccd.toml"
    file.write_text(GOOD)
    result = run("show", "--json", CCD_CONFIG=str(file), CCD_QUEUE__TIMEOUT_S="5")
    rows = json.loads(result.stdout)
    assert rows["pool.spares"] == {"value": 3, "source": f"{file}:3"}
    assert rows["gateway.workers"] == {"value": 4, "source": f"{file}:5"}
    assert rows["queue.timeout_s"] == {"value": 5.0, "source": "CCD_QUEUE__TIMEOUT_S"}
    assert rows["pool.rehearse"]["source"] == "default"
    assert rows["cli.env"]["value"] == "(hidden)" and "canary" not in result.stdout
    changed = run("show", "--changed", CCD_CONFIG=str(file)).stdout
    assert len(changed.splitlines()) == 3


def test_wrong_settings_are_not_shown(tmp_path: Path) -> None:
    assert run("show", CCD_POOL__SPARES="x").exit_code == 2
