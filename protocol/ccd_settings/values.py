"""One setting's value: read out of text, checked against its type, and named in a message when it is wrong."""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar, Union, get_args, get_origin

PREFIX = "CCD_"  # of the variables

_N = TypeVar("_N", int, float)
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


class SettingsError(ValueError):
    """Settings that cannot be used. Each problem names the file and line, variable or flag, and what is expected.

    Attributes:
        problems: one text for each thing that is wrong; the message is all of them, a line each.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class RawText(str):
    """A value that came as text, so numbers and lists have to be parsed out of it."""


class Where(NamedTuple):
    """Where a value came from, for messages."""

    source: str  # "env", "flag" or the file's path
    path: tuple[str, ...]
    lines: Mapping[tuple[str, ...], int] = {}  # of a file: where each table and key stands

    def child(self, name: str) -> Where:
        """Returns the place of an entry of the table that is here."""
        return self._replace(path=(*self.path, name))

    def __str__(self) -> str:
        if self.source == "env":
            return PREFIX + "__".join(self.path).upper()
        if self.source == "flag":
            return f"the flag for {'.'.join(self.path)}"
        line = next((self.lines[path] for path in self._upwards() if path in self.lines), None)
        place = self.source if line is None else f"{self.source}:{line}"
        return f"{place}: {'.'.join(self.path)}" if self.path else place

    def _upwards(self) -> Iterator[tuple[str, ...]]:
        """The path, then the tables that it is in: a key inside of an inline table has no line of its own."""
        for length in range(len(self.path), 0, -1):
            yield self.path[:length]


def convert(kind: Any, value: Any, where: Where, meta: Mapping[str, Any]) -> Any:
    """`value` as a `kind`, or a SettingsError that says what was expected."""
    inner = _without_none(kind)
    if inner is not None:
        if value is None or (isinstance(value, RawText) and not value):
            return None
        return convert(inner, value, where, meta)
    unit = _unit(kind, where)
    try:
        return _parse(kind, value if unit is None else unit.read(value), meta)
    except (ValueError, TypeError, OverflowError):
        got = "" if meta.get("secret") else f", got {shown(value)}"
    form = "" if unit is None else f" (or text like {unit.example})"
    raise SettingsError(f"{where}: expected {_expected(kind, meta)}{form}{got}")


class SpelledUnit(NamedTuple):
    """How an amount may be written besides as a number: `2G`, `30s`."""

    ending: str  # of the names of the settings that are measured so
    factors: Mapping[str, float]  # by what stands after the number
    example: str

    def read(self, value: Any) -> Any:
        """Returns the number that a text with a unit stands for, as text; anything else as it is.

        Raises:
            ValueError: the number is no whole one, and the setting's unit has no smaller one.
        """
        found = _AMOUNT.fullmatch(value.strip().lower()) if isinstance(value, str) else None
        factor = None if found is None else self.factors.get(found[2])
        if found is None or factor is None:
            return value
        amount = float(found[1]) * factor
        return RawText(int(amount)) if amount.is_integer() else RawText(amount)


_AMOUNT = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([a-z]+)")
_SIZES = {
    name: 1024.0**power for power, word in enumerate("kmgt", 1) for name in (word, f"{word}b", f"{word}ib")
}
_TIMES_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNITS = (
    SpelledUnit("_bytes", {"b": 1.0, **_SIZES}, "2G or 512M"),
    SpelledUnit("_ms", {name: 1000 * factor for name, factor in _TIMES_S.items()}, "30s or 5m"),
    SpelledUnit("_s", _TIMES_S, "30s or 5m"),
)


def _unit(kind: Any, where: Where) -> SpelledUnit | None:
    """Returns the unit that a number is measured in, by the end of its name."""
    name = where.path[-1] if where.path and kind in (int, float) else ""
    return next((unit for unit in _UNITS if name.lower().endswith(unit.ending)), None)


def _parse(kind: Any, value: Any, meta: Mapping[str, Any]) -> Any:
    origin = get_origin(kind)
    if origin is Literal:
        return _plain(value) if isinstance(value, str) and value in get_args(kind) else _fail(value)
    if origin in (list, tuple):
        items = [_parse(get_args(kind)[0], item, meta) for item in _items(value)]
        return items if origin is list else tuple(items)
    if origin is dict:
        return _parse_dict(kind, from_json(value) if isinstance(value, RawText) else value, meta)
    return _PARSERS[kind](value, meta)


def _items(value: Any) -> list[Any]:
    if isinstance(value, RawText):
        text = value.strip()
        value = (
            from_json(text) if text.startswith("[") else [RawText(x.strip()) for x in text.split(",") if x]
        )
    return value if isinstance(value, list) else _fail(value)


def _parse_dict(kind: Any, value: Any, meta: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError
    item_kind = get_args(kind)[1]
    return {key: item if item_kind is Any else _parse(item_kind, item, meta) for key, item in value.items()}


def _parse_bool(value: Any, meta: Mapping[str, Any]) -> bool:
    if isinstance(value, RawText):
        word = value.strip().lower()
        return word in _TRUE if word in _TRUE | _FALSE else _fail(value)
    return value if isinstance(value, bool) else _fail(value)


def _parse_int(value: Any, meta: Mapping[str, Any]) -> int:
    number = int(value) if isinstance(value, RawText) else value
    return _in_range(number, meta) if type(number) is int else _fail(value)  # a bool is an int to isinstance


def _parse_float(value: Any, meta: Mapping[str, Any]) -> float:
    number = float(value) if isinstance(value, RawText) or type(value) is int else value
    if type(number) is not float or not math.isfinite(number):
        raise ValueError(value)
    return _in_range(number, meta)


def _parse_str(value: Any, meta: Mapping[str, Any]) -> str:
    return _plain(value) if isinstance(value, str) else _fail(value)


def _parse_path(value: Any, meta: Mapping[str, Any]) -> Path:
    if isinstance(value, Path):
        return value
    text = value if isinstance(value, str) and value and "\0" not in value else _fail(value)
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # no home directory for this user
        raise ValueError(text) from error


_PARSERS: Mapping[Any, Callable[[Any, Mapping[str, Any]], Any]] = {
    bool: _parse_bool,
    int: _parse_int,
    float: _parse_float,
    str: _parse_str,
    Path: _parse_path,
}


def _in_range(number: _N, meta: Mapping[str, Any]) -> _N:
    low, high = meta.get("min", number), meta.get("max", number)
    return number if low <= number <= high else _fail(number)


def _plain(value: str) -> str:
    return str.__str__(value)


def from_json(text: str) -> Any:
    """Returns what JSON text stands for; text that is not JSON stands for itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _fail(value: object) -> NoReturn:
    raise ValueError(value)


# --- messages ---

_NAMES: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
}


def _expected(kind: Any, meta: Mapping[str, Any]) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if origin in (list, tuple):
        return f"a list, each item {_expected(get_args(kind)[0], meta)}"
    if origin is dict:
        return "a table"
    return _NAMES[kind] + (_range(meta) if kind in (int, float) else "")


def _range(meta: Mapping[str, Any]) -> str:
    if "min" in meta and "max" in meta:
        return f" from {meta['min']} to {meta['max']}"
    if "min" in meta:
        return f" of at least {meta['min']}"
    return f" of at most {meta['max']}" if "max" in meta else ""


def shown(value: Any) -> str:
    """Returns a value in a message: at most 80 characters."""
    text = repr(_plain(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _without_none(kind: Any) -> Any:
    """X for `X | None`, else None."""
    if get_origin(kind) not in (Union, types.UnionType):
        return None
    return next((arg for arg in get_args(kind) if arg is not types.NoneType), None)
