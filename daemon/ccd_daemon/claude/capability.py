"""What the installed CLI can do, as far as its version and its own words tell. Nothing is run to find out.

Versions were tried by hand; between a version that lacks something and the first that was seen to have it, the answer
is None: not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ccd_daemon.claude.binary import LOWEST_SUPPORTED, sortable

_MOST_ANNOUNCED = 40

#: Feature: the newest version known to lack it, the oldest known to have it.
_SINCE: Mapping[str, tuple[str | None, str]] = {
    "extra_body": (None, "2.1.197"),  # the exact request, by apply_flag_settings
    "clear": (None, "2.1.197"),  # a reset that confirms itself
    "history_lines": (None, "2.1.197"),  # past turns typed in on stdin
    "client_composed": ("2.1.197", "2.1.330"),  # text that begins with / or has an @path is taken literally
    "get_binary_version": ("2.1.197", "2.1.330"),
    "await_claim": ("2.1.197", "2.1.330"),  # native spares; ccd does not need them
}


def capabilities(version: str | None, announced: Sequence[str] = ()) -> dict[str, bool | None]:
    """Feature by feature: True, False, or None where it cannot be told.

    Args:
        version: of the running processes, else of the file; None or "unknown" when neither tells.
        announced: what the reply to `initialize` lists as capabilities, under the names that it gives them.
    """
    mine = sortable(version or "")
    found: dict[str, bool | None] = {"supported": mine >= sortable(LOWEST_SUPPORTED) if mine else None}
    for name, (last_without, first_with) in _SINCE.items():
        found[name] = None
        if mine and mine >= sortable(first_with):
            found[name] = True
        elif mine and last_without is not None and mine <= sortable(last_without):
            found[name] = False
    for name in announced[:_MOST_ANNOUNCED]:
        found.setdefault(name[:60], True)
    return found
