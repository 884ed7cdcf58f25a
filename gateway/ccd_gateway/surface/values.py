"""Values in a body that do not reach the model API as they are written, and what makes a body no JSON. Pure.

The decoder of bodies is fast and forgetful: it keeps the last of two keys, makes 0 of -0, and says of a bad number or
character only that there is one. The CLI after it is written in JavaScript and rounds large integers. A body in which
something looks like that is read a second time, slowly, by a reader that can say where.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

_MAX_EXACT = 1 << 53
_MAX_DEPTH = 500
#: A number that is long, or begins with -0, where a value may stand.
_SUSPECT = re.compile(rb"[:,\[]\s*(?:-?\d{16}|-0)")
_SPACED_KEY = re.compile(rb'"\s+:')
_KEY = b'":'


class _Changed:
    """A number that does not stay what it is."""


class _Twice(dict[str, Any]):
    """An object that had a key twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.twice = {key for key, _ in pairs if key in seen or seen.add(key)}  # type: ignore[func-returns-value]


class Broken(NamedTuple):
    """Why a body is no JSON: in words, and where, if it is a value in it."""

    why: str
    path: str | None


def changed(body: bytes, fields: dict[str, Any]) -> list[str]:
    """Returns the paths of values that the model API gets otherwise than the body has them.

    Args:
        body: JSON that was decoded.
        fields: what it was decoded to.
    """
    twice = _SPACED_KEY.search(body) or body.count(_KEY) > msgspec.json.encode(fields).count(_KEY)
    if not twice and not _SUSPECT.search(body):
        return []
    try:
        read = json.loads(body, parse_int=_integer, parse_float=_number, object_pairs_hook=_object)
        return list(_paths(read, ""))
    except (ValueError, RecursionError):
        return []


def broken(body: bytes) -> Broken | None:
    """Returns what is wrong in a body that the decoder refused, where only a value is."""
    try:
        read = json.loads(body, parse_float=_finite, object_pairs_hook=dict, strict=False)
        path = next(_no_values(read, ""), None)
    except (ValueError, RecursionError):
        return None
    if path is None:
        return None
    return Broken("a number is too large for JSON's readers, or a text holds half of a surrogate pair", path)


def _integer(digits: str) -> Any:
    exact = len(digits) < 16 or (len(digits) < 20 and abs(int(digits)) <= _MAX_EXACT)
    return int(digits) if exact and digits != "-0" else _Changed()


def _number(digits: str) -> Any:
    found = float(digits)
    return _Changed() if found == 0 and digits.startswith("-") else found


def _finite(digits: str) -> Any:
    found = float(digits)
    return _Changed() if found in (float("inf"), float("-inf")) else found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Twice(pairs)


def _paths(value: Any, path: str, depth: int = 0) -> Iterator[str]:
    if isinstance(value, _Changed):
        yield path
    elif depth > _MAX_DEPTH:
        return
    elif isinstance(value, dict):
        yield from (_join(path, key) for key in sorted(getattr(value, "twice", ())))
        for key, inner in value.items():
            yield from _paths(inner, _join(path, key), depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _paths(inner, f"{path}[{index}]", depth + 1)


def _no_values(value: Any, path: str, depth: int = 0) -> Iterator[str]:
    if isinstance(value, _Changed) or (isinstance(value, str) and _is_half(value)):
        yield path
    elif isinstance(value, dict) and depth <= _MAX_DEPTH:
        for key, inner in value.items():
            if _is_half(key):
                yield path
            yield from _no_values(inner, _join(path, key), depth + 1)
    elif isinstance(value, list) and depth <= _MAX_DEPTH:
        for index, inner in enumerate(value):
            yield from _no_values(inner, f"{path}[{index}]", depth + 1)


def _is_half(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)


def _join(path: str, key: str) -> str:
    return f"{path}.{key[:64]}" if path else key[:64]
