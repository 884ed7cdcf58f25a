"""Who may import whom. Protocol knows nobody; the gateway is a client like any other; the daemon serves them."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "ccd_protocol": (ROOT / "protocol" / "ccd_protocol", {"msgpack"}),
    "ccd_client": (ROOT / "client" / "ccd_client", {"msgpack", "trio", "ccd_protocol"}),
    "ccd_daemon": (
        ROOT / "daemon" / "ccd_daemon",
        {
            "ccd_protocol",
            "ccd_client",
            "uvloop",
            "msgspec",
            "msgpack",
            "psutil",
            "click",
            "rich",
            "jsonschema",
        },
    ),
    "ccd_gateway": (
        ROOT / "gateway" / "ccd_gateway",
        {"ccd_protocol", "ccd_client", "falcon", "gunicorn", "msgspec", "uvloop"},
    ),
}
#: The daemon's command line talks to a daemon; the daemon itself never does.
CLIENT_USERS = {"ask_batch.py", "ctl.py", "cli.py", "ask.py", "rpc_command.py"}
#: Decisions and text only: no event loop, no operating system.
PURE = {
    "wish.py",
    "answer_schema.py",
    "thoughts.py",
    "structured.py",
    "lifecycle.py",
    "ndjson.py",
    "control.py",
    "argv.py",
    "policy.py",
    "wear.py",
    "controller.py",
    "errors.py",
    "body.py",
}


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def files() -> list[tuple[str, Path]]:
    return [(name, file) for name, (folder, _) in PACKAGES.items() for file in sorted(folder.rglob("*.py"))]


@pytest.mark.parametrize(("package", "file"), files(), ids=lambda value: str(getattr(value, "name", value)))
def test_imports_stay_within_the_layers(package: str, file: Path) -> None:
    allowed = PACKAGES[package][1] | set(sys.stdlib_module_names) | {package}
    names = imported(file)
    assert names <= allowed, names - allowed
    if package == "ccd_daemon" and "ccd_client" in names:
        assert file.name in CLIENT_USERS
    if package == "ccd_daemon" and file.name in PURE:
        assert not names & {"asyncio", "os", "socket", "subprocess", "time"}


def test_trio_is_imported_by_one_module_only() -> None:
    users = {file.name for name, file in files() if "trio" in imported(file)}
    assert users <= {"_trio.py"}
