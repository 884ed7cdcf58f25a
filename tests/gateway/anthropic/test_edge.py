from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ccd_gateway.anthropic.edge import MessagesEdge, speaks_anthropic
from ccd_gateway.anthropic.errors import error_event, refusal
from ccd_gateway.errors import ApiError, from_rpc
from ccd_protocol.errors import MEANINGS, Code, RpcError

VERSION = (b"anthropic-version", b"2023-06-01")


@pytest.mark.parametrize(
    ("path", "headers", "ours"),
    [
        ("/v1/messages", [], True),
        ("/v1/messages/count_tokens", [], True),
        ("/v1/messages/nonsense", [], True),
        ("/v1/messagesx", [], False),
        ("/v1/chat/completions", [VERSION], False),
        ("/v1/models", [], False),
        ("/v1/models", [VERSION], True),
        ("/v1/models/x", [VERSION], True),
    ],
)
def test_whose_path_it_is(path: str, headers: list[tuple[bytes, bytes]], ours: bool) -> None:
    assert speaks_anthropic(path, headers) is ours


def run(
    status: int, content_type: bytes, *pieces: bytes, path: str = "/v1/messages", given: bytes | None = None
) -> Any:
    """The start and the body of an answer, and the request id that the application saw."""
    seen: dict[str, Any] = {}
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope["headers"])
        headers = [(b"Content-Type", content_type), (b"content-length", b"7"), (b"retry-after", b"3")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    headers = [] if given is None else [(b"x-request-id", given)]
    asyncio.run(MessagesEdge(app)({"type": "http", "path": path, "headers": headers}, receive, send))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0], body, seen.get(b"x-request-id")


def test_errors_change_their_shape_and_keep_their_headers() -> None:
    body = ApiError(404, "no such model", code="model_not_found").body()
    start, got, request_id = run(404, b"application/json; charset=utf-8", body[:5], body[5:])
    headers = dict(start["headers"])
    assert headers[b"retry-after"] == b"3"
    assert headers[b"request-id"] == request_id
    assert headers[b"content-length"] == str(len(got)).encode()
    assert json.loads(got) == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "no such model"},
        "request_id": request_id.decode(),
    }


@pytest.mark.parametrize(
    "body", [b"", b"plain", b"[1]", b'{"title":"x"}', b'{"type":"error","error":{"type":"a"}}']
)
def test_what_is_no_openai_error_goes_through(body: bytes) -> None:
    assert run(400, b"application/json", body)[1] == body


def test_answers_go_through() -> None:
    start, body, request_id = run(200, b"application/json", b'{"error":', b"{}}")
    assert body == b'{"error":{}}'
    assert dict(start["headers"])[b"request-id"] == request_id
    assert request_id.startswith(b"req_")


def test_the_clients_own_request_id_is_kept_if_it_can_be_sent_back() -> None:
    assert run(200, b"text/plain", given=b"mine")[2] == b"mine"
    assert run(200, b"text/plain", given=b"a b\xff")[2].startswith(b"req_")


def test_other_paths_are_not_touched() -> None:
    start, body, request_id = run(404, b"application/json", b'{"error":{}}', path="/v1/chat/completions")
    assert body == b'{"error":{}}'
    assert request_id is None
    assert b"request-id" not in dict(start["headers"])


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_a_type_of_the_messages_api(code: Code) -> None:
    error = from_rpc(RpcError(code, "why"))
    status, body = refusal(error.status, error.error, "req_1")
    kind = json.loads(body)["error"]["type"]
    by_status = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error"}
    by_status |= {404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error"}
    by_status |= {503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error"}
    fallback = "api_error" if status >= 500 else "invalid_request_error"
    assert kind == by_status.get(status, fallback)
    assert status == (529 if code is Code.UPSTREAM_OVERLOADED else MEANINGS[code].http_status)


def test_the_parameter_is_named_in_the_message() -> None:
    error = {"message": "a tool needs a schema", "param": "tools[0]", "code": None}
    assert json.loads(refusal(400, error, "r").body)["error"]["message"] == "tools[0]: a tool needs a schema"
    error["message"] = "tools[0] is wrong"
    assert json.loads(refusal(400, error, "r").body)["error"]["message"] == "tools[0] is wrong"


def test_the_event_that_ends_a_stream() -> None:
    name, data = error_event(502, {"message": "broke off"}, "req_1").decode().removesuffix("\n\n").split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: ")) == {
        "type": "error",
        "error": {"type": "api_error", "message": "broke off"},
        "request_id": "req_1",
    }
