"""The gateway as an ASGI application."""

from __future__ import annotations

import logging
import os
from typing import TypeAlias, cast

import falcon
import falcon.asgi
from falcon.inspect import inspect_routes

from ccd_gateway import boot_signals
from ccd_gateway.access.auth import Door, KeyStore
from ccd_gateway.access.metering import Books
from ccd_gateway.answer.backend import Backend
from ccd_gateway.anthropic.edge import MessagesEdge
from ccd_gateway.anthropic.routes import CountTokens, Messages
from ccd_gateway.chat.routes import ChatCompletions
from ccd_gateway.compat.edge import OlderEdge
from ccd_gateway.compat.routes import add_routes as add_legacy_routes
from ccd_gateway.edge import absent
from ccd_gateway.edge.access_log import AccessLog
from ccd_gateway.edge.browser import BrowserRules
from ccd_gateway.edge.envelope import App as AsgiApp
from ccd_gateway.edge.envelope import Envelope
from ccd_gateway.errors import JSON, ApiError, from_rpc
from ccd_gateway.health import Health
from ccd_gateway.models.listing import Models
from ccd_gateway.models.routes import Models as AnthropicModels
from ccd_gateway.openapi import OpenApi
from ccd_gateway.responses.routes import Responses
from ccd_gateway.sessions.routes import NoDiallingIn, Sessions, Upgrade
from ccd_gateway.sessions.socket import SessionSockets
from ccd_gateway.settings import GatewaySettings
from ccd_protocol.errors import RpcError

App: TypeAlias = falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response]
_log = logging.getLogger(__name__)


def create_app(settings: GatewaySettings, backend: Backend | None = None) -> AsgiApp:
    """Build the application. It keeps nothing open before its first request, so it can be built before a fork."""
    backend = backend or Backend(
        settings.daemon_socket(os.environ),
        max_calls=settings.max_streams,
        timeout_s=settings.request_timeout_s,
        reconnect_wait_s=settings.reconnect_wait_s,
        books=Books(settings.usage_path(os.environ)),
    )
    store = KeyStore(settings.keys_path(os.environ))
    store.keys()  # before the fork: a worker that replaces another knows that there were keys
    log = AccessLog(settings.access_log)
    app: App = falcon.asgi.App(middleware=[_Lifespan(backend, log)])
    app.req_options.strip_url_path_trailing_slash = True
    _add_routes(app, backend, settings)
    app.add_sink(absent.sink([route.path for route in inspect_routes(app)]), "/")
    _add_error_handlers(app)
    rules = BrowserRules(settings.bind_host, settings.allowed_hosts, settings.allowed_origins)
    envelope = Envelope(
        cast(AsgiApp, app),
        rules,
        max_requests=settings.max_streams,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
        door=Door(store, settings.require_keys),
        sockets=SessionSockets(backend, settings, store),
        log=log,
    )
    return OlderEdge(MessagesEdge(envelope))


def _add_routes(app: App, backend: Backend, settings: GatewaySettings) -> None:
    models = AnthropicModels(backend, settings, Models(backend, settings))
    app.add_route("/health", Health(backend, json=settings.json_health))
    app.add_route("/v1/models", models)
    app.add_route("/v1/models/{model:path}", models, suffix="one")
    app.add_route("/v1/chat/completions", ChatCompletions(backend, settings))
    app.add_route("/v1/messages", Messages(backend, settings))
    app.add_route("/v1/messages/count_tokens", CountTokens(settings))
    app.add_route("/openapi.json", OpenApi())
    add_legacy_routes(app, backend, settings)
    _add_sessions(app, backend, settings)
    _add_responses(app, Responses(backend, settings, dict(os.environ)))


def _add_sessions(app: App, backend: Backend, settings: GatewaySettings) -> None:
    sessions = Sessions(backend, settings)
    app.add_route("/v1/sessions", sessions)
    app.add_route("/v1/sessions/{name:path}", sessions, suffix="one")
    app.add_route("/ws/session/{name:path}", Upgrade())
    app.add_route("/ws/cli/{name:path}", NoDiallingIn())


def _add_responses(app: App, responses: Responses) -> None:
    app.add_middleware(responses)  # for its end
    app.add_route("/v1/responses", responses)
    app.add_route("/v1/responses/input_tokens", responses, suffix="tokens")
    app.add_route("/v1/responses/{response_id}", responses, suffix="one")
    app.add_route("/v1/responses/{response_id}/cancel", responses, suffix="cancel")
    app.add_route("/v1/responses/{response_id}/input_items", responses, suffix="items")


class _Lifespan:
    """Closes the connections to the daemon when the worker stops, and writes what is still to be written."""

    def __init__(self, backend: Backend, log: AccessLog) -> None:
        self._backend = backend
        self._log = log

    async def process_startup(self, scope: object, event: object) -> None:
        boot_signals.release()

    async def process_shutdown(self, scope: object, event: object) -> None:
        await self._backend.close()
        self._log.close()


# --- every failure becomes an OpenAI error body ---


def _add_error_handlers(app: App) -> None:
    app.add_error_handler(Exception, _on_fault)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(RpcError, _on_rpc_error)
    app.add_error_handler(ApiError, _on_api_error)


async def _on_api_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: ApiError, params: object
) -> None:
    resp.status = error.status
    resp.content_type = JSON
    resp.data = error.body()
    for name, value in error.headers:
        resp.set_header(name, value)


async def _on_rpc_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: RpcError, params: object
) -> None:
    await _on_api_error(req, resp, from_rpc(error), params)


async def _on_http_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: falcon.HTTPError, params: object
) -> None:
    """The framework's own refusals: unknown route, wrong method, a malformed header."""
    await _on_api_error(req, resp, _from_http_error(req, error), params)
    for name, value in dict(error.headers or {}).items():
        resp.set_header(name, value)


def _from_http_error(req: falcon.asgi.Request, error: falcon.HTTPError) -> ApiError:
    route = f"{req.method} {req.path[:200]}"
    if error.status_code == 404:
        return ApiError(404, f"Unknown route: {route}.", code="unknown_url")
    if error.status_code == 405:
        return ApiError(405, f"Not allowed: {route}.", code="method_not_allowed")
    return ApiError(error.status_code, error.description or error.title, code="bad_request")


async def _on_fault(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Exception, params: object
) -> None:
    """A fault of the gateway's own. The log gets the traceback; the request's content is never logged."""
    _log.error("%s %s failed", req.method, req.path, exc_info=error)
    refusal = ApiError(500, "The gateway failed. See its log.", headers=[("x-should-retry", "false")])
    await _on_api_error(req, resp, refusal, params)
