"""The words in which routes describe themselves for `/openapi.json`. Pure.

A description is made when the document is asked for, so that a gateway that nobody asks does not pay for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from ccd_gateway.errors import JSON
from ccd_gateway.shapes import OPENAI, Shape

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
NULLABLE: Json = {"type": ["string", "null"]}
COUNT: Json = {"type": "integer", "minimum": 0}
_REF = "#/components/schemas/{name}"

# Whatever a route does, its requests can be refused so.
EVERYWHERE = {
    400: "The request cannot be understood, or asks for what is not supported.",
    401: "A valid API key is required, or the CLI is not logged in.",
    403: "The Host, the Origin or the key does not allow this.",
    408: "The request was not complete in time.",
    415: "The body's type or encoding is not accepted.",
    429: "A limit or a budget is reached.",
    503: "The daemon is away, or too busy.",
}
#: How a request that calls the daemon can fail.
FAILING = {
    500: "The gateway or the daemon failed.",
    502: "The CLI or the model API failed.",
    504: "It took too long.",
}
#: How an answer can fail.
ANSWERING = {
    **FAILING,
    404: "The model or profile does not exist, or the key may not use it.",
    413: "The body is too large.",
    507: "The usage cannot be written.",
}


class Description(NamedTuple):
    """A route's part of the document.

    Attributes:
        item: its path item; operations by method, in lower case.
        schemas: what the item refers to, by name.
    """

    item: Json
    schemas: Mapping[str, Json] = MappingProxyType({})


def operation(
    name: str,
    answer: Json | None,
    refusals: Mapping[int, str],
    *,
    shape: Shape = OPENAI,
    status: int = 200,
    body: Json | None = None,
    parameters: Iterable[Json] = (),
    required: bool = True,
    streams: bool = False,
    cached: bool = False,
) -> Json:
    """One operation.

    Args:
        name: its `operationId`.
        answer: the schema of a good answer; None for an object of any kind.
        refusals: statuses besides those that every request can be refused with, and what they mean.
        shape: of the refusals.
        status: of a good answer.
        body: the schema of the request's body.
        required: whether it must be there.
        parameters: of query and header.
        streams: whether the answer may also be a stream of events.
        cached: whether the answer may come from the cache.
    """
    content: Json = {JSON: {"schema": answer or {"type": "object"}}}
    good: Json = {"description": "Done.", "content": content}
    if streams:
        content["text/event-stream"] = {"schema": TEXT}
        good["description"] = "Done; a stream of events where one was asked for."
    if cached:
        good["headers"] = {"X-Cache": _X_CACHE}
    made: Json = {"operationId": name, "responses": {str(status): good, **refused(refusals, shape)}}
    if body is not None:
        made["requestBody"] = {"required": required, "content": {JSON: {"schema": body}}}
    given = [*parameters, *([_CACHE_CONTROL] if cached else [])]
    return {**made, "parameters": given} if given else made


def refused(refusals: Mapping[int, str], shape: Shape = OPENAI) -> Json:
    """The refusals of an operation, those that every request can meet included."""
    content = {JSON: {"schema": ref(shape.schema)}}
    statuses = sorted({**EVERYWHERE, **refusals}.items())
    return {str(status): {"description": text, "content": content} for status, text in statuses}


def record(properties: Json) -> Json:
    """An object that has all of these; there may be more."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def ref(name: str) -> Json:
    """A reference to a schema."""
    return {"$ref": _REF.format(name=name)}


def typed(*kinds: type) -> Json:
    """The schemas of the types that requests are decoded with, by their names."""
    return msgspec.json.schema_components(kinds, ref_template=_REF)[1]


def in_path(name: str) -> Json:
    """A part of the path."""
    return {"name": name, "in": "path", "required": True, "schema": {**TEXT, "minLength": 1}}


def in_query(name: str, schema: Json) -> Json:
    """A part of the query."""
    return {"name": name, "in": "query", "schema": schema}


def in_header(name: str, schema: Json) -> Json:
    """A header."""
    return {"name": name, "in": "header", "schema": schema}


#: Headers that every request for an answer may have.
ADDRESS = (
    in_header("X-CCD-Profile", {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}),
    in_header("X-CCD-Strict", {"enum": ["true", "false"]}),
)
_CACHE_CONTROL = in_header(
    "Cache-Control", {"type": "string", "pattern": "^(no-cache|no-store|max-age=[0-9]{1,9})$"}
)
_X_CACHE = {
    "description": "Where the answer comes from; absent where there is no cache.",
    "schema": {"enum": ["HIT", "MISS", "BYPASS"]},
}
