"""Settings read again while the daemon runs: all of them or none, and what cannot change now is named.

Nearly everybody reads a setting when it is used, from the one `Settings` that `app.build` was given; so the sections
that may change are exchanged in it, and only what was worked out from them at the start (the shelves' targets) is
told. What a process was started with it keeps; idle ones that were started with something else are replaced.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from ccd_daemon.config import SECTIONS, Settings
from ccd_daemon.pool.pool import Pool
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ReloadResult
from ccd_settings.settings import SettingsError

log = logging.getLogger("ccd")

#: What can change while the daemon runs, as patterns of `section.key`; everything else waits for a restart.
_LIVE = re.compile(
    r"pool\.(spares|max_workers|max_idle_s|rss_soft_bytes|rss_hard_bytes|poll_s|max_processes|max_pressure)"
    r"|engine\.(reset_turns|reset_input_tokens|max_turns|max_age_s)"
    r"|queue\.\w+|deadlines\.(?!check_s)\w+|sessions\.(?!uids)\w+|log\.level"
    r"|profiles\.[a-z0-9_-]+\.(model|fallback_model|spares|env)"
)
#: Of these, what a process is started with: idle processes that have something else are replaced.
_AT_SPAWN = re.compile(r"profiles\.[a-z0-9_-]+\.env|engine\.\w+|pool\.(max_processes|rss_hard_bytes)")


def differences(old: Settings, new: Settings) -> list[str]:
    """Returns every `section.key` that is not the same, sorted; a profile that came or went is `profiles.NAME`."""
    before, after = _flat(old), _flat(new)
    changed = {key for key in before.keys() & after.keys() if before[key] != after[key]}
    for key in before.keys() ^ after.keys():
        changed.add(".".join(key.split(".")[:2]))
    return sorted(changed)


def _flat(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for section in SECTIONS:
        value = getattr(settings, section, None)
        tables = value if isinstance(value, Mapping) else {"": value}
        for name, table in tables.items():
            if dataclasses.is_dataclass(table) and not isinstance(table, type):
                path = f"{section}.{name}" if name else section
                found |= {
                    f"{path}.{field.name}": getattr(table, field.name) for field in dataclasses.fields(table)
                }
    return found


class Reloading:
    """Reads the settings again and puts them in force.

    Args:
        settings: those in force, which everybody has.
        reread: reads them as at the start.
        pool: is told what was worked out from them.
    """

    def __init__(self, settings: Settings, reread: Callable[[], Settings], pool: Pool) -> None:
        self._settings = settings
        self._reread = reread
        self._pool = pool
        self.pending: list[str] = []  # changed in the file, and waiting for a restart

    def reload(self) -> ReloadResult:
        """Read and take them.

        Raises:
            RpcError: BAD_PARAMS, something is wrong with them, and nothing has changed; data: `problems`.
        """
        try:
            new = self._reread()
        except SettingsError as error:
            log.warning("the settings were not reloaded: %s", "; ".join(error.problems))
            raise RpcError(
                Code.BAD_PARAMS, f"nothing has changed: {error}", {"problems": list(error.problems)}
            ) from None
        changed = differences(self._settings, new)
        live = [key for key in changed if _LIVE.fullmatch(key)]
        self.pending = [key for key in changed if key not in live]
        self._take(new, live)
        if any(_AT_SPAWN.fullmatch(key) for key in live):
            self._pool.roll()
        log.info("settings reloaded: %s; waiting for a restart: %s", _listed(live), _listed(self.pending))
        return ReloadResult(changed=live, pending=self.pending)

    def _take(self, new: Settings, live: list[str]) -> None:
        settings = self._settings
        profiles = dict(settings.profiles)
        for key in live:
            section, *path = key.split(".")
            if section == "profiles":
                name, field = path
                value = getattr(new.profiles[name], field)
                profiles[name] = dataclasses.replace(profiles[name], **{field: value})
            else:
                table = dataclasses.replace(
                    getattr(settings, section), **{path[0]: getattr(getattr(new, section), path[0])}
                )
                settings.exchange(section, table)
        settings.exchange("profiles", profiles)
        if "log.level" in live:
            logging.getLogger().setLevel(settings.log.level.upper())
        self._pool.adapt()


def _listed(keys: list[str]) -> str:
    return ", ".join(keys) or "nothing"
