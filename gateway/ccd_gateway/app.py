"""The gateway as an ASGI application."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias, cast

import falcon
import falcon.asgi
from falcon.routing import CompiledRouter

from ccd_gateway import boot_signals, health, welcome
from ccd_gateway.access.auth import ADMIN, Door, KeyStore, is_local
from ccd_gateway.access.caller import caller_of
from ccd_gateway.access.metering import Books
from ccd_gateway.answer.backend import Backend
from ccd_gateway.anthropic import routes as anthropic
from ccd_gateway.chat import routes as chat
from ccd_gateway.compat import routes as compat
from ccd_gateway.compat.rate import SharedLimit
from ccd_gateway.conversations import routes as conversations
from ccd_gateway.edge.absent import absent, misplaced
from ccd_gateway.edge.access_log import AccessLog, Observer, Observers
from ccd_gateway.edge.browser import BrowserRules
from ccd_gateway.edge.envelope import App as AsgiApp
from ccd_gateway.edge.envelope import Envelope
from ccd_gateway.edge.routing import Address, ByListener, Route, Router, Routes
from ccd_gateway.edge.work import Work
from ccd_gateway.errors import JSON, ApiError, fault, from_rpc
from ccd_gateway.models import routes as models
from ccd_gateway.openapi import OpenApi
from ccd_gateway.responses import routes as responses
from ccd_gateway.sessions import routes as sessions
from ccd_gateway.settings import GatewaySettings, max_items
from ccd_gateway.tasks import routes as tasks
from ccd_gateway.tasks.worker import TaskWorker
from ccd_protocol.errors import RpcError
from ccd_settings.parent import is_supervised
from ccd_settings.paths import tasks_socket

App: TypeAlias = falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response]
Closing = Callable[[], Awaitable[None]]
_log = logging.getLogger(__name__)


def create_app(
    settings: GatewaySettings,
    environ: Mapping[str, str] = os.environ,
    admin_address: Address | None = None,
) -> AsgiApp:
    """Build the application. It keeps nothing open before its first request, so it can be built before a fork.

    Args:
        settings: what to serve.
        environ: where files are looked for.
        admin_address: of the listener whose requests get the admin routes, and none of the others.
    """
    backend = Backend(
        settings.daemon_socket(environ),
        max_calls=settings.max_streams,
        timeout_s=settings.request_timeout_s,
        reconnect_wait_s=settings.reconnect_wait_s,
        supervised=is_supervised(environ),
        books=Books(settings.usage_path(environ)),
    )
    store = KeyStore(settings.keys_path(environ))
    store.keys()  # before the fork: a worker that replaces another knows that there were keys
    log = AccessLog(settings.access_log)
    answers = responses.Responses(backend, settings, environ)
    worker = TaskWorker(_worker_backend(settings, environ), backend)
    listed = all_routes(backend, worker, settings, store, answers)
    observers: list[Observer] = [log]
    routes: Router = Routes(listed, absent(listed), misplaced(listed))
    if admin_address is not None:
        admin, meters = _admin(backend, admin_address)
        observers.append(meters)
        routes = ByListener(routes, admin, admin_address)
    app: App = falcon.asgi.App(
        middleware=[_Lifespan([answers.close, worker.close, backend.close], log)],
        router=cast(CompiledRouter, routes),  # only `find` is ever called
    )
    _add_error_handlers(app)
    return Envelope(
        cast(AsgiApp, app),
        routes,
        BrowserRules(settings.bind_host, settings.allowed_hosts, settings.allowed_origins),
        max_requests=settings.max_streams,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
        account=Work(settings.max_work_bytes, max_items(environ)),
        door=Door(store, settings.require_keys),
        observer=Observers(observers),
    )


def _worker_backend(settings: GatewaySettings, environ: Mapping[str, str]) -> Backend:
    return Backend(
        tasks_socket(settings.daemon_socket(environ)),
        max_calls=settings.max_streams,
        timeout_s=settings.request_timeout_s,
        reconnect_wait_s=settings.reconnect_wait_s,
        books=Books(settings.usage_path(environ)),  # never opened: the worker books what its turns cost
    )


def all_routes(
    backend: Backend,
    worker: TaskWorker,
    settings: GatewaySettings,
    keys: KeyStore,
    answers: responses.Responses,
) -> list[Route]:
    """Every route that there is."""
    limit = SharedLimit(settings.flask_requests_per_minute)  # of all processes that are forked after this
    listed = [
        *tasks.routes(worker, settings, limit, backend, answers),
        *welcome.routes(backend),
        *health.routes(backend, settings),
        *models.routes(backend, settings),
        *chat.routes(backend, settings),
        *responses.routes(answers, settings),
        *anthropic.routes(backend, settings),
        *conversations.routes(backend, settings),
        *sessions.routes(backend, settings, keys),
        *compat.routes(backend, settings, limit),
    ]
    return [*listed, OpenApi(listed).route]


def _admin(backend: Backend, address: Address) -> tuple[Routes, Observer]:
    """The routes of the admin address, and what counts for them."""
    from ccd_gateway.metrics import routes as metrics  # noqa: PLC0415 - where counts are shared is known only now
    from ccd_gateway.metrics.meters import Meters  # noqa: PLC0415

    meters = Meters()
    listed = metrics.routes(backend, meters, scopes=None if is_local(address) else ADMIN)
    return Routes(listed, absent(listed), misplaced(listed)), meters


class _Lifespan:
    """Closes the connections to the daemon when the worker stops, and writes what is still to be written."""

    def __init__(self, closing: list[Closing], log: AccessLog) -> None:
        self._closing = closing
        self._log = log

    async def process_startup(self, scope: object, event: object) -> None:
        boot_signals.release()

    async def process_shutdown(self, scope: object, event: object) -> None:
        for close in self._closing:
            await close()
        self._log.close()


# --- every failure becomes an error in the shape of its route ---


def _add_error_handlers(app: App) -> None:
    app.add_error_handler(Exception, _on_fault)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(RpcError, _on_rpc_error)
    app.add_error_handler(ApiError, _on_api_error)


async def _on_api_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: ApiError, params: object
) -> None:
    caller = caller_of(req)
    resp.status, resp.data = caller.shape.render(error, caller.request_id)
    resp.content_type = JSON
    for name, value in error.headers:
        resp.set_header(name, value)


async def _on_rpc_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: RpcError, params: object
) -> None:
    await _on_api_error(req, resp, from_rpc(error), params)


async def _on_http_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: falcon.HTTPError, params: object
) -> None:
    """The framework's own refusals: wrong method, a malformed header."""
    await _on_api_error(req, resp, _from_http_error(req, error), params)
    for name, value in dict(error.headers or {}).items():
        resp.set_header(name, value)


def _from_http_error(req: falcon.asgi.Request, error: falcon.HTTPError) -> ApiError:
    if error.status_code == 405:
        return ApiError(405, f"Not allowed: {req.method} {req.path[:200]}.", code="method_not_allowed")
    return ApiError(error.status_code, error.description or error.title, code="bad_request")


async def _on_fault(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Exception, params: object
) -> None:
    """A fault of the gateway's own. The log gets the traceback; the request's content is never logged."""
    _log.error("%s %s failed", req.method, req.path, exc_info=error)
    await _on_api_error(req, resp, fault(), params)
