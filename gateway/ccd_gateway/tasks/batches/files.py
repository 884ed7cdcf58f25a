"""`/v1/files`: files for batches, and the files that batches make. They are in the worker's database, never a path."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import falcon
import falcon.asgi
import falcon.media
from falcon import MediaMalformedError, MultipartParseError

from ccd_gateway.access.caller import Caller, caller_of
from ccd_gateway.edge.outlet import Body, outlet_of
from ccd_gateway.errors import ApiError, bad_request
from ccd_gateway.surface.driver import send
from ccd_gateway.tasks.batches import results
from ccd_gateway.tasks.batches.names import batch_of, seconds
from ccd_gateway.tasks.options import whole_number
from ccd_gateway.tasks.worker import Task, TaskWorker

Json = dict[str, Any]
_PIECE_BYTES = 1 << 20
_ANCHOR = "created_at"
_MAX_FIELD_BYTES = 1024


class BatchFiles:
    """The resource; one instance per worker process."""

    def __init__(self, worker: TaskWorker) -> None:
        self._worker = worker
        self._forms = falcon.media.MultipartFormHandler()

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Take a file, piece by piece; it is there when all of it is."""
        refuse_anthropic(req)
        caller = caller_of(req)
        if not (req.content_type or "").startswith("multipart/form-data"):
            raise bad_request("A file is sent as multipart/form-data, with the fields file and purpose.")
        fields: dict[str, str] = {}
        taken: Json | None = None
        try:
            form: Any = await self._forms.deserialize_async(req.stream, req.content_type, req.content_length)
            async for part in form:
                if part.name == "file":
                    if taken is not None:
                        raise bad_request("One file at a time.", "file")
                    taken = await self._take(caller, part)
                else:
                    fields[part.name] = await _text(part)
            made = await self._made(caller, taken, fields)
        except (MediaMalformedError, MultipartParseError, UnicodeDecodeError):
            await self._drop(caller, taken)
            raise bad_request("The form cannot be read.", code="invalid_form") from None
        except BaseException:
            await self._drop(caller, taken)
            raise
        send(resp, made)

    async def _take(self, caller: Caller, part: Any) -> Json:
        name = (part.secure_filename if part.filename else "batch.jsonl")[:255]
        params = {"filename": name or "batch.jsonl", "purpose": "batch"}
        made: Json = await self._worker.call(caller, "file.create", params)
        try:
            while piece := await part.stream.read(_PIECE_BYTES):
                await self._worker.call(caller, "file.append", {"file_id": made["id"], "data": piece})
        except BaseException:
            await self._drop(caller, made)
            raise
        return made

    async def _made(self, caller: Caller, taken: Json | None, fields: dict[str, str]) -> Json:
        purpose = fields.pop("purpose", None)
        anchor = fields.pop("expires_after[anchor]", _ANCHOR)
        expires = fields.pop("expires_after[seconds]", None)
        if fields:
            name = next(iter(fields))[:60]
            raise bad_request(f"There is no field {name!r}.", name, "unknown_parameter")
        if taken is None:
            raise bad_request("Missing required parameter: 'file'.", "file", "missing_required_parameter")
        if purpose != "batch":
            text = "Only the purpose 'batch' is served here; images and documents are sent inside messages."
            raise bad_request(text, "purpose", "unsupported_value")
        params: Json = {"file_id": taken["id"]}
        if expires is not None:
            if not expires.isdigit() or not 3600 <= int(expires[:12]) <= 2592000 or anchor != _ANCHOR:
                text = "'expires_after': expected the anchor created_at, and seconds from 3600 to 2592000."
                raise bad_request(text, "expires_after")
            params["expires_s"] = float(expires)
        return file_object(await self._worker.call(caller, "file.finish", params))

    async def _drop(self, caller: Caller, taken: Json | None) -> None:
        if taken is not None:
            await self._worker.call(caller, "file.delete", {"file_id": taken["id"]})

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Files that were sent."""
        refuse_anthropic(req)
        params: Json = {"limit": whole_number(req, "limit", 10_000, 1, 10_000)}
        for name in ("purpose", "after", "order"):
            if (value := req.get_param(name)) is not None:
                params[name] = value
        found = await self._worker.call(caller_of(req), "file.list", params)
        send(resp, listed([file_object(file) for file in found["files"]], has_more=found["has_more"]))

    async def on_get_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, file_id: str) -> None:
        """What is known of a file."""
        refuse_anthropic(req)
        caller = caller_of(req)
        made = batch_of(file_id)
        if made is None:
            send(resp, file_object(await self._worker.call(caller, "file.get", {"file_id": file_id})))
            return
        task = await self._ended(caller, file_id, *made)
        size = 0
        async for line in results.lines(self._worker, caller, task, made[0]):
            size += len(line)
        about = {"id": file_id, "filename": f"{made[0]}.jsonl", "purpose": "batch_output", "bytes": size}
        send(resp, file_object({**about, "created_at": task["completed_at"], "expires_at": None}))

    async def on_get_content(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, file_id: str
    ) -> None:
        """The bytes of a file."""
        refuse_anthropic(req)
        caller = caller_of(req)
        made = batch_of(file_id)
        if made is None:
            await self._worker.call(caller, "file.get", {"file_id": file_id})
            pieces = self.pieces(caller, file_id)
        else:
            task = await self._ended(caller, file_id, *made)
            pieces = results.lines(self._worker, caller, task, made[0])
        stream_bytes(req, resp, pieces)

    async def on_delete_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, file_id: str) -> None:
        """Forget a file."""
        refuse_anthropic(req)
        caller = caller_of(req)
        if batch_of(file_id) is not None:
            raise bad_request("The files that a batch makes are forgotten with it.", "file_id")
        await self._worker.call(caller, "file.get", {"file_id": file_id})
        await self._worker.call(caller, "file.delete", {"file_id": file_id})
        send(resp, {"id": file_id, "object": "file", "deleted": True})

    async def pieces(self, caller: Caller, file_id: str) -> AsyncIterator[bytes]:
        """The content of a file that was sent."""
        number = 0
        while True:
            params = {"file_id": file_id, "number": number}
            piece = (await self._worker.call(caller, "file.read", params))["data"]
            if piece is None:
                return
            yield piece
            number += 1

    async def _ended(self, caller: Caller, file_id: str, kind: str, task_id: str) -> Task:
        missing = ApiError(404, f"There is no file {file_id[:80]!r}.", code="not_found", param="file_id")
        task: Task = await self._worker.call(caller, "task.get", {"task_id": task_id})
        if task["surface"] != "openai" or not task["final"] or not made_files(task)[kind]:
            raise missing
        return task


def made_files(task: Task) -> dict[str, bool]:
    """Which files a batch that has ended has made."""
    good = task["items"]["completed"]
    return {"output": task["final"] and good > 0, "errors": task["final"] and task["total"] > good}


def file_object(file: Json) -> Json:
    """OpenAI's `file`."""
    about = {name: file[name] for name in ("id", "bytes", "filename", "purpose")}
    times = {name: seconds(file[name]) for name in ("created_at", "expires_at")}
    return {**about, "object": "file", **times, "status": "processed", "status_details": None}


def listed(data: list[Json], *, has_more: bool) -> Json:
    """A page of a list."""
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": data, **ends, "has_more": has_more}


def refuse_anthropic(req: falcon.asgi.Request) -> None:
    """Both vendors have files, of different shapes.

    Raises:
        ApiError: 404 for a client of the other one.
    """
    if req.get_header("anthropic-version") is not None:
        text = "The Files API here has OpenAI's shape; Anthropic's is not served. Documents go into messages."
        raise ApiError(404, text, code="unknown_url")


def stream_bytes(req: falcon.asgi.Request, resp: falcon.asgi.Response, pieces: AsyncIterator[bytes]) -> None:
    """Answer with bytes of unknown length, as they are made."""
    resp.content_type = "application/octet-stream"
    resp.stream = _nothing()
    outlet_of(req).body = Body(_generated(pieces))


async def _generated(pieces: AsyncIterator[bytes]) -> Any:
    async for piece in pieces:
        yield piece


async def _nothing() -> Any:
    return
    yield b""


async def _text(part: Any) -> str:
    data: bytes = await part.stream.read(_MAX_FIELD_BYTES + 1)
    if len(data) > _MAX_FIELD_BYTES:
        raise bad_request(f"The field {part.name!r:.60} is too long.", code="invalid_form")
    return data.decode()
