"""Two addresses, two sets of routes: which one a request belongs to is decided by the socket that it came in by.

Never by its path or a header, so nothing that a client writes leads from the public address to the admin one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccd_gateway.edge.routing import Matched, Router, Scope

Address = tuple[Any, ...]
_ALL = ("0.0.0.0", "::")


class ByListener:
    """The public routes, and beside them the admin address's, as one router.

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
