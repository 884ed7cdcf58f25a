"""Variables of the CLI, and of the runtime that it is built on, that change how fast it is and never what it says.

Which the installed CLI knows is found out by looking for their names in its file (`program`): one that it does not
contain is not set. What each is worth was measured on 2.1.330 and is in `docs/performance.md`. That the output is the
same line by line with and without them is a test (`tests/e2e/test_tuning.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple


class Tuning(StrEnum):
    """What a worker is tuned for."""

    LATENCY = "latency"  # the shortest first token, for some 60 MB more per process
    BALANCED = "balanced"
    MEMORY = "memory"  # the smallest process, for up to a millisecond per turn


class Variable(NamedTuple):
    """One variable, and the bytes that a binary contains which knows it."""

    name: str
    value: str
    trace: bytes


def _own(name: str, value: str) -> Variable:
    return Variable(name, value, name.encode())


#: One call for each request. A refusal by the model is answered as it is, instead of being asked again, or asked of
#: another model. (The first of them alone makes the CLI repeat a 400 once more.)
_ONE_REFUSAL = (
    _own("CLAUDE_CODE_DISABLE_REFUSAL_RETRY", "1"),
    _own("CLAUDE_CODE_DISABLE_REFUSAL_FALLBACK", "1"),
)
#: A delta of the API becomes a line without being taken apart: 33 to 45 % less CPU for each.
_DELTAS = (
    _own("CLAUDE_CODE_PLAIN_DELTA_FAST_PATH", "1"),
    _own("CLAUDE_CODE_PLAIN_DELTA_DIRECT_WRITE", "1"),
    _own("CLAUDE_CODE_PLAIN_DELTA_TAKE_AT_SOURCE", "1"),
)
#: No collection of garbage while nothing happens: 1 to 2 ms for a request that comes after a pause, a tenth of the CPU
#: of an idle process, for 12 to 60 MB.
_LAZY_COLLECTION = _own("BUN_GC_TIMER_INTERVAL", "30000")
#: Garbage is collected by the thread that works: less to share on few cores.
_ONE_COLLECTOR = (
    Variable("BUN_JSC_useConcurrentGC", "0", b"useConcurrentGC"),
    Variable("BUN_JSC_numberOfGCMarkers", "1", b"numberOfGCMarkers"),
)
#: Freed memory is kept for the next request: 0.7 ms and 7 % of CPU, for 45 MB.
_KEEP_FREED = Variable("MIMALLOC_PURGE_DELAY", "-1", b"purge_delay")
#: No third compiler: 20 MB and 10 % of CPU less over some hundred turns, 0.4 to 1.4 ms more per turn.
_FEWER_COMPILERS = (
    Variable("BUN_JSC_useFTLJIT", "0", b"useFTLJIT"),
    _own("CLAUDE_CODE_JIT_POLICY_AFTER_STARTUP", "4"),
)

SETS: Mapping[Tuning, tuple[Variable, ...]] = {
    Tuning.LATENCY: (*_DELTAS, _LAZY_COLLECTION, *_ONE_COLLECTOR, _KEEP_FREED),
    Tuning.BALANCED: (*_DELTAS, _LAZY_COLLECTION, *_ONE_COLLECTOR),
    Tuning.MEMORY: (*_DELTAS, *_ONE_COLLECTOR, *_FEWER_COMPILERS),
}

#: What a binary is searched for.
TRACES = frozenset(variable.trace for chosen in (*SETS.values(), _ONE_REFUSAL) for variable in chosen)


def speeding(tuning: Tuning, known: Collection[bytes]) -> dict[str, str]:
    """Returns the variables of a set whose traces the CLI's file contains."""
    return _set(SETS[tuning], known)


def sparing(known: Collection[bytes]) -> dict[str, str]:
    """Returns the variables by which a refused answer is one call of the API; see also `request.body` for a 400."""
    return _set(_ONE_REFUSAL, known)


def _set(chosen: Iterable[Variable], known: Collection[bytes]) -> dict[str, str]:
    return {variable.name: variable.value for variable in chosen if variable.trace in known}
