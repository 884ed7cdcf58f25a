"""What a request's content may hold, and how a refusal of it is worded: pure, for every module that reads one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from ccd_protocol.errors import Code, RpcError

Block = dict[str, Any]

#: What the model API takes of an image is 5 MB, counted as it travels, in base64.
MAX_IMAGE_BYTES = (5 << 20) * 3 // 4
MAX_FILE_BYTES = 32 << 20
_MAX_SHOWN_CHARS = 60


def refusal(param: str, problem: str) -> RpcError:
    """BAD_PARAMS, naming a parameter by its path."""
    return RpcError(Code.BAD_PARAMS, f"{param} {problem}", {"param": param})


def refuse(param: str, problem: str) -> NoReturn:
    """Raise `refusal`."""
    raise refusal(param, problem)


def name_unknown(given: Mapping[str, Any], known: Collection[str], path: str, ignored: list[str]) -> None:
    """Name what says something and has no place on the wire."""
    for key in given:
        if key not in known and given[key]:
            ignored.append(f"{path}.{str(key)[:80]}")


def check_text(text: str, path: str) -> str:
    """Returns a text that can be written as UTF-8.

    Raises:
        RpcError: BAD_PARAMS naming `path`, for half of a surrogate pair.
    """
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as error:
        refuse(path, f"holds half of a surrogate pair at character {error.start}, which is no character")
    return text


def shown(value: object) -> str:
    """Returns a client's value as it may stand in an error message: short."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"
