"""The contract with gunicorn: a name of its insides that this project uses and that has changed is named here."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from pathlib import Path

import gunicorn
import pytest
from gunicorn.asgi import protocol as gunicorn_protocol
from gunicorn.workers import gasgi

from ccd_gateway.server import internals
from ccd_gateway.server.internals import RELIED_ON, GatewayWorker, WebSocket

GATEWAY = Path(internals.__file__).parents[1]
OURS = {base: ours for ours in (GatewayWorker, WebSocket, internals._Protocol) for base in [ours.__mro__[1]]}
NAMES = [(base, name) for base, names in RELIED_ON.items() for name in names]


def changed(what: str) -> str:
    return f"gunicorn changed {what} (this is {gunicorn.__version__}); ccd_gateway/server/internals.py relies on it"


@functools.cache
def source_of(base: type) -> str:
    theirs = [kind for kind in base.__mro__ if kind.__module__.startswith("gunicorn")]
    return "".join(inspect.getsource(kind) for kind in theirs)


def has(base: type, name: str) -> bool:
    """As a method, as a slot, or as an attribute that it gives its instances."""
    return hasattr(base, name) or re.search(rf"\bself\.{name}\b[^=\n(]*=", source_of(base)) is not None


@pytest.mark.parametrize(("base", "name"), NAMES, ids=[f"{base.__name__}.{name}" for base, name in NAMES])
def test_the_name_is_there(base: type, name: str) -> None:
    assert has(base, name), changed(f"{base.__name__}.{name}")


@pytest.mark.parametrize("base", OURS, ids=lambda base: base.__name__)
def test_what_is_overridden_takes_the_same_arguments(base: type) -> None:
    ours = OURS[base]
    for name, method in vars(ours).items():
        theirs = getattr(base, name, None)
        if not inspect.isfunction(method) or not inspect.isfunction(theirs) or name == "__init__":
            continue
        assert list(inspect.signature(method).parameters) == list(inspect.signature(theirs).parameters), (
            changed(f"{base.__name__}.{name}{inspect.signature(theirs)}")
        )
        assert inspect.iscoroutinefunction(method) == inspect.iscoroutinefunction(theirs), changed(
            f"whether {base.__name__}.{name} is awaited"
        )


def test_where_the_classes_are_looked_up() -> None:
    """Ours take the place of gunicorn's as attributes of modules."""
    assert "lambda: ASGIProtocol(self)" in inspect.getsource(gasgi), changed(
        "how a worker makes its connections"
    )
    source = inspect.getsource(gunicorn_protocol)
    assert "        from gunicorn.asgi.websocket import WebSocketProtocol" in source, changed(
        "how a connection makes its WebSockets"
    )


def names_of_self(tree: ast.AST, context: type[ast.expr_context]) -> set[str]:
    """The names that a class takes from `self` and `super()`, or puts there."""

    def is_self(value: ast.expr) -> bool:
        whose = value.func if isinstance(value, ast.Call) else value
        return isinstance(whose, ast.Name) and whose.id in ("self", "super")

    found = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_self(node.value))
    return {node.attr for node in found if isinstance(node.ctx, context)}


@pytest.mark.parametrize("base", OURS, ids=lambda base: base.__name__)
def test_nothing_else_is_relied_on(base: type) -> None:
    """Every name that a class takes from gunicorn's, or overrides, is in the list."""
    ours = OURS[base]
    tree = ast.parse(inspect.getsource(ours))
    taken = names_of_self(tree, ast.Load) - names_of_self(tree, ast.Store) - set(vars(ours))
    overridden = {name for name in vars(ours) if not name.startswith("__") and has(base, name)}
    slots = set(vars(ours).get("__slots__", ()))
    assert (taken | overridden) - slots - {"__init__"} <= set(RELIED_ON[base])
    for name in slots - names_of_self(tree, ast.Store):
        assert has(base, name), changed(f"{base.__name__}.{name}, for which a slot is kept")


def test_no_other_module_looks_inside() -> None:
    """The rest of the gateway knows of gunicorn what its documents say."""
    allowed = {"gunicorn.app.base"}
    for file in sorted(GATEWAY.rglob("*.py")):
        if file == Path(internals.__file__):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name for name in names if name.startswith("gunicorn")} <= allowed, file
