"""Where the older projects' surfaces are."""

from __future__ import annotations

from typing import TypeAlias

import falcon.asgi

from ccd_gateway.answer.backend import Backend
from ccd_gateway.compat.rate import SharedLimit
from ccd_gateway.compat.run import Run, Version
from ccd_gateway.compat.stats import Stats
from ccd_gateway.conversations.routes import Conversations
from ccd_gateway.settings import GatewaySettings

App: TypeAlias = falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response]


def add_routes(app: App, backend: Backend, settings: GatewaySettings, limit: SharedLimit) -> None:
    """Register them."""
    conversations = Conversations(backend, settings)
    app.add_route("/v1/conversations", conversations)
    app.add_route("/v1/conversations/{name:path}", conversations, suffix="one")
    app.add_route("/stats", Stats(backend))
    app.add_route("/version", Version(backend))
    app.add_route("/api/claude-code", Run(backend, settings, limit))
