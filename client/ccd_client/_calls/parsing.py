"""`Client.parse`: an answer as a value of a type."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from ccd_client._calls.catalogue import asking
from ccd_client._calls.options import ChatOptions, Messages
from ccd_client._calls.schema import schema_of, value_of
from ccd_client._calls.sending import Sending
from ccd_client.events import Answer
from ccd_protocol.errors import Code, RpcError

T = TypeVar("T")


def parsing(messages: Messages, kind: type[T], options: ChatOptions) -> Sending[T]:
    """A chat whose answer is a value of a type.

    Raises:
        TypeError: JSON cannot say what the type holds.
    """
    wrapped = not _is_object(schema := schema_of(kind))
    if wrapped:  # the model's answer is an object in any case
        schema = {
            "type": "object",
            "properties": {"value": schema},
            "required": ["value"],
            "additionalProperties": False,
        }
    form = {
        "type": "json_schema",
        "json_schema": {"name": getattr(kind, "__name__", "value"), "schema": schema},
    }
    sending = asking(messages, {**options, "response_format": form})

    def shape(result: Any) -> T:
        answer = sending.shape(result)
        try:
            found = json.loads(answer.text)
            made: T = value_of(kind, found["value"] if wrapped else found)
        except (ValueError, TypeError, KeyError) as error:
            raise _unfit(answer, error) from None
        return made

    return Sending(sending.method, sending.params, shape, sending.timeout_s)


def _is_object(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "object"


def _unfit(answer: Answer, error: Exception) -> RpcError:
    why = f" (it ended by {answer.stop_reason})" if answer.stop_reason not in (None, "end_turn") else ""
    return RpcError(
        Code.UPSTREAM_ERROR,
        f"the answer is not what was asked for{why}: {error}",
        {"text": answer.text, "output_started": True},
    )
