"""How failures are written, for every code and every API."""

from __future__ import annotations

import json

import pytest

from ccd_gateway.errors import ApiError, from_rpc
from ccd_gateway.shapes import FLASK, MESSAGES, OPENAI, SESSION, Shape
from ccd_protocol.errors import MEANINGS, Code, RpcError
from fakes.gateway_daemon import Daemon
from fakes.gateway_process import Gateway

VERSION = {"anthropic-version": "2023-06-01"}


@pytest.mark.parametrize(
    ("path", "headers", "shape"),
    [
        ("/v1/messages", {}, MESSAGES),
        ("/v1/messages/count_tokens", {}, MESSAGES),
        ("/v1/messages/nonsense", {}, MESSAGES),
        ("/v1/messagesx", {}, OPENAI),
        ("/v1/chat/completions", VERSION, OPENAI),
        ("/v1/models/x", {}, OPENAI),
        ("/v1/models/x", VERSION, MESSAGES),
        ("/api", {}, FLASK),
        ("/api/nonsense", {}, FLASK),
        ("/v1/sessions", {}, SESSION),
        ("/v1/sessions/x", {}, SESSION),
        ("/ws/session/x", {}, SESSION),
        ("/ws/nonsense", {}, SESSION),
    ],
)
def test_the_route_has_the_shape(
    gateway: Gateway, daemon: Daemon, path: str, headers: dict[str, str], shape: Shape
) -> None:
    """Whoever refuses: the layer around the framework (a strange Host), the framework (a method), or a resource."""
    for method, more in (("GET", {"Host": "evil.example"}), ("PATCH", {})):
        answer = gateway.request(method, path, None, {**headers, **more})
        assert 400 <= answer.status < 500
        assert set(answer.json) == set(shape.described["required"]), answer
        assert int(answer.headers["content-length"]) == len(answer.body)
        ids = {
            answer.headers["x-request-id"],
            answer.headers.get("request-id", answer.headers["x-request-id"]),
        }
        assert len(ids) == 1 and ("request-id" in answer.headers) is (shape is MESSAGES)
        if shape is MESSAGES:
            assert answer.json["request_id"] == answer.headers["request-id"]
            assert answer.headers["request-id"].startswith("req_")


def test_the_clients_own_request_id_is_kept_if_it_can_be_sent_back(gateway: Gateway, daemon: Daemon) -> None:
    for given, kept in (("mine", True), ("a b", False)):
        answer = gateway.request("POST", "/v1/messages", b"", {"X-Request-ID": given})
        assert (answer.headers["request-id"] == given) is kept
        assert answer.headers["request-id"] == answer.json["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_a_type_of_the_messages_api(code: Code) -> None:
    status, body = MESSAGES.render(from_rpc(RpcError(code, "why")), "req_1")
    kind = json.loads(body)["error"]["type"]
    by_status = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error"}
    by_status |= {404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error"}
    by_status |= {503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error"}
    fallback = "api_error" if status >= 500 else "invalid_request_error"
    assert kind == by_status.get(status, fallback)
    assert status == (529 if code is Code.UPSTREAM_OVERLOADED else MEANINGS[code].http_status)


def test_the_parameter_is_named_in_the_message() -> None:
    def message(error: ApiError) -> str:
        return str(json.loads(MESSAGES.render(error, "r").body)["error"]["message"])

    assert (
        message(ApiError(400, "a tool needs a schema", param="tools[0]")) == "tools[0]: a tool needs a schema"
    )
    assert message(ApiError(400, "tools[0] is wrong", param="tools[0]")) == "tools[0] is wrong"


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        (OPENAI, {"error": {"message": "m", "type": "not_found_error", "param": "p", "code": "c"}}),
        (
            MESSAGES,
            {
                "type": "error",
                "error": {"type": "not_found_error", "message": "p: m"},
                "request_id": "req_1",
            },
        ),
        (FLASK, {"error": "Not Found", "message": "m", "status_code": 404}),
        (SESSION, {"error": "m"}),
    ],
)
def test_shapes(shape: Shape, body: dict[str, object]) -> None:
    status, rendered = shape.render(ApiError(404, "m", param="p", code="c"), "req_1")
    assert (status, json.loads(rendered)) == (404, body)
