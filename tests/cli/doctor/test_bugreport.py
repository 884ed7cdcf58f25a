"""`ccd bugreport`: readable, private, complete where parts are missing, and without any secret."""

from __future__ import annotations

import json
import os
import stat
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from ccd_cli.doctor.bugreport import redacted
from ccd_cli.root import main
from fakes.stack import clean_environ

CANARIES = {
    "ANTHROPIC_API_KEY": "sk-ant-canary-0123456789abcdef",
    "ANTHROPIC_AUTH_TOKEN": "canary-token-that-is-nothing-special",
    "CCD_CLI__ENV": '{"HTTPS_PROXY": "http://user:canary-password@proxy:1"}',
    "CCD_PROFILES__CHAT__ENV": '{"SOME_NAME": "canary-of-a-profile"}',
}


@pytest.fixture
def report(tmp_path: Path, cli: Path) -> Path:
    environ = clean_environ(
        tmp_path / "home",
        CCD_CLI__COMMAND=str(cli),
        CCD_DATA__DIR=str(tmp_path),
        CCD_SOCKET=str(tmp_path / "s"),
        **CANARIES,
    )
    path = tmp_path / "report.tar.gz"
    result = CliRunner().invoke(main, ["bugreport", "-o", str(path)], env=dict.fromkeys(os.environ) | environ)
    assert result.exit_code == 0, result.output
    assert str(path) in result.stdout
    return path


def contents(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        read = {member.name.split("/")[1]: archive.extractfile(member) for member in archive.getmembers()}
        return {name: file.read().decode() for name, file in read.items() if file is not None}


def test_no_secret_is_in_it(report: Path) -> None:
    text = "\n".join(contents(report).values())
    assert "canary" not in text
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


def test_what_is_in_it(report: Path) -> None:
    found = contents(report)
    assert json.loads(found["about.json"])["packages"]["ccdaemon"]
    assert json.loads(found["settings.json"])["daemon"]["pool"]["spares"] == 2
    assert json.loads(found["variables.json"])["ANTHROPIC_API_KEY"] == "[removed]"
    assert "not collected" in json.loads(
        found["status.json"]
    )  # no daemon runs, and the rest is there all the same
    assert json.loads(found["doctor.json"])["findings"]


def test_an_existing_file_is_not_overwritten(report: Path) -> None:
    before = report.read_bytes()
    result = CliRunner().invoke(main, ["bugreport", "-o", str(report)])
    assert result.exit_code != 0 and report.read_bytes() == before


@pytest.mark.parametrize(
    "secret",
    [
        "sk-ant-api03-abcdefghijklmnop",
        "Authorization: Bearer abcdefghijklmnop",
        "https://me:hunter2hunter2@example.org",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "AKIAABCDEFGHIJKLMNOP",
    ],
)
def test_what_looks_like_a_secret(secret: str) -> None:
    assert "[removed]" in redacted(f"before {secret} after")
