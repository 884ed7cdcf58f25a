"""`GET /openapi.json`: what the gateway serves, as its routes describe themselves.

A test sends requests that are made up from this document and fails on every answer that it does not describe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata

import falcon
import falcon.asgi
import msgspec

from ccd_gateway.edge.description import Description, Json, operation
from ccd_gateway.edge.routing import Route
from ccd_gateway.errors import JSON

_PATH = re.compile(r"\{(\w+):path\}")


class OpenApi:
    """The resource.

    Args:
        routes: all that are described; the document's own is one of them.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.route = Route("/openapi.json", self, _description, scopes=None)
        self._routes = [*routes, self.route]
        self._encoded = msgspec.json.encode(document(self._routes))  # here, so that nobody has to wait for it

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """The document; the same for everybody."""
        resp.content_type = JSON
        resp.data = self._encoded


def document(routes: Iterable[Route]) -> Json:
    """The OpenAPI 3.1 document."""
    paths: Json = {}
    schemas: Json = {}
    for route in routes:
        if route.description is None:
            continue
        item, more = route.description()
        paths[_PATH.sub(r"{\1}", route.path)] = _opened(item) if route.scopes is None else item
        schemas |= {route.shape.schema: route.shape.described, **more}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ccd gateway",
            "version": metadata.version("ccdaemon"),
            "description": "Claude Code behind the APIs of OpenAI and Anthropic. Fields that OpenAI's do"
            " not have are ignored, and named in the answer's X-CCD-Ignored.",
        },
        "security": [{}, {"bearer": []}, {"header": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _opened(item: Json) -> Json:
    """Operations that ask for no key."""
    return {method: {**described, "security": []} for method, described in item.items()}


def _description() -> Description:
    return Description({"get": operation("openapi", None, {})})
