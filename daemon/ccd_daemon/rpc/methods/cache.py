"""`cache.*`: what is known of the answers that may be given again."""

from __future__ import annotations

from ccd_daemon.rpc.methods.remembered import Remembered
from ccd_protocol.events import Called
from ccd_protocol.methods import CacheStats


class CacheMethods:
    """The methods over the cache of answers."""

    def __init__(self, remembered: Remembered) -> None:
        self._remembered = remembered

    def stats(self, call: Called) -> CacheStats:
        """Returns what it holds. Answers at once."""
        return self._remembered.stats()
