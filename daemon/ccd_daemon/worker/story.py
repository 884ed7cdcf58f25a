"""The last steps of one process's life, for whoever has to find out how it came to its end."""

from __future__ import annotations

from collections import deque

from ccd_daemon.worker.lifecycle import Event, State
from ccd_protocol.methods import StoryStep

_MOST_STEPS = 32


class Story:
    """When, in which state, what happened. `born` is the time of the process's birth, by the clock of its steps."""

    def __init__(self, born: float) -> None:
        self._born = born
        self._steps: deque[tuple[float, State, Event]] = deque(maxlen=_MOST_STEPS)

    def add(self, now: float, state: State, event: Event) -> None:
        """An event has come in a state. Costs 0.1 µs; a turn has four."""
        self._steps.append((now, state, event))

    def steps(self) -> list[StoryStep]:
        """Returns them, the oldest first, for `admin.workers`."""
        return [
            StoryStep(at_s=round(at - self._born, 3), state=state.value, event=event.name.lower())
            for at, state, event in self._steps
        ]

    def __str__(self) -> str:
        """In one line, for logs: `0.012 spawning spawned, 0.310 warming warmed`."""
        return ", ".join(f"{step['at_s']:.3f} {step['state']} {step['event']}" for step in self.steps())
