"""The tables of the documents, written from what they describe: settings, parameters of a chat.

python -m pytest tests/test_docs.py --write-documents
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from ccd_daemon import config
from ccd_daemon.claude.login import Mode
from ccd_gateway.settings import GatewaySettings
from ccd_protocol.chat.parameters import PARAMETERS, Api, ChatParams, Parameter
from ccd_tasks.settings import TasksSettings

ROOT = Path(__file__).parents[1]
_TABLE = re.compile(r"(<!-- table: (?P<name>[a-z-]+), [^\n]*-->\n\n)(?:\|[^\n]*\n)*")
_WORDS = {str: "text", int: "integer", float: "number", bool: "boolean", list: "list", dict: "object"}


def settings() -> list[str]:
    """Every setting with its default."""
    found = {name: kind for name, kind in config.SECTIONS.items() if dataclasses.is_dataclass(kind)}
    found |= {"profiles.NAME": config.Profile, "tasks": TasksSettings}
    rows = [row for section, kind in found.items() if section != "gateway" for row in _section(section, kind)]
    return ["| setting | default | meaning |", "|---|---|---|", *rows]


def gateway_settings() -> list[str]:
    """Those of the gateway."""
    return ["| setting | default | meaning |", "|---|---|---|", *_section("gateway", GatewaySettings)]


def _section(section: str, kind: Any) -> list[str]:
    rows = []
    for field in dataclasses.fields(kind):
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        rows.append(f"| `{section}.{field.name}` | `{default}` | {field.metadata['help']} |")
    return rows


def fates() -> list[str]:
    """What becomes of each parameter in each mode."""
    rows = [
        f"| `{name}` | {_kind(name)} | {' | '.join(parameter.fate(mode) for mode in Mode)} | {_about(parameter)} |"
        for name, parameter in PARAMETERS.items()
    ]
    modes = " | ".join(f"`{mode}`" for mode in Mode)
    return [f"| parameter | | {modes} | |", "|---|---|---|---|---|---|", *rows]


def names() -> list[str]:
    """What each API calls it."""
    rows = [
        "| " + " | ".join([f"`{name}`", *(_name(parameter, surface) for surface in Api)]) + " |"
        for name, parameter in PARAMETERS.items()
    ]
    head = "| RPC | Chat Completions | Responses | Messages | `ccd_client` |"
    return [head, "|---|---|---|---|---|", *rows]


def _name(parameter: Parameter, surface: Api) -> str:
    called = parameter.called(surface)
    return f"`{called}`" if called else "–"


def _kind(name: str) -> str:
    hint: Any = get_type_hints(ChatParams)[name]
    kinds = get_args(hint) if get_args(hint) and get_origin(hint) not in (list, dict) else (hint,)
    words = [_WORDS.get(get_origin(kind) or kind, "object") for kind in kinds if kind is not type(None)]
    parameter = PARAMETERS[name]
    if parameter.one_of:
        return ", ".join(f"`{value}`" for value in parameter.one_of)
    ends = [f"{end:g}" for end in (parameter.low, parameter.high) if end is not None]
    return " or ".join(words) + (
        f", {' to '.join(ends)}{' or more' if len(ends) == 1 else ''}" if ends else ""
    )


def _about(parameter: Parameter) -> str:
    more = [f"needs `{parameter.needs}`"] if parameter.needs else []
    more += [f"not with `{other}`" for other in parameter.excludes]
    return "; ".join([parameter.about, *more])


TABLES = {"settings": settings, "gateway-settings": gateway_settings, "fates": fates, "names": names}


def written(text: str) -> str:
    """A document with its tables as they should be."""
    return _TABLE.sub(lambda found: found[1] + "".join(f"{row}\n" for row in TABLES[found["name"]]()), text)


def documents() -> list[Path]:
    """Those with tables to write."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]
    return sorted(path for path in found if _TABLE.search(path.read_text()))
