"""The offline API's paths, as a Falcon ASGI application.

POST /v1/messages, POST /v1/messages/count_tokens, GET /v1/models[/ID]: the MessagesResource API.
POST /_offline/script     {"replies": [{"reply": {directive}, "match": {"model", "contains"}, "uses": 1}]}
GET  /_offline/requests   what was received; ?path=PREFIX &after=SEQ &finished=1 &wait=COUNT &timeout_s=10
DELETE /_offline/requests forgets it; POST /_offline/reset also forgets scripts and caches.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import falcon
import falcon.asgi
import msgspec

from ccd_offline import models, tokens
from ccd_offline.answer import answers, stream
from ccd_offline.answer.caching import PromptCache
from ccd_offline.answer.directives import Directive, Queued, Scripts, parse
from ccd_offline.answer.playback import CutError, Playback
from ccd_offline.errors import MESSAGES, TYPES, RefusedError, invalid
from ccd_offline.ledger import Record, RequestRecord, listing
from ccd_offline.rules import subscription, validation

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_DISCARDED_BYTES = 256 * 1024 * 1024
_LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
_JSON = "application/json"

Request = falcon.asgi.Request
Response = falcon.asgi.Response
Asgi = Callable[[Any, Any, Any], Awaitable[None]]


class Offline:
    """State shared by all paths."""

    def __init__(self) -> None:
        self.ledger = RequestRecord()
        self.scripts = Scripts()
        self.cache = PromptCache()

    async def process_request(self, req: Request, resp: Response) -> None:
        """Give the answer its id, record the request, and turn away what did not come from this machine."""
        req.context.id = f"req_{secrets.token_hex(12)}"
        resp.set_header("request-id", req.context.id)
        if req.host not in _LOOPBACK_HOSTS:
            raise RefusedError(403, f"Host {req.host!r} is not a loopback name.")
        if not req.path.startswith("/_offline/"):
            req.context.record = self.ledger.open(req.method, req.relative_uri, req.headers_lower)

    async def process_response(self, req: Request, resp: Response, resource: object, succeeded: bool) -> None:
        """Close the record of a request whose answer does not stream."""
        record = getattr(req.context, "record", None)
        if record is not None:
            record.status = resp.status_code
            if resp.stream is None:
                self.ledger.finish(record, "complete")

    async def read(self, req: Request) -> Any:
        """The request's JSON body, recorded."""
        raw = await req.stream.read(MAX_BODY_BYTES + 1)
        if len(raw) > MAX_BODY_BYTES:
            await _discard(req)
            raise RefusedError(413)
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            self._keep(req, raw, valid=False)
            raise invalid(f"The request body is not valid JSON: {error}") from error
        self._keep(req, raw, valid=True)
        return value

    def _keep(self, req: Request, raw: bytes, *, valid: bool) -> None:
        record = getattr(req.context, "record", None)
        if record is not None:
            self.ledger.body(record, raw, valid=valid)


async def _discard(req: Request) -> None:
    """Read the rest of a body that is too large: a client that is still sending would not see the answer."""
    read = MAX_BODY_BYTES
    while read < MAX_DISCARDED_BYTES and (piece := await req.stream.read(1024 * 1024)):
        read += len(piece)


class OfflineRequest(Request):
    """A request with its headers under lower-case names."""

    @property
    def headers_lower(self) -> dict[str, str]:
        """All headers, names in lower case."""
        return {name.lower(): value for name, value in self.headers.items()}


def _authorized(req: Request) -> None:
    key = req.get_header("x-api-key")
    bearer = req.get_header("authorization")
    if key is None and bearer is None:
        raise RefusedError(401, "x-api-key header is required")
    if key is not None and key.strip() in ("", "invalid"):
        raise RefusedError(401)
    if key is None and str(bearer).removeprefix("Bearer").strip() in ("", "invalid"):
        raise RefusedError(401, "Invalid bearer token")
    if req.get_header("anthropic-version") is None:
        raise invalid("anthropic-version: header is required")


def _betas(req: Request) -> frozenset[str]:
    return frozenset(word.strip() for word in (req.get_header("anthropic-beta") or "").split(","))


class MessagesResource:
    """POST /v1/messages."""

    def __init__(self, offline: Offline) -> None:
        self._offline = offline

    async def on_post(self, req: OfflineRequest, resp: Response) -> None:
        """Validate, then answer as the script says."""
        _authorized(req)
        body = await self._offline.read(req)
        validation.check(body, betas=_betas(req))
        subscription.check(req.headers_lower, body)
        text = answers.last_user_text(body)
        directive = self._offline.scripts.pick(body["model"], text)
        await self._wait(req.context.record, directive)
        for name, value in directive.headers.items():
            resp.set_header(name, value)
        if directive.status is not None:
            raise directive.refusal()
        answer = answers.compose(body, directive, text, self._offline.cache.split(body))
        if body.get("stream"):
            self._stream(req, resp, answer, directive)
        else:
            resp.content_type = _JSON
            resp.data = msgspec.json.encode(answer.message())

    async def _wait(self, record: Record, directive: Directive) -> None:
        try:
            if directive.delay_ms:
                await asyncio.sleep(directive.delay_ms / 1000)
            if directive.hang:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self._offline.ledger.finish(record, "disconnected")
            raise

    def _stream(
        self, req: Request, resp: Response, answer: answers.ScriptedAnswer, directive: Directive
    ) -> None:
        record: Record = req.context.record
        steps = stream.steps(answer, directive, req.context.id)
        resp.content_type = "text/event-stream; charset=utf-8"
        resp.set_header("cache-control", "no-cache")
        resp.stream = Playback(steps, lambda outcome: self._offline.ledger.finish(record, outcome))


class CountTokensResource:
    """POST /v1/messages/count_tokens."""

    def __init__(self, offline: Offline) -> None:
        self._offline = offline

    async def on_post(self, req: Request, resp: Response) -> None:
        """Count what a message would cost."""
        _authorized(req)
        body = await self._offline.read(req)
        validation.check(body, betas=_betas(req), counting=True)
        resp.media = {"input_tokens": tokens.of_request(body)}


class ModelsResource:
    """GET /v1/models and /v1/models/ID."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """List the models."""
        _authorized(req)
        data = models.listing()
        resp.media = {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}

    async def on_get_one(self, req: Request, resp: Response, name: str) -> None:
        """Describe one model."""
        _authorized(req)
        model = models.find(name)
        if model is None:
            raise RefusedError(404, f"model: {name[:200]}")
        resp.media = models.entry(model)


class ScriptResource:
    """POST /_offline/script."""

    def __init__(self, offline: Offline) -> None:
        self._offline = offline

    async def on_post(self, req: Request, resp: Response) -> None:
        """Queue answers."""
        body = await self._offline.read(req)
        replies = body.get("replies") if isinstance(body, dict) else None
        if not isinstance(replies, list):
            raise invalid('offline script: the body must be {"replies": [{"reply": {...}}]}')
        resp.media = {"queued": self._offline.scripts.add([parse(reply, Queued) for reply in replies])}


class Requests:
    """GET and DELETE /_offline/requests."""

    def __init__(self, offline: Offline) -> None:
        self._ledger = offline.ledger

    async def on_get(self, req: Request, resp: Response) -> None:
        """List what was received, waiting for it if asked to."""
        count = req.get_param_as_int("wait", min_value=0, max_value=10_000, default=0)
        timeout_s = req.get_param_as_float("timeout_s", min_value=0, max_value=600, default=10.0)
        path = req.get_param("path", default="")
        after = req.get_param_as_int("after", default=0)
        finished = req.get_param_as_bool("finished", default=False)
        try:
            found = await self._ledger.wait(count, timeout_s, path=path, after=after, finished=finished)
        except TimeoutError:
            have = len(self._ledger.find(path=path, after=after, finished=finished))
            raise RefusedError(504, f"{have} of {count} requests within {timeout_s:g} s") from None
        resp.content_type = _JSON
        resp.data = b'{"requests":' + listing(found) + b"}"

    async def on_delete(self, req: Request, resp: Response) -> None:
        """Forget what was received."""
        self._ledger.clear()
        resp.media = {}


class Reset:
    """POST /_offline/reset."""

    def __init__(self, offline: Offline) -> None:
        self._offline = offline

    async def on_post(self, req: Request, resp: Response) -> None:
        """Forget requests, scripts and cached prompts."""
        self._offline.ledger.clear()
        self._offline.scripts.reset()
        self._offline.cache = PromptCache()
        resp.media = {}


class Root:
    """GET and HEAD /, which the CLI probes."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """Say what this is."""
        resp.media = {
            "type": "ccd_offline",
            "message": "ccd's offline MessagesResource API. No model answers here.",
        }

    async def on_head(self, req: Request, resp: Response) -> None:
        """Say that something is here."""
        resp.status = 200


async def _on_refused(req: Request, resp: Response, error: RefusedError, params: object) -> None:
    resp.status = error.status
    resp.content_type = _JSON
    resp.data = error.body(req.context.id)
    for name, value in error.headers.items():
        resp.set_header(name, value)


async def _on_http_error(req: Request, resp: Response, error: falcon.HTTPError, params: object) -> None:
    message = error.description or MESSAGES.get(error.status_code) or error.title
    kind = TYPES.get(error.status_code, "invalid_request_error" if error.status_code < 500 else "api_error")
    headers = dict(error.headers or {}) if not isinstance(error.headers, list) else dict(error.headers)
    await _on_refused(req, resp, RefusedError(error.status_code, message, kind, headers), params)


async def _on_fault(req: Request, resp: Response, error: Exception, params: object) -> None:
    traceback.print_exception(error, file=sys.stderr)
    await _on_refused(req, resp, RefusedError(500, f"Fault of the offline API: {error!r}"), params)


async def _on_too_deep(req: Request, resp: Response, error: Exception, params: object) -> None:
    await _on_refused(req, resp, invalid("The request body is nested too deeply."), params)


def create() -> Asgi:
    """The whole application."""
    offline = Offline()
    app = falcon.asgi.App(middleware=[offline], request_type=OfflineRequest)
    app.add_error_handler(Exception, _on_fault)
    app.add_error_handler(RecursionError, _on_too_deep)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(RefusedError, _on_refused)
    listed = ModelsResource()
    app.add_route("/", Root())
    app.add_route("/v1/messages", MessagesResource(offline))
    app.add_route("/v1/messages/count_tokens", CountTokensResource(offline))
    app.add_route("/v1/models", listed)
    app.add_route("/v1/models/{name}", listed, suffix="one")
    app.add_route("/_offline/script", ScriptResource(offline))
    app.add_route("/_offline/requests", Requests(offline))
    app.add_route("/_offline/reset", Reset(offline))
    return _cutting(app)


def _cutting(app: Asgi) -> Asgi:
    """An ASGI application that may leave a response unfinished: the server then closes the connection."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except CutError:
            return

    return run
