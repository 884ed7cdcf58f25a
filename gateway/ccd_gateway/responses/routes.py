"""`POST /v1/responses`: whole, streamed or in the background; and where the room's resources are."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import falcon
import falcon.asgi

from ccd_gateway.answer.backend import Backend
from ccd_gateway.answer.lines import Delta
from ccd_gateway.answer.turn import ChatTurn
from ccd_gateway.edge.body import read_body
from ccd_gateway.edge.outlet import Body, stream_events
from ccd_gateway.edge.routing import Route
from ccd_gateway.edge.work import apart
from ccd_gateway.errors import ApiError
from ccd_gateway.images.remote import RemoteImages
from ccd_gateway.responses import description
from ccd_gateway.responses.events import complete
from ccd_gateway.responses.job import ResponseJob, ignored_by_daemon, read_job
from ccd_gateway.responses.resource import Response, failed, note_ignored
from ccd_gateway.responses.runs import BackgroundRuns, obituary
from ccd_gateway.responses.schema import DecodedResponse, decode
from ccd_gateway.responses.storage.store import ResponseStore
from ccd_gateway.responses.storage.table import Bounds, ResponseTable
from ccd_gateway.responses.stored import StoredResponses
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.surface.driver import KEEPALIVE, Surface, Whole, send
from ccd_gateway.surface.refusals import renamed
from ccd_protocol.errors import RpcError

Keep = Callable[[Response], Awaitable[bool]]


class Responses(Surface[ResponseJob]):
    """The resource.

    Args:
        backend: for the answers.
        settings: limits, and how much is stored.
        environ: says where the data directory is, unless the settings do.
    """

    def __init__(self, backend: Backend, settings: GatewaySettings, environ: Mapping[str, str]) -> None:
        super().__init__(backend, settings)
        self._images = RemoteImages(settings)
        bounds = Bounds(settings.stored_responses, settings.stored_bytes, settings.stored_s)
        self.store = ResponseStore(settings.responses_path(environ), bounds, obituary)
        self.runs = BackgroundRuns(backend, self.store)

    async def close(self) -> None:
        """End the background responses and close the store, when the worker stops."""
        await self.runs.close()
        await self.store.close()

    async def read(self, req: falcon.asgi.Request, body: bytes) -> ResponseJob:
        """Read a request and what it refers to, and see that its response can be stored."""
        job = await self._job(req, await apart(body, decode, body), body)
        await self._check_store(job)
        return job

    async def _job(self, req: falcon.asgi.Request, decoded: DecodedResponse, body: bytes) -> ResponseJob:
        return await read_job(req, decoded, body, self.store, self._images, self.settings)

    async def _check_store(self, job: ResponseJob) -> None:
        """Not being able to store is an error only for those who asked for it; others are told."""
        if not job.response["store"]:
            return
        try:
            await self.store.do(ResponseTable.ready)
        except RpcError:
            if job.request.store or job.request.background:
                raise
            job.response["store"] = False
            job.ignored.append("store")

    async def answer(self, job: ResponseJob, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Answer, or begin to in the background."""
        if not job.request.background:
            await super().answer(job, req, resp)
            return
        queued = await self.runs.start(job)
        if job.streamed:
            pieces = self.runs.follow(job.tenant, queued["id"], -1, self.settings.keepalive_s)
            stream_events(req, resp, Body(pieces))
        else:
            send(resp, queued)

    async def whole(self, job: ResponseJob) -> Whole:
        """A response."""
        answer = await self.backend.complete(job.params)
        response = complete(
            job.response, answer, with_summary=job.with_summary, completed_at=int(time.time())
        )
        response["store"] = await self._keep(job, response)
        return Whole(response, [answer], ignored_by_daemon(answer))

    def writer(self, job: ResponseJob) -> ResponseWriter:
        """Of the response's events."""
        return ResponseWriter(job, functools.partial(self._keep, job))

    def in_clients_words(self, job: ResponseJob, error: RpcError) -> RpcError:
        """Under this API's names."""
        return renamed(error, job.name_of)

    async def _keep(self, job: ResponseJob, response: Response) -> bool:
        """Store a response that has ended; an answer is not withheld because that fails."""
        if not response["store"]:
            return False
        try:
            await self.store.do(
                ResponseTable.put, job.tenant, job.row(response), job.item_ids(response), time.time()
            )
        except RpcError:
            return False
        return True

    async def on_post_tokens(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Estimate the tokens of a request's input: instructions, tools and all that came before included."""
        body = await read_body(req, self.settings.max_body_bytes)
        decoded = await apart(body, functools.partial(decode, model_needed=False), body)
        job = await self._job(req, decoded, body)
        resp.set_header("x-ccd-estimated", "true")
        tokens = await apart(body, job.input_tokens)
        send(resp, {"object": "response.input_tokens", "input_tokens": tokens})


class ResponseWriter:
    """Writes the events of one response, and has the response stored before its client can refer to it."""

    silence = KEEPALIVE

    def __init__(self, job: ResponseJob, keep: Keep) -> None:
        self._events = job.events()
        self._keep = keep
        self._name_of = job.name_of

    def begin(self, turns: Sequence[ChatTurn]) -> bytes:
        """The response as it is, and what has come of it so far."""
        return self._events.begin() + self._events.pieces(turns[0].taken())

    def maker(self, number: int) -> Callable[[list[Delta]], bytes]:
        """The events."""
        return self._events.pieces

    async def end(self, turns: Sequence[ChatTurn]) -> bytes:
        """What was ignored, and the complete response."""
        result = turns[0].result
        note_ignored(self._events.response, ignored_by_daemon(result))
        made = self._events.finish(result, int(time.time()))
        await self._keep(self._events.response)
        return made

    def in_clients_words(self, error: RpcError) -> RpcError:
        """Under this API's names."""
        return renamed(error, self._name_of)

    async def fail(self, error: ApiError) -> bytes:
        """An `error` event in both forms; the response is stored as failed."""
        await self._keep(failed({**self._events.response, "output": []}, error.error))
        return self._events.fail(error.error)


def routes(responses: Responses, settings: GatewaySettings) -> list[Route]:
    """All routes of this API; `input_tokens` comes before the ids, which could be called so."""
    stored = StoredResponses(responses.store, responses.runs, settings.keepalive_s)
    one = "/v1/responses/{response_id}"
    return [
        Route("/v1/responses", responses, description.answer),
        Route("/v1/responses/input_tokens", responses, description.tokens, "tokens"),
        Route(one, stored, description.one),
        Route(f"{one}/cancel", stored, description.cancel, "cancel"),
        Route(f"{one}/input_items", stored, description.items, "items"),
    ]
