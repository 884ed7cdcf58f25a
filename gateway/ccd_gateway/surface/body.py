"""The JSON of a request's body, and what is said about one that does not fit. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import Struct

from ccd_gateway.errors import ApiError, bad_request
from ccd_gateway.surface.values import broken

T = TypeVar("T")
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

_AT = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>\w+)`")


class StreamOptions(Struct):
    """What a stream carries besides the answer, in OpenAI's APIs."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body, whatever its Content-Type says; a byte order mark is let pass.

    Raises:
        ApiError: 400 when it is not JSON or not an object.
    """
    try:
        value = msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if (found := broken(body)) is not None:
            raise bad_request(f"'{found.path}': {found.why}.", found.path, "invalid_json") from error
        what = "it is empty" if not body.strip() else str(error)
        raise bad_request(f"The request body is not valid JSON: {what}.", code="invalid_json") from error
    if not isinstance(value, dict):
        raise bad_request("The request body must be a JSON object.", code="invalid_json")
    return value


def read_as(fields: dict[str, Any], kind: type[T]) -> T:
    """The fields as a typed request.

    Raises:
        ApiError: 400 in OpenAI's words, naming the field where there is one.
    """
    try:
        return msgspec.convert(whole_numbers(fields), kind)
    except msgspec.ValidationError as error:
        raise wrong_field(violation(error)) from error


def whole_numbers(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields with `1024.0` as 1024: some clients know only one kind of number."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in fields.items()
    }


def unknown_names(fields: Mapping[str, Any], kind: type[Struct], path: str = "") -> list[str]:
    """Returns the names of what says something and is no field, in the typed parts of a request too."""
    types = _types(kind)
    found: list[str] = []
    for name, value in fields.items():
        if name not in types:
            found += [] if value is None else [f"{path}{name}"]
        elif isinstance(value, dict):
            for inner in get_args(types[name]):
                if isinstance(inner, type) and issubclass(inner, Struct):
                    found += unknown_names(value, inner, f"{path}{name}.")
    return found


@cache
def _types(kind: type[Struct]) -> dict[str, Any]:
    """Returns a struct's fields and their types; worked out once, for it takes longer than reading a request."""
    return get_type_hints(kind)


class WrongField(NamedTuple):
    """What does not fit.

    Attributes:
        what: msgspec's words, without the field.
        path: the field, as `messages[0].role`; empty for the whole.
        missing: the name of the field that is missing in there, if that is it.
    """

    what: str
    path: str
    missing: str | None


def violation(error: msgspec.ValidationError) -> WrongField:
    """The parts of a validation error's text."""
    match = _AT.fullmatch(str(error))
    assert match is not None  # every text fits the pattern
    missing = _MISSING.fullmatch(match["what"])
    return WrongField(match["what"].replace("`", ""), match["path"] or "", missing and missing["name"])


def wrong_field(wrong: WrongField) -> ApiError:
    """The 400 in OpenAI's words."""
    path = wrong.path.replace("[...]", "")  # a value in a dict, whose key is the client's own
    if wrong.missing:
        param = f"{path}.{wrong.missing}".lstrip(".")
        return bad_request(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    what = wrong.what.replace("array", "list").removesuffix(".")
    if path == "messages" and "length" in what:
        return bad_request("Messages cannot be empty.", "messages")
    return bad_request(f"Invalid value for '{path}': {what[:1].lower()}{what[1:]}.", path or None)
