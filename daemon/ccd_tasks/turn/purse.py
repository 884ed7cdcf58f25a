"""On whose account a turn is: what this package asks of whoever keeps the books of keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Receipt(Protocol):
    """One turn that was admitted. `end` or `cut` it once."""

    def saw(self, payload: bytes) -> None:
        """So much of the answer has passed."""

    async def end(self, result: Mapping[str, Any]) -> None:
        """It was answered: book it."""

    def cut(self, *, asked: bool = False) -> None:
        """It was left early: book what has passed."""


class Purse(Protocol):
    """Admits turns of tasks that were submitted with a key."""

    async def admit(self, key_id: str, params: Mapping[str, Any]) -> Receipt:
        """One turn.

        Raises:
            RpcError: UPSTREAM_LIMIT, wait; BUDGET, the day's budget is used up; FORBIDDEN, the key is gone.
        """
