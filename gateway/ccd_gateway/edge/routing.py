"""Routes: which path leads where, who may go there, how its errors look. The only place that reads a path.

Each room lists its routes beside their resources, and everything else is taken from there: the envelope finds a
request's route before anything is decided about it, and the framework is given that same route, so no two parts of the
gateway can read a path differently. A path is compared as it stands, decoded once by the server: case, empty segments
and dots count. Only one slash at its end is let pass.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, NamedTuple, Protocol

import falcon
import falcon.asgi
from falcon.routing import map_http_methods, set_default_responders

from ccd_gateway.edge.description import Description
from ccd_gateway.errors import ApiError
from ccd_gateway.shapes import OPENAI, Shape

Address = tuple[Any, ...]  # of a listening socket, as the operating system tells it
Scope = MutableMapping[str, Any]
Socket = Callable[[Scope, Any, Any], Awaitable[None]]

CHAT = ("chat",)
ANY: tuple[str, ...] = ()
_SCOPE_NAME = "ccd.found"
_ALL = ("0.0.0.0", "::")
_FIELD = re.compile(r"\{(\w+)(:path)?\}")
_VERSION = b"anthropic-version"
_METHODS = ("get", "head", "post", "put", "patch", "delete", "options")


class Route(NamedTuple):
    """One path and all that is decided by it.

    Attributes:
        path: with `{name}` for a segment, and `{name:path}` for all the rest.
        resource: the framework's, with `on_get` and the like.
        description: for `/openapi.json`; None for what is only there to be refused.
        suffix: of the resource's methods.
        scopes: what a key must allow, one of these; `ANY`: every good key will do; None: no key is asked for.
        shape: of its errors.
        versioned: of its errors for clients that name a version of the Messages API, where these share the path.
        socket: serves WebSockets here; it raises `ApiError` to refuse one before it is accepted.
    """

    path: str
    resource: object
    description: Callable[[], Description] | None = None
    suffix: str | None = None
    scopes: tuple[str, ...] | None = CHAT
    shape: Shape = OPENAI
    versioned: Shape | None = None
    socket: Socket | None = None


class Matched(NamedTuple):
    """The route of a request.

    Attributes:
        route: it.
        methods: its responders, by HTTP method.
        fields: what stands in the place of its `{name}`s.
    """

    route: Route
    methods: Mapping[str, Any]
    fields: dict[str, str]

    def shape_for(self, headers: Mapping[bytes, bytes]) -> Shape:
        """The shape of the errors of a request with these headers."""
        route = self.route
        return route.versioned if route.versioned is not None and _VERSION in headers else route.shape


class Router(Protocol):
    """Finds the route of each request."""

    def admit(self, scope: Scope) -> Matched:
        """The route of a request."""

    def find(self, uri: str, req: Any = None) -> tuple[object, Mapping[str, Any], dict[str, str], str]:
        """The framework's question for it."""


_NOTHING: Mapping[str, Route] = {}


class Routes:
    """All routes, as the framework's router.

    Args:
        routes: of the gateway; of two that fit, the first counts.
        absent: for paths without any.
        misplaced: likewise, for paths that end in a certain way.
    """

    def __init__(
        self, routes: Iterable[Route], absent: Route, misplaced: Mapping[str, Route] = _NOTHING
    ) -> None:
        self.all = list(routes)
        self._exact: dict[str, Matched] = {}
        self._patterns: list[tuple[re.Pattern[str], Matched]] = []
        self._absent = _served(absent)
        self._misplaced = {end: _served(route) for end, route in misplaced.items()}
        for route in self.all:
            if "{" in route.path:
                self._patterns.append((_pattern(route.path), _served(route)))
            else:
                self._exact[route.path] = _served(route)

    def of(self, path: str) -> Matched:
        """The route of a path."""
        if len(path) > 1 and path.endswith("/"):
            path = path[:-1]
        exact = self._exact.get(path)
        if exact is not None:
            return exact
        for pattern, found in self._patterns:
            if (match := pattern.fullmatch(path)) is not None:
                return found._replace(fields=match.groupdict())
        return next((found for end, found in self._misplaced.items() if path.endswith(end)), self._absent)

    def admit(self, scope: Scope) -> Matched:
        """The route of a request, which `find` and `shape_of` then give back; for the envelope."""
        found = scope[_SCOPE_NAME] = self.of(scope["path"])
        return found

    def find(self, uri: str, req: Any = None) -> tuple[object, Mapping[str, Any], dict[str, str], str]:
        """What the framework asks its router: the route that was found before."""
        found = matched(req.scope)
        return found.route.resource, found.methods, dict(found.fields), found.route.path


class ByListener:
    """The public routes, and beside them the admin address's, as one router.

    Decided by the socket that a request came in by, never by its path or a header: nothing that a client writes leads
    from the public address to the admin one.

    Args:
        public: for every address but the admin one.
        admin: for that one.
        address: of the admin listener, as the operating system tells it.
    """

    def __init__(self, public: Router, admin: Router, address: Address) -> None:
        self._public = public
        self._admin = admin
        self._host, self._port = address[:2]

    def admit(self, scope: Scope) -> Matched:
        """The route of a request, among those of its address."""
        return (self._admin if self._came_in_by_admin(scope) else self._public).admit(scope)

    def find(self, uri: str, req: Any = None) -> tuple[object, Mapping[str, Any], dict[str, str], str]:
        """What the framework asks: the route that was found before."""
        return self._public.find(uri, req)

    def _came_in_by_admin(self, scope: Scope) -> bool:
        """Compares what was connected to; nobody else has the port of a listener for all addresses."""
        server = scope.get("server")
        return server is not None and server[1] == self._port and self._host in (server[0], *_ALL)


def matched(scope: Mapping[str, Any]) -> Matched:
    """The route of a request that was admitted."""
    found: Matched = scope[_SCOPE_NAME]
    return found


def _served(route: Route) -> Matched:
    methods = map_http_methods(route.resource, route.suffix)
    set_default_responders(methods, asgi=True)
    return Matched(route, methods, {})


def _pattern(path: str) -> re.Pattern[str]:
    """`/v1/models/{model:path}` as a regular expression."""
    pieces, at = [], 0
    for field in _FIELD.finditer(path):
        pieces += [re.escape(path[at : field.start()]), f"(?P<{field[1]}>{'.+' if field[2] else '[^/]+'})"]
        at = field.end()
    return re.compile("".join(pieces) + re.escape(path[at:]), re.DOTALL)


class Refusing:
    """A resource that answers every method with a refusal.

    Args:
        why: makes the refusal of the method and the path.
    """

    def __init__(self, why: Callable[[str, str], ApiError]) -> None:
        for method in _METHODS:
            setattr(self, f"on_{method}", self._refuse)
        self._why = why

    async def _refuse(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **fields: str) -> None:
        raise self._why(req.method, req.path)
