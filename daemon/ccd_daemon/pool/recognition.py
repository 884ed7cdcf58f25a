"""What becomes of conversations that come back (mode `replay`): counted, and why a process was not there. Pure.

The places of conversations (`request.chain`) are remembered for a while after their process has gone, with the reason,
so that a miss can be told in words that a person can act on.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from enum import StrEnum


class Miss(StrEnum):
    """Why a conversation that went on had no process."""

    EVICTED = "evicted"
    IDLE = "max_idle_s"
    DEADLINE = "parked_tool_s"
    SPOILT = "spoilt"
    ENDED = "ended"
    RESULTS = "results"
    BRANCHED = "branched"
    CHANGED = "changed"
    UNKNOWN = "unknown"


ADVICE: Mapping[Miss, str] = {
    Miss.EVICTED: "its process was ended to make room for others; pool.max_workers may be raised",
    Miss.IDLE: "its process was unused for too long; pool.max_idle_s may be raised",
    Miss.DEADLINE: "the results of its tools came too late; deadlines.parked_tool_s may be raised",
    Miss.SPOILT: "its last answer had a schema, was cut short, refused, cancelled or failed: that process was not kept",
    Miss.ENDED: "its process has ended: worn out, too large, or crashed; the daemon's log says which",
    Miss.RESULTS: "its tool results came with other words, or in a form that the CLI changes, so they were typed in",
    Miss.BRANCHED: "the client edited, regenerated or repeated a turn, or asked twice at a time",
    Miss.CHANGED: "system prompt, tools, profile or model are not those of the turns before; keep them the same",
    Miss.UNKNOWN: "this history was never answered here, or long ago, or by a daemon that has ended since",
}
_HERE, _WENT_ON = "here", "went on"
_MOST_KNOWN = 10_000


class Recognition:
    """Counts conversations that came back.

    Attributes:
        recognised: turns that went to the process that had heard the conversation.
        rebuilt: those that had to be typed into another one.
        missed: why, for each of these.
    """

    def __init__(self) -> None:
        self.recognised = 0
        self.rebuilt = 0
        self.missed: Counter[Miss] = Counter()
        self._known: OrderedDict[str, str] = OrderedDict()  # by place

    def stands(self, place: str) -> None:
        """A process waits there for what comes next."""
        self._note(place, _HERE)

    def left(self, place: str, parted: str | None) -> None:
        """It has gone from there; `parted` is a `Miss`, None when it has just ended."""
        if self._known.get(place) in (_HERE, None):
            known = parted in list(Miss)
            self._note(place, str(parted) if known else Miss.ENDED)

    def came(self, places: Sequence[str], found: str | None) -> None:
        """A conversation has come back.

        Args:
            places: where its process may stand, the latest first; none when it has just begun.
            found: where one stood.
        """
        if not places:
            return
        if found is not None:
            self.recognised += 1
            self._note(found, _WENT_ON)
        else:
            self.rebuilt += 1
            self.missed[self._why(places)] += 1

    def report(self) -> dict[str, object]:
        """For status."""
        missed = [
            {"why": miss.value, "count": count, "advice": ADVICE[miss]}
            for miss, count in self.missed.most_common()
        ]
        return {"recognised": self.recognised, "rebuilt": self.rebuilt, "missed": missed}

    def _why(self, places: Sequence[str]) -> Miss:
        word = self._known.get(places[0])
        if word == _HERE:
            return Miss.RESULTS
        if word is not None and word != _WENT_ON:
            return Miss(word)
        if any(place in self._known for place in places):
            return Miss.BRANCHED
        return Miss.CHANGED if any(_loose(place) in self._known for place in places) else Miss.UNKNOWN

    def _note(self, place: str, word: str) -> None:
        for key in (place, _loose(place)):
            self._known.pop(key, None)
            self._known[key] = word
        while len(self._known) > 2 * _MOST_KNOWN:
            self._known.popitem(last=False)


def _loose(place: str) -> str:
    """Returns the same conversation of the same tenant, whatever its system prompt, tools and model."""
    owner, _, link = place.split(":")
    return f"{owner}:{link}"
