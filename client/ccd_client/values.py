"""Values that do not reach the model API as they are: found, and named with their path. Pure.

Between here and the model API stand msgpack, whose integers have 64 bits, and a CLI written in JavaScript, whose
numbers are doubles.
"""

from __future__ import annotations

import math
from typing import Any

from ccd_client.content import check_text, refusal, refuse

#: In JavaScript larger integers are rounded.
MAX_EXACT = 1 << 53
_MAX_WIRE = 1 << 63
_MAX_DEPTH = 200


def faithful(value: Any, path: str, ignored: list[str], depth: int = 0) -> Any:
    """Returns a JSON value as it can be sent; integers that the CLI rounds are named.

    Args:
        value: of any shape.
        path: where it is.
        ignored: gets the paths of what arrives changed.

    Raises:
        RpcError: BAD_PARAMS naming the path of what has no JSON form: NaN, infinity, half of a surrogate pair, a key
            that is no string, a value nested too deeply.
    """
    if isinstance(value, str):
        return check_text(value, path)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _integer(value, path, ignored)
    if isinstance(value, float):
        return _number(value, path, ignored)
    if depth > _MAX_DEPTH:
        refuse(path, "is nested too deeply")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                refuse(path, f"has the key {key!r:.40}, which is no string")
            check_text(key, path)
        return {key: faithful(inner, f"{path}.{key}", ignored, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [faithful(inner, f"{path}[{index}]", ignored, depth + 1) for index, inner in enumerate(value)]
    raise refusal(path, f"is a {type(value).__name__}, which has no JSON form")


def _integer(value: int, path: str, ignored: list[str]) -> float:
    if -MAX_EXACT <= value <= MAX_EXACT:
        return value
    try:
        rounded = float(value)
    except OverflowError:
        refuse(path, "is larger than any number that JSON's readers know")
    ignored.append(path)
    return value if -_MAX_WIRE <= value < _MAX_WIRE else rounded


def _number(value: float, path: str, ignored: list[str]) -> float:
    if not math.isfinite(value):
        refuse(path, f"is {value}, which has no JSON form")
    if value == 0 and str(value).startswith("-"):
        ignored.append(path)
    return value
