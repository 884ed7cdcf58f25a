"""Who may import whom, as one table: packages, their libraries, and within a package its rooms and floors."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Package -> (its folder, what it may import besides the standard library and itself).
PACKAGES: dict[str, tuple[str, set[str]]] = {
    "ccd_protocol": ("protocol", {"msgpack"}),
    "ccd_settings": ("protocol", set()),
    "ccd_client": ("client", {"msgpack", "trio", "ccd_protocol", "ccd_settings"}),
    "ccd_daemon": (
        "daemon",
        {
            "ccd_protocol",
            "ccd_settings",
            "uvloop",
            "msgspec",
            "msgpack",
            "psutil",
            "jsonschema",
            "referencing",
        },
    ),
    "ccd_offline": (
        "gateway",
        {"ccd_settings", "falcon", "gunicorn", "msgspec", "uvloop", "prometheus_client"},
    ),
    "ccd_gateway": (
        "gateway",
        {
            "ccd_protocol",
            "ccd_settings",
            "ccd_client",
            "falcon",
            "gunicorn",
            "msgspec",
            "uvloop",
            "prometheus_client",
        },
    ),
    "ccd_tasks": (
        "daemon",
        {
            *("ccd_protocol", "ccd_settings", "ccd_client", "ccd_daemon"),
            *("dbos", "sqlalchemy", "standardwebhooks", "msgspec", "uvloop"),
        },
    ),
    "ccd_cli": (
        "daemon",
        {
            "ccd_protocol",
            "ccd_settings",
            "ccd_client",
            "ccd_daemon",
            "ccd_tasks",
            "ccd_gateway",
            "ccd_offline",
            "click",
            "rich",
            "prompt_toolkit",
            "psutil",
        },
    ),
}

#: Package -> room or module -> floor: each imports from lower floors and from itself only.
FLOORS: dict[str, dict[str, int]] = {
    "ccd_tasks": {
        "worker": 5,
        "rpc": 4,
        "engine": 3,
        "turn": 2,
        "webhooks": 2,
        "store": 1,
        "settings": 0,
        "spec": 0,
    },
    "ccd_daemon": {
        "app": 11,
        "daemon": 10,
        "report": 9,
        "housekeeping": 8,
        "reload": 8,
        "launcher": 8,
        "sweeper": 7,
        "watchdog": 7,
        "rpc": 6,
        "session": 4,
        "schema": 5,
        "pool": 4,
        "worker": 3,
        "request": 2,
        "store": 2,
        "claude": 1,
        "process": 1,
        "config": 0,
        "errors": 0,
        "logs": 0,
    },
    # The edge asks `access` who comes in, so it stands on it; the surfaces share `surface` and know nothing of each
    # other. What is not named here is a surface too: a new one needs no floor.
    "ccd_gateway": {
        "__main__": 11,
        "server": 10,
        "app": 9,
        "openapi": 8,
        "tasks": 8,  # runs later what the surfaces read and write
        "*": 7,
        "conversations": 6,
        "surface": 5,
        "answer": 4,
        "edge": 3,
        "access": 2,
        "images": 2,
        "shapes": 1,
        "settings": 1,
        "boot_signals": 0,
        "errors": 0,
        "names": 0,
    },
    "ccd_offline": {
        "__main__": 5,
        "server": 4,
        "app": 3,
        "answer": 2,
        "rules": 1,
        "errors": 0,
        "ledger": 0,
        "models": 0,
        "tokens": 0,
    },
}

#: Rooms and modules that decide and write text only: no event loop, no operating system.
PURE = {
    "ccd_daemon.request",
    "ccd_daemon.worker.lifecycle",
    "ccd_daemon.worker.wear",
    "ccd_daemon.worker.controller",
    "ccd_daemon.claude.argv",
    "ccd_daemon.claude.control",
    "ccd_daemon.claude.failures",
    "ccd_daemon.claude.ndjson",
    "ccd_daemon.pool.policy",
    "ccd_daemon.errors",
}
IMPURE_MODULES = {"asyncio", "os", "socket", "subprocess", "time"}


def files() -> list[tuple[str, Path]]:
    return [
        (package, file)
        for package, (folder, _) in PACKAGES.items()
        for file in sorted((ROOT / folder / package).rglob("*.py"))
    ]


def module_name(package: str, file: Path) -> str:
    parts = file.relative_to(ROOT / PACKAGES[package][0]).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file: Path) -> set[str]:
    """Every module that a file names in an import, wherever in the file it stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import hides where it leads"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_of(package: str) -> set[str]:
    """All rooms of a package, and the modules at its top."""
    modules = (module_name(package, file) for name, file in files() if name == package)
    return {room_of(package, module) for module in modules} - {""}


def room_of(package: str, module: str) -> str:
    """The first word below the package: a room, or a module that stands at its top."""
    return module.removeprefix(package).lstrip(".").partition(".")[0]


ALL = pytest.mark.parametrize(
    ("package", "file"), files(), ids=[module_name(package, file) for package, file in files()]
)


@ALL
def test_packages(package: str, file: Path) -> None:
    tops = {name.partition(".")[0] for name in imported(file)}
    allowed = PACKAGES[package][1] | set(sys.stdlib_module_names) | {package}
    assert tops <= allowed, tops - allowed


@ALL
def test_nobody_imports_by_a_string(package: str, file: Path) -> None:
    """What an import hides from the reader it hides from the type checker and from this test."""
    text = file.read_text()
    hidden = "import_module(" in text or "__import__(" in text
    assert not hidden or module_name(package, file) in {"ccd_client", "ccd_cli.__main__"}


@ALL
def test_floors(package: str, file: Path) -> None:
    floors = FLOORS.get(package)
    if floors is None:
        return
    here = room_of(package, module_name(package, file))
    if not here:
        return
    floors = {**dict.fromkeys(rooms_of(package), floors.get("*", -1)), **floors}
    assert floors[here] >= 0, f"{here} stands on no floor"
    for name in imported(file):
        if not name.startswith(package + "."):
            continue
        there = room_of(package, name)
        assert there == here or floors[there] < floors[here], f"{here} imports {name}, which is not below it"


@ALL
def test_purity(package: str, file: Path) -> None:
    module = module_name(package, file)
    if any(module == pure or module.startswith(pure + ".") for pure in PURE):
        assert not {name.partition(".")[0] for name in imported(file)} & IMPURE_MODULES


def test_trio_is_imported_by_one_module_only() -> None:
    users = {
        file.name for _, file in files() if "trio" in {name.partition(".")[0] for name in imported(file)}
    }
    assert users <= {"_trio.py"}


@pytest.mark.parametrize("room", sorted({file.parent for _, file in files()}), ids=lambda room: room.name)
def test_rooms(room: Path) -> None:
    """A room says what lives there, and stays small enough to be known."""
    tree = ast.parse((room / "__init__.py").read_text())
    assert ast.get_docstring(tree), room
    assert len([file for file in room.glob("*.py") if file.stem not in ("__init__", "__main__")]) <= 12, room


# --- sizes, circles and names: what keeps a room known ---

MOST_LINES = 400
MOST_METHODS = 22
#: Percent of functions that fit a screen; those that do not are straight lines of many steps.
FIT, FIT_LINES = 99, 50


def classes(file: Path) -> list[ast.ClassDef]:
    return [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ClassDef)]


@ALL
def test_modules_and_classes_stay_small(package: str, file: Path) -> None:
    assert len(file.read_text().splitlines()) <= MOST_LINES
    for found in classes(file):
        methods = [node for node in found.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        assert len(methods) <= MOST_METHODS, f"{found.name} has {len(methods)} methods"


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_fit_a_screen(package: str) -> None:
    lengths = sorted(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for name, file in files()
        if name == package
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert lengths[len(lengths) * FIT // 100] <= FIT_LINES
    assert lengths[len(lengths) // 2] <= 8


def named(file: Path, modules: Mapping[str, Path]) -> set[str]:
    """The modules of ours that a file imports: `from room import module` means the module, not the room."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in names.values()}
    return {name for name in found if modules.get(name, file) != file}


def test_modules_import_each_other_in_no_circle() -> None:
    """What is only imported for types, or inside of a function, counts too."""
    modules = {module_name(package, file): file for package, file in files()}
    below = {module: named(file, modules) for module, file in modules.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " imports ".join((*way[way.index(module) :], module))
        if module not in done:
            for name in sorted(below[module] - {module}):
                visit(name, (*way, module))
            done.add(module)

    for module in modules:
        visit(module, ())


def test_names_of_classes_are_unique_in_the_tree() -> None:
    """One word for each thing: whoever searches for a class finds one."""
    places: dict[str, list[str]] = {}
    for package, file in files():
        for found in classes(file):
            places.setdefault(found.name, []).append(module_name(package, file))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
