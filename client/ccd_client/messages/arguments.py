"""Arguments of tool calls in a history, which are a JSON object for the model API, whatever they were before. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NoReturn

from ccd_client.content import refuse
from ccd_client.values import MAX_EXACT, faithful

#: Under which key arguments travel that are no object.
WRAPPED = "arguments"
_SURELY_EXACT_DIGITS = 16
_MACHINE_WORD_DIGITS = 19  # the wire's integers have 64 bits


def object_of(given: object, path: str, ignored: list[str]) -> dict[str, Any]:
    """Returns a call's arguments as an object; what is none becomes the one value of an object, and is named.

    Args:
        given: a text that should hold a JSON object, or such an object itself.
        path: where it is.
        ignored: gets the path of what is not carried as it is.

    Raises:
        RpcError: BAD_PARAMS naming `path`, for what has no JSON form or is nested too deeply.
    """
    if given is None or given == "":
        return {}
    if isinstance(given, str):
        value, exact = _read(given, path)
    else:
        value, exact = _checked(dict(given) if isinstance(given, Mapping) else given, path), False
    if not (exact and isinstance(value, dict)):
        ignored.append(path)
    if isinstance(value, dict):
        return value
    return {} if value is None else {WRAPPED: value}


def _read(given: str, path: str) -> tuple[Any, bool]:
    """The value, and whether the model API gets it as the text has it, digit for digit."""
    changed: list[str] = []
    try:
        value = json.loads(
            given,
            parse_constant=_not_json,
            parse_int=lambda digits: _integer(digits, changed),
            parse_float=lambda digits: _number(digits, changed),
            object_pairs_hook=lambda pairs: _object(pairs, changed),
        )
    except ValueError:
        return _checked(given, path), False  # cut off, or never JSON
    except RecursionError:
        refuse(path, "is nested too deeply")
    return _checked(value, path), not changed


def _integer(digits: str, changed: list[str]) -> float:
    if len(digits) < _MACHINE_WORD_DIGITS:
        value = int(digits)
        if digits == "-0" or abs(value) > MAX_EXACT:
            changed.append(digits)
        return value
    changed.append(digits)
    return _number(digits, changed)


def _number(digits: str, changed: list[str]) -> float:
    found = float(digits)
    if found in (float("inf"), float("-inf")):
        raise ValueError(f"{digits[:40]} is larger than any number that JSON's readers know")
    if (len(digits) >= _SURELY_EXACT_DIGITS and Decimal(digits) != Decimal(repr(found))) or (
        found == 0 and digits.startswith("-")
    ):
        changed.append(digits)
    return found


def _object(pairs: list[tuple[str, Any]], changed: list[str]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        changed.append("a key twice")
    return found


def _checked(value: Any, path: str) -> Any:
    """Refuse what no JSON writer takes."""
    faithful(value, path, [])
    return value


def _not_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")
