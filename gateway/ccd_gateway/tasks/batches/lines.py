"""What a line asks becomes a step, and what a step was answered becomes a body, each by its surface.

A line is read by the very code that reads the same request when it comes by itself, so it means the same, and is
refused for the same reasons; a refusal becomes the line's error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import falcon.asgi
import msgspec

from ccd_gateway.anthropic.message import opening, whole_block, whole_usage
from ccd_gateway.anthropic.routes import Messages
from ccd_gateway.chat.routes import FINGERPRINT, ChatCompletions
from ccd_gateway.chat.translate import completion
from ccd_gateway.errors import ApiError, bad_request, from_rpc
from ccd_gateway.responses.events import complete
from ccd_gateway.responses.routes import Responses
from ccd_gateway.tasks.options import error_of
from ccd_gateway.tasks.worker import Item, TaskWorker
from ccd_protocol.errors import RpcError

Json = dict[str, Any]
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
_TURN_S = 900.0


class BatchLines:
    """Reads lines for one gateway process."""

    def __init__(
        self, worker: TaskWorker, chat: ChatCompletions, responses: Responses, messages: Messages
    ) -> None:
        self._worker = worker
        self._chat = chat
        self._responses = responses
        self._messages = messages

    async def openai(self, req: falcon.asgi.Request, endpoint: str, name: str, body: Any) -> Json:
        """The step of a line for one of OpenAI's endpoints; a wrong one is a step with its error."""
        try:
            read = self._read_chat if endpoint == CHAT else self._read_response
            return {"name": name, **await read(req, msgspec.json.encode(body))}
        except (ApiError, RpcError) as error:
            return {"name": name, "error": error_of(_api(error))}

    async def anthropic(self, req: falcon.asgi.Request, name: str, params: Any) -> Json:
        """The step of a request in a message batch."""
        try:
            job = await self._messages.read(req, msgspec.json.encode(params))
            _refuse_stream(streamed=job.streamed)
            chat = await self._permitted(job.params)
            return {"name": name, "chat": chat, "timeout_s": _TURN_S, "meta": {"model": job.model}}
        except (ApiError, RpcError) as error:
            return {"name": name, "error": error_of(_api(error))}

    async def _read_chat(self, req: falcon.asgi.Request, body: bytes) -> Json:
        job = await self._chat.read(req, body)
        _refuse_stream(streamed=job.streamed)
        if job.n > 1:
            raise bad_request("'n': a line of a batch has one answer.", "n", "unsupported_parameter")
        if job.conversation_id is not None:
            raise bad_request("A line of a batch cannot be part of a conversation.", "conversation_id")
        chat = await self._permitted(job.params)
        meta = {
            "model": job.request.model,
            "functions_form": job.request.functions_form,
            "ignored": job.ignored,
        }
        return {"chat": chat, "timeout_s": _TURN_S, "meta": meta}

    async def _read_response(self, req: falcon.asgi.Request, body: bytes) -> Json:
        job = await self._responses.read(req, body)
        _refuse_stream(streamed=job.streamed)
        if job.request.background:
            raise bad_request("'background': a batch is in the background as it is.", "background")
        chat = await self._permitted(job.params)
        meta = {"response": {**job.response, "store": False}, "with_summary": job.with_summary}
        return {"chat": chat, "timeout_s": _TURN_S, "meta": meta}

    async def _permitted(self, params: Mapping[str, Any]) -> Json:
        chat: Json = {**await self._worker.permit({**params})}
        for name in ("tenant", "cache"):
            chat.pop(name, None)
        return chat


def _refuse_stream(*, streamed: bool) -> None:
    if streamed:
        raise bad_request("'stream': a line of a batch cannot be streamed.", "stream")


def _api(error: ApiError | RpcError) -> ApiError:
    return error if isinstance(error, ApiError) else from_rpc(error)


# --- answers ---


def openai_body(endpoint: str, task_id: str, item: Item) -> Json:
    """The body that the endpoint would have answered with."""
    answer, meta = item["result"], item["meta"]
    at = int(item["completed_at"])
    if endpoint == RESPONSES:
        return complete(meta["response"], answer, with_summary=meta["with_summary"], completed_at=at)
    made = f"chatcmpl-{task_id.removeprefix('task_')[:20]}{item['number']}"
    return completion(
        [answer],
        completion_id=made,
        created=at,
        model=meta["model"],
        fingerprint=FINGERPRINT,
        functions_form=meta["functions_form"],
    )


def message_body(task_id: str, item: Item) -> Json:
    """The Message."""
    answer = item["result"]
    message = opening({}, item["meta"]["model"])
    return {
        **message,
        "id": f"msg_{task_id.removeprefix('task_')[:20]}{item['number']}",
        "content": [whole_block(block) for block in answer["content"]],
        **{name: answer.get(name) for name in ("stop_reason", "stop_sequence")},
        "usage": whole_usage(answer["usage"]),
    }
