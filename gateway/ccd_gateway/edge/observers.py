"""Who is told of every request: when it begins, and what came of it. Once each, never for a piece of an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ccd_gateway.access.caller import Caller


class Observer(Protocol):
    """Told of requests; must neither wait nor fail."""

    def began(self) -> None:
        """A request has come."""

    def write(self, scope: Mapping[str, Any], status: int, took_s: float, caller: Caller) -> None:
        """It was answered; status 0 is a client that left before there was an answer."""


class Observers:
    """Several as one."""

    def __init__(self, all_of_them: Sequence[Observer]) -> None:
        self._all = tuple(all_of_them)

    def began(self) -> None:
        """A request has come."""
        for one in self._all:
            one.began()

    def write(self, scope: Mapping[str, Any], status: int, took_s: float, caller: Caller) -> None:
        """It was answered."""
        for one in self._all:
            one.write(scope, status, took_s, caller)
