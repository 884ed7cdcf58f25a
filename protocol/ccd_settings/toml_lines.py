"""Where the tables and keys of a TOML file stand. `tomllib` checks and reads the file; it does not tell lines.

Only for messages: a key that is written in a way which is not known here has the line of its table, or none.
"""

from __future__ import annotations

import re

_TABLE = re.compile(r"\s*\[{1,2}\s*([^\[\]]+?)\s*\]{1,2}\s*(?:#.*)?")
_KEY = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_LONG_QUOTES = ('"""', "'''")


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """Returns the line (from 1) of each table and key, by its path."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    inside = ""  # the quotes of a text that goes on over several lines
    for number, line in enumerate(text.splitlines(), 1):
        if inside:
            inside = "" if inside in line else inside
            continue
        header = _TABLE.fullmatch(line)
        if header:
            table = _parts(header[1])
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            found.setdefault((*table, *_parts(key[1])), number)
        inside = next((quotes for quotes in _LONG_QUOTES if line.count(quotes) % 2), "")
    return found


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))
