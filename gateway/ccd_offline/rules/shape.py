"""Type checks on decoded JSON that fail with the API's wording: `path: what was expected`."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from ccd_offline.errors import invalid


def mapping(value: Any, path: str) -> dict[str, Any]:
    """`value` as an object."""
    if not isinstance(value, dict):
        raise invalid(f"{path}: Input should be a valid dictionary")
    return value


def sequence(value: Any, path: str) -> list[Any]:
    """`value` as an array."""
    if not isinstance(value, list):
        raise invalid(f"{path}: Input should be a valid list")
    return value


def string(value: Any, path: str, *, pattern: str = "", limit: int = 0) -> str:
    """`value` as a string; `pattern` must match all of it, `limit` is in characters."""
    if not isinstance(value, str):
        raise invalid(f"{path}: Input should be a valid string")
    if limit and len(value) > limit:
        raise invalid(f"{path}: String should have at most {limit} characters")
    if pattern and not re.fullmatch(pattern, value):
        raise invalid(f"{path}: String should match pattern '^{pattern}$'")
    return value


def integer(value: Any, path: str, *, least: int) -> int:
    """`value` as an integer of at least `least`; true and false are not integers."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise invalid(f"{path}: Input should be a valid integer")
    if value < least:
        raise invalid(f"{path}: Input should be greater than or equal to {least}")
    return value


def number(value: Any, path: str, *, least: float, most: float) -> float:
    """`value` as a number in a range."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise invalid(f"{path}: Input should be a valid number")
    if not least <= value <= most:
        raise invalid(f"{path}: range: {least:g}..{most:g}")
    return value


def boolean(value: Any, path: str) -> bool:
    """`value` as true or false."""
    if not isinstance(value, bool):
        raise invalid(f"{path}: Input should be a valid boolean")
    return value


def one_of(value: Any, path: str, allowed: Collection[str]) -> str:
    """`value` as one of a few words."""
    if not isinstance(value, str) or value not in allowed:
        words = [f"'{word}'" for word in allowed]
        listed = " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
        raise invalid(f"{path}: Input should be {listed}")
    return value


def keys(
    value: dict[str, Any], path: str, *, required: Collection[str] = (), optional: Collection[str] = ()
) -> None:
    """Refuse missing and unknown keys."""
    for key in required:
        if key not in value:
            raise invalid(f"{_join(path, key)}: Field required")
    for key in value:
        if key not in required and key not in optional:
            raise invalid(f"{_join(path, key)}: Extra inputs are not permitted")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
