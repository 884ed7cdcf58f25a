"""What a worker has been through, and what that means for it when it is given back. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ccd_daemon.worker.lifecycle import Event
from ccd_protocol.methods import ChatResult

_INPUT_TOKENS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


@dataclass(frozen=True)
class WearLimits:
    """When a worker must forget (reset) and when it must go (retire)."""

    reset_turns: int
    reset_input_tokens: int
    max_turns: int
    max_age_s: float


@dataclass
class Wear:
    """What a worker has been through."""

    turns: int = 0  # since it was spawned
    surplus_calls: int = 0  # API calls beyond one per turn
    turns_since_reset: int = 0
    input_tokens_since_reset: int = 0
    tainted: bool = False  # its last turn failed, was cancelled, or made surplus calls
    over_soft_limit: bool = False  # of memory
    total_cost_usd: float = 0.0  # as the CLI adds it up, from one reset to the next

    def turn_began(self) -> None:
        """A turn is written to it."""
        self.turns += 1
        self.turns_since_reset += 1

    def cost_usd(self, total_usd: float | None) -> float:
        """Returns what the turn that ended cost, from the total that the CLI gives."""
        before, self.total_cost_usd = self.total_cost_usd, max(self.total_cost_usd, total_usd or 0.0)
        return self.total_cost_usd - before

    def turn_ended(self, result: ChatResult, *, clean: bool) -> None:
        """A turn has ended; `clean`: with a whole answer and without an error."""
        self.input_tokens_since_reset += sum(int(result["usage"].get(key, 0)) for key in _INPUT_TOKENS)  # type: ignore[call-overload]
        self.surplus_calls += result["api_calls"] - 1
        self.tainted = self.tainted or not clean or result["api_calls"] > 1

    def forgot(self) -> None:
        """It was reset."""
        self.tainted = False
        self.turns_since_reset = self.input_tokens_since_reset = 0
        self.total_cost_usd = 0.0


def release_event(
    wear: Wear, limits: WearLimits, *, age_s: float, reusable: bool, forgets: bool = True
) -> Event:
    """Returns what giving a worker back means for it; one that must remember what it heard never forgets."""
    worn_out = wear.turns >= limits.max_turns or age_s >= limits.max_age_s
    if not reusable or wear.over_soft_limit or worn_out:
        return Event.RELEASE_RETIRE
    if not forgets:
        return Event.RELEASE_RETIRE if wear.tainted else Event.RELEASE
    forget = (
        wear.turns_since_reset >= limits.reset_turns
        or wear.input_tokens_since_reset >= limits.reset_input_tokens
    )
    return Event.RELEASE_RESET if wear.tainted or forget else Event.RELEASE


def jittered(seconds: float, random: Random, spread: float = 0.1) -> float:
    """`seconds`, give or take a tenth, so that workers born together do not end together."""
    return seconds * (1 + random.uniform(-spread, spread))
