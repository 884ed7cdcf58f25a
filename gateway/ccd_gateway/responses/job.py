"""From a request to what is asked of the daemon and what the answer will be part of."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import falcon.asgi
import msgspec

from ccd_client.messages import ChatRequest, chat_request
from ccd_gateway.access.caller import tenant_of
from ccd_gateway.edge.work import apart
from ccd_gateway.errors import ApiError, bad_request
from ccd_gateway.images.remote import RemoteImages
from ccd_gateway.responses.events import ResponseEvents
from ccd_gateway.responses.items import (
    OwnItems,
    ReadMessages,
    in_words_of_items,
    missing_reference,
    own_items,
    to_messages,
)
from ccd_gateway.responses.parts import Item
from ccd_gateway.responses.resource import Response, new_response
from ccd_gateway.responses.schema import DecodedResponse, ResponsesRequest
from ccd_gateway.responses.storage.store import ResponseStore
from ccd_gateway.responses.storage.table import (
    BrokenChainError,
    LongChainError,
    ResponseTable,
    StoredResponse,
)
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.surface.address import addressed
from ccd_gateway.surface.given import end_user, given
from ccd_gateway.surface.prompt import Prompt
from ccd_gateway.surface.refusals import renamed
from ccd_gateway.surface.tokens import estimate
from ccd_protocol.chat.history import HistoryMessage, place
from ccd_protocol.chat.parameters import Api, names_in
from ccd_protocol.errors import RpcError
from ccd_protocol.methods import ChatParams

# The daemon's names for what is no parameter of a call of its own, and what this API has for it.
_FURTHER_NAMES = {"output_config.format": "text.format", "metadata.user_id": "user", "prefill": "input"}
# How the client's library and the daemon call a parameter, and how this API does.
_PATHS = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^response_format(\.json_schema)?", "text.format"),
        (r"^(tools\[\d+\])\.function", r"\1"),
        (r"^(tools\[\d+\])\.input_schema", r"\1.parameters"),
        (r"^messages(\[.*)?$", "input"),
        *(
            (rf"^{name}\b", to)
            for name, to in {**_FURTHER_NAMES, **names_in(Api.RESPONSES)}.items()
            if name != to
        ),
    )
)


class ResponseJob(NamedTuple):
    """A request that has been read and found good.

    Attributes:
        tenant: whose it is.
        request: as it came.
        params: what to ask the daemon.
        response: the response before its answer.
        items: the input items of its own.
        ignored: parameters without effect.
        name_of: this API's name for a parameter of the daemon's.
    """

    tenant: str
    request: ResponsesRequest
    params: ChatParams
    response: Response
    items: list[Item]
    ignored: list[str]
    name_of: Callable[[str], str]

    @property
    def streamed(self) -> bool:
        """Whether the answer is to come as a stream."""
        return bool(self.request.stream)

    @property
    def n(self) -> int:
        """How many answers are asked for."""
        return 1

    @property
    def with_summary(self) -> bool:
        """Whether the model's thinking is shown."""
        return self.request.reasoning is not None and self.request.reasoning.wanted is not None

    def input_tokens(self) -> int:
        """An estimate; see `ccd_gateway.surface.tokens`."""
        wanted = self.params.get("format")
        return estimate(
            Prompt(
                model=self.request.model,
                messages=[dict(message) for message in self.params["messages"]],
                system=self.params.get("system"),
                tools=self.params.get("tools"),
                output_format=wanted if wanted and "schema" in wanted else None,
            )
        )

    def events(self) -> ResponseEvents:
        """A new stream of events for this response."""
        return ResponseEvents(self.response, with_summary=self.with_summary)

    def row(self, response: Response) -> StoredResponse:
        """The response as it is stored."""
        return StoredResponse(
            response["id"],
            response["previous_response_id"],
            response["status"],
            response["background"],
            msgspec.json.encode(response),
            msgspec.json.encode(self.items),
        )

    def item_ids(self, response: Response) -> list[str]:
        """The ids by which a later request may refer to items of this response."""
        return [item["id"] for item in (*self.items, *response["output"])]


async def read_job(
    req: falcon.asgi.Request,
    decoded: DecodedResponse,
    body: bytes,
    store: ResponseStore,
    images: RemoteImages,
    settings: GatewaySettings,
) -> ResponseJob:
    """Check a request, fetch what it refers to, and make the call's parameters of it.

    Raises:
        ApiError: 400, naming the parameter.
        RpcError: BAD_PARAMS for the content; STORAGE when what it refers to cannot be read.
    """
    request, ignored, fields = decoded
    tenant = tenant_of(req)
    history = await _history(tenant, request, store)
    given = await apart(body, own_items, request.input or "", ignored)
    own = await _resolved(tenant, given, store)
    made = await apart(body, to_messages, history, own)
    try:
        await images.inline(made.messages)
    except RpcError as error:
        raise in_words_of_items(error, made.origins) from None
    call, named = await apart(body, call_of, request, made)
    ignored = ignored + named
    cached = None if request.stream or request.background else fields
    params = await apart(body, addressed, req, settings, call.params, request.model, ignored, cached)
    response = new_response(request, created_at=int(time.time()), store=request.store is not False)
    name_of = functools.partial(_clients_name, turns=call.turns, origins=made.origins)
    return ResponseJob(tenant, request, params, response, own.items, ignored, name_of)


async def history_of(tenant: str, response_id: str, store: ResponseStore) -> list[Item]:
    """All items up to and with a stored response, oldest first.

    Raises:
        ApiError: 400 `previous_response_not_found`; also for one that has not answered.
    """
    return _items_of(await _chain(tenant, response_id, store))


async def _chain(tenant: str, response_id: str, store: ResponseStore) -> list[StoredResponse]:
    try:
        chain = await store.do(ResponseTable.chain, tenant, response_id, time.time())
    except BrokenChainError as missing:
        which = missing.args[0]
        earlier = "" if which == response_id else f" (it follows {which}, which is gone)"
        raise bad_request(
            f"Previous response with id '{response_id:.80}' not found{earlier}.",
            "previous_response_id",
            "previous_response_not_found",
        ) from None
    except LongChainError:
        raise bad_request(
            f"The conversation before '{response_id}' is too long to be continued.",
            "previous_response_id",
            "context_length_exceeded",
        ) from None
    if chain[-1].status not in ("completed", "incomplete"):
        raise bad_request(
            f"Previous response '{response_id}' has the status '{chain[-1].status}'; only one that has been"
            " answered can be continued.",
            "previous_response_id",
        )
    return chain


def _items_of(chain: Sequence[StoredResponse]) -> list[Item]:
    items: list[Item] = []
    for row in chain:
        items += [*msgspec.json.decode(row.input), *msgspec.json.decode(row.body)["output"]]
    return items


async def _history(tenant: str, request: ResponsesRequest, store: ResponseStore) -> list[Item]:
    """The items before the request's own; a request that names no model goes on with the one before."""
    if request.previous_response_id is None:
        return []
    chain = await _chain(tenant, request.previous_response_id, store)
    if not request.model:
        request.model = msgspec.json.decode(chain[-1].body, type=_Answered).model
    return _items_of(chain)


class _Answered(msgspec.Struct):
    """Of a stored response: who made it."""

    model: str


async def _resolved(tenant: str, own: OwnItems, store: ResponseStore) -> OwnItems:
    """The items with those in place of the references that these name; the ids stay."""
    found: list[Item] = []
    for item, number in zip(*own, strict=True):
        if item["type"] == "item_reference":
            item = await _referred(tenant, item["id"], f"input[{number}]", store)  # noqa: PLW2901
        found.append(item)
    return OwnItems(found, own.numbers)


async def _referred(tenant: str, item_id: str, path: str, store: ResponseStore) -> Item:
    row = await store.do(ResponseTable.holder, tenant, item_id)
    held = [] if row is None else [*msgspec.json.decode(row.input), *msgspec.json.decode(row.body)["output"]]
    for item in held:
        if item["id"] == item_id:
            return dict(item)
    raise missing_reference(path, item_id)


def call_of(request: ResponsesRequest, made: ReadMessages) -> tuple[ChatRequest, list[str]]:
    """The call, but for profile and model, and the names of what has no effect.

    Raises:
        RpcError: BAD_PARAMS in this API's words.
    """
    messages, origins = made
    fitted = {
        "temperature": None if request.temperature is None else min(request.temperature, 1.0),
        "effort": request.effort,
        **end_user(request.user, request.safety_identifier, request.metadata),
    }
    try:
        call = chat_request(
            messages,
            tools=[{"type": "function", "function": tool} for tool in request.tools or ()],
            tool_choice=request.tool_choice,
            parallel_tool_calls=request.parallel_tool_calls,
            response_format=_response_format(request),
            **{**given(Api.RESPONSES, request), **fitted},
        )
    except RpcError as error:
        raise renamed(error, functools.partial(_clients_name, origins=origins)) from error
    return call, [_clients_name(name, origins=origins) for name in call.ignored]


def _response_format(request: ResponsesRequest) -> dict[str, Any] | None:
    wanted = request.text.format if request.text else None
    if wanted is None or wanted["type"] != "json_schema":
        return wanted
    return {"type": "json_schema", "json_schema": wanted}


def _clients_name(param: str, *, turns: Sequence[HistoryMessage] = (), origins: Sequence[str] = ()) -> str:
    """This API's name for a parameter of the daemon's, or of the client's library.

    Args:
        param: the name.
        turns: the history that was sent, where `param` is the daemon's.
        origins: the items that the messages were made of.
    """
    error = RpcError(0, "", {"param": place(turns, param) if turns else param})
    param = str(in_words_of_items(error, origins).data["param"])
    for pattern, name in _PATHS:
        found, count = pattern.subn(name, param, count=1)
        if count:
            return found
    return param


def ignored_by_daemon(result: Mapping[str, Any]) -> list[str]:
    """Parameters that the daemon could not honour, under this API's names."""
    return list(dict.fromkeys(map(_clients_name, result.get("ignored") or ())))


def not_found(response_id: str) -> ApiError:
    """The 404 for a response that does not exist, or is another tenant's."""
    return ApiError(
        404,
        f"Response with id '{response_id:.80}' not found.",
        type="invalid_request_error",
        code="response_not_found",
    )
