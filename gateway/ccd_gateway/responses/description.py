"""The Responses API's part of `/openapi.json`."""

from __future__ import annotations

from ccd_gateway.edge.description import (
    ADDRESS,
    ANSWERING,
    COUNT,
    NULLABLE,
    TEXT,
    Description,
    Json,
    in_path,
    in_query,
    operation,
    record,
    ref,
    refused,
    typed,
)
from ccd_gateway.responses.schema import ResponsesRequest

_STORED = {
    404: "There is no such response.",
    405: "No response, but a route.",
    413: ANSWERING[413],
    500: ANSWERING[500],
    507: "The store cannot be used.",
}
_RESPONSE = record(
    {
        "id": TEXT,
        "object": {"const": "response"},
        "status": {"enum": ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]},
        "output": {"type": "array", "items": {"type": "object"}},
    }
)


def answer() -> Description:
    """`/v1/responses`."""
    post = operation(
        "response",
        ref("Response"),
        ANSWERING,
        body=ref("ResponsesRequest"),
        parameters=ADDRESS,
        streams=True,
        cached=True,
    )
    return Description({"post": post}, {**typed(ResponsesRequest), "Response": _RESPONSE})


def tokens() -> Description:
    """`/v1/responses/input_tokens`."""
    count = record({"object": {"const": "response.input_tokens"}, "input_tokens": COUNT})
    return Description(
        {"post": operation("inputTokens", count, ANSWERING, body=ref("ResponsesRequest"), parameters=ADDRESS)}
    )


def one() -> Description:
    """`/v1/responses/{response_id}`."""
    deleted = record({"id": TEXT, "object": {"const": "response"}, "deleted": {"const": True}})
    replay = [
        in_query("stream", {"type": "boolean"}),
        in_query("starting_after", {"type": "integer", "minimum": -1, "maximum": 2**53 - 1}),
    ]
    return _of_one(
        get=operation("storedResponse", ref("Response"), _STORED, parameters=replay, streams=True),
        delete=operation("deleteResponse", deleted, _STORED),
        post={"operationId": "notHere", "responses": refused(_STORED)},
    )


def cancel() -> Description:
    """`/v1/responses/{response_id}/cancel`."""
    return _of_one(post=operation("cancelResponse", ref("Response"), _STORED))


def items() -> Description:
    """`/v1/responses/{response_id}/input_items`."""
    listed = record(
        {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"type": "object"}},
            "first_id": NULLABLE,
            "last_id": NULLABLE,
            "has_more": {"type": "boolean"},
        }
    )
    page = [
        in_query("limit", {"type": "integer", "minimum": 1, "maximum": 100}),
        in_query("order", {"enum": ["asc", "desc"]}),
        in_query("after", TEXT),
        in_query("before", TEXT),
    ]
    return _of_one(get=operation("inputItems", listed, _STORED, parameters=page))


def _of_one(**operations: Json) -> Description:
    return Description({"parameters": [in_path("response_id")], **operations})
