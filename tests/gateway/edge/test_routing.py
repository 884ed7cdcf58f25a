"""What a path leads to is decided once: every route in every odd spelling, asked with every scope, on the wire."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from ccd_gateway.access.keyfile import SCOPES
from ccd_gateway.app import create_app
from ccd_gateway.edge.routing import Route, Routes
from ccd_gateway.settings import GatewaySettings
from fakes.gateway_daemon import Daemon
from fakes.gateway_keys import add_key, bearer
from fakes.gateway_process import Gateway, read_until


def table() -> Routes:
    """The gateway's own; nothing is opened for it."""
    app: Any = create_app(
        GatewaySettings(usage_file=Path("/nonexistent/u"), keys_file=Path("/nonexistent/k"))
    )
    return app.routes  # type: ignore[no-any-return]


def plain(route: Route) -> str:
    return re.sub(r"\{\w+(:path)?\}", "x", route.path)


def inside(path: str, what: str) -> str:
    """The path with this in place of its inner slashes; of the first one where it has no other."""
    return path[0] + path[1:].replace("/", what) if "/" in path[1:] else path.replace("/", what)


#: "/" has no letters to spell otherwise, and guards nothing.
ROUTES = [route for route in table().all if route.path != "/"]
SPELLINGS = {
    "two slashes first": lambda path: "/" + path,
    "three slashes first": lambda path: "//" + path,
    "two slashes inside": lambda path: inside(path, "//"),
    "two slashes last": lambda path: path + "//",
    "a dot first": lambda path: "/." + path,
    "a dot inside": lambda path: inside(path, "/./"),
    "dots": lambda path: "/x/.." + path,
    "dots at the end": lambda path: path + "/x/..",
    "an encoded slash first": lambda path: "/%2F" + path[1:],
    "an encoded slash and two": lambda path: "%2F" + path,
    "encoded dots": lambda path: "/x/%2e%2e" + path,
    "an encoded dot": lambda path: "/%2e" + path,
    "upper case": lambda path: path.upper(),
    "one upper letter": lambda path: path[0] + path[1].upper() + path[2:],
    "parameters": lambda path: path + ";a=b",
    "parameters inside": lambda path: inside(path, ";a/"),
    "a backslash first": lambda path: "\\" + path,
    "a backslash last": lambda path: path + "\\",
    "an encoded backslash": lambda path: "/%5C" + path[1:],
    "a NUL": lambda path: path + "%00",
    "a NUL first": lambda path: "/%00" + path[1:],
    "a line end": lambda path: path + "%0a",
    "a space": lambda path: path + "%20",
    "encoded twice": lambda path: "/" + re.sub("[a-z]", lambda letter: f"%25{ord(letter[0]):02x}", path[1:]),
    "another host": lambda path: "http://localhost" + path,
    "another host's slashes": lambda path: "http://localhost/" + path,
    "wide letters": lambda path: path[:2] + "%EF%BD%81" + path[2:],
}
#: Other ways to write the very same path.
SAME = {
    "a slash last": lambda path: path + "/",
    "encoded": lambda path: "/" + re.sub("[a-z]", lambda letter: f"%{ord(letter[0]):02x}", path[1:]),
    "an encoded slash last": lambda path: path + "%2F",
}


@pytest.fixture(scope="module")
def keyed(
    _daemon: Daemon, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Gateway, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("routes")
    keys = {scope: add_key(folder / "keys.json", scope, scopes=(scope,)) for scope in SCOPES}
    files = {"keys_file": folder / "keys.json", "usage_file": folder / "usage.sqlite3"}
    with Gateway(_daemon.path, reconnect_wait_s=0, **files) as gateway:
        yield gateway, keys
    assert gateway.log == gateway.greeting


def status(gateway: Gateway, method: str, target: str, token: str | None) -> int:
    """The status for a target as it stands."""
    headers = {**(bearer(token) if token else {}), "Content-Type": "application/json"}
    return gateway.request(method, target, None if method == "GET" else b"{}", headers).status


def methods_of(route: Route) -> list[str]:
    served = [
        name for name in ("get", "post", "delete") if route.description and name in route.description().item
    ]
    return [name.upper() for name in served] or ["POST"]


def one_that_may_and_one_that_may_not(route: Route) -> list[str]:
    inside = [scope for scope in SCOPES if scope in (route.scopes or ())]
    return [*inside[:1], *[scope for scope in SCOPES if scope not in inside][:1]]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_path_spelt_oddly_is_no_way_in(
    keyed: tuple[Gateway, dict[str, str]], daemon: Daemon, spelling: str
) -> None:
    """It leads nowhere, unless the odd part stands where a name does; then the key must be for that route."""
    gateway, keys = keyed
    named = [(route.path.partition("{")[0], route.scopes or ()) for route in ROUTES if "{" in route.path]
    for route in ROUTES:
        target = SPELLINGS[spelling](plain(route))
        for scope in one_that_may_and_one_that_may_not(route):
            for method in methods_of(route):
                found = status(gateway, method, target, keys[scope])
                if found not in (400, 403, 404, 405, 426):
                    starts = [start for start, scopes in named if scope in scopes]
                    assert unquote(target).startswith(tuple(starts)), (method, target, scope, found)


@pytest.mark.parametrize("spelling", ["as it is", *SAME])
def test_every_route_asks_for_its_scope(
    keyed: tuple[Gateway, dict[str, str]], daemon: Daemon, spelling: str
) -> None:
    gateway, keys = keyed
    for scope, token in {**keys, "none": None}.items():
        for route in ROUTES:
            if route.path.startswith("/v1/sessions") and scope == "chat":
                continue  # the resource itself says what for
            target = SAME.get(spelling, str)(plain(route))
            refused = bool(route.scopes) and scope not in (route.scopes or ())
            for method in methods_of(route):
                found = status(gateway, method, target, token)
                if token is None:
                    assert (found in (401, 429)) is (route.scopes is not None), (method, target, found)
                else:
                    assert (found == 403) is refused, (method, target, scope, found)


def handshake(gateway: Gateway, target: str, token: str) -> int:
    """The status of a WebSocket's handshake."""
    head = (
        f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nx-api-key: {token}\r\n\r\n"
    )
    with gateway.connect() as connection:
        connection.sendall(head.encode())
        return int(read_until(connection, b"\r\n").split(b" ")[1])


def test_websockets_are_routed_the_same_way(keyed: tuple[Gateway, dict[str, str]], daemon: Daemon) -> None:
    gateway, keys = keyed
    for route in [route for route in ROUTES if route.socket or route.path == "/v1/responses"]:
        for spell in (str, *SAME.values(), *SPELLINGS.values()):
            target = spell(plain(route))
            same = spell is str or spell in SAME.values()
            for scope in ("chat", "agent"):
                found = handshake(gateway, target, keys[scope])
                there = route.path.startswith("/ws/session/") and scope == "agent"
                if not (there and unquote(target).startswith("/ws/session/")):
                    assert found in (400, 403, 404, 426), (target, scope, found)
                elif same:
                    assert found == 101, (target, found)


def test_the_first_that_fits_counts() -> None:
    class Resource:
        async def on_get(self, req: object, resp: object) -> None: ...

    def route(path: str) -> Route:
        return Route(path, Resource())

    absent = route("")
    routes = Routes(
        [route("/a/{name}/end"), route("/a/{name}"), route("/a/b"), route("/a/{rest:path}")], absent
    )
    for path, wanted, fields in (
        ("/a/b", "/a/b", {}),
        ("/a/b/", "/a/b", {}),
        ("/a/c", "/a/{name}", {"name": "c"}),
        ("/a/c/end", "/a/{name}/end", {"name": "c"}),
        ("/a/c/d", "/a/{rest:path}", {"rest": "c/d"}),
        ("/a/c\n", "/a/{name}", {"name": "c\n"}),
        ("/a", "", {}),
        ("/a//", "", {}),
        ("//a/b", "", {}),
        ("/", "", {}),
        ("", "", {}),
        ("a/b", "", {}),
    ):
        found = routes.of(path)
        assert (found.route.path, found.fields) == (wanted, fields), path
