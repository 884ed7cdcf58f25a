"""The base install, client and protocol, needs nothing but msgpack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCKED = """
import sys

class Blocker:
    allowed = {"ccd_protocol", "ccd_settings", "ccd_client", "msgpack", *sys.stdlib_module_names}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def run(code: str) -> str:
    environ = {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "protocol"), str(ROOT / "client")]),
        "PATH": os.defpath,
    }
    command = [sys.executable, "-c", BLOCKED + code]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_blocker_blocks() -> None:
    out = run("try:\n import pytest\nexcept ModuleNotFoundError as error: print(error)")
    assert out == "blocked: pytest\n"


def test_everything_imports_with_msgpack_alone() -> None:
    modules = sorted(
        ".".join(path.relative_to((ROOT / folder).parent).with_suffix("").parts)
        for folder in ("protocol/ccd_protocol", "protocol/ccd_settings", "client/ccd_client")
        for path in (ROOT / folder).rglob("*.py")
        if path.stem not in ("__init__", "_trio")
    )
    assert len(modules) > 12
    run(f"import importlib\nfor name in {modules!r}: importlib.import_module(name)")


def test_only_what_is_asked_for_is_imported() -> None:
    run("import ccd_client, sys; assert 'asyncio' not in sys.modules and 'trio' not in sys.modules")
    run("import ccd_client, sys; ccd_client.AsyncClient; assert 'asyncio' in sys.modules")


def test_the_trio_client_names_the_extra() -> None:
    out = run("import ccd_client\ntry: ccd_client.TrioClient\nexcept ImportError as error: print(error)")
    assert out == "TrioClient needs trio: pip install 'ccdaemon[trio]'\n"
    out = run("import ccd_client\ntry: ccd_client.Nothing\nexcept AttributeError as error: print(error)")
    assert "Nothing" in out
