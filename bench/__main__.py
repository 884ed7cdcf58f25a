"""`python -m bench`: run the benchmarks, print a table, write `bench/results/latest.json`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from bench import table
from bench.measure import Figure, cores
from bench.stage import HERE, Bench

BENCHMARKS = {
    "a": "ping",
    "b": "relay",
    "c": "first_delta",
    "d": "memory",
    "e": "spawn",
    "f": "engine",
    "g": "gateway",
    "h": "peers",
    "r": "replay",
    "t": "tasks",
}
RESULTS = HERE / "results" / "latest.json"


def main() -> int:
    """Run what was asked for."""
    options = _options()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (hard, hard)
    )  # a thousand streams have several thousand descriptors
    started = time.time()
    figures: list[Figure] = []
    took_s: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="ccd-bench-") as folder:
        bench = Bench(Path(folder), options.quick)
        for letter in options.only:
            begun = time.monotonic()
            bench.say(f"({letter}) {BENCHMARKS[letter]}")
            figures += import_module(f"bench.{BENCHMARKS[letter]}").run(bench)
            took_s[letter] = round(time.monotonic() - begun, 1)
    report = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "quick": options.quick,
        "took_s": took_s,
        "machine": _machine(),
        "figures": [figure.as_dict() for figure in figures],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    if options.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        table.show(report["machine"], figures, took_s)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = ", ".join(f"{letter} {name}" for letter, name in BENCHMARKS.items())
    parser.add_argument(
        "--only", type=_letters, default=list(BENCHMARKS), metavar="a,c", help=f"some of: {names}"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under a minute, less certain")
    parser.add_argument("--json", action="store_true", help="print the JSON instead of the table")
    return parser.parse_args()


def _letters(text: str) -> list[str]:
    letters = text.split(",")
    unknown = [letter for letter in letters if letter not in BENCHMARKS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"there is no benchmark {unknown[0]!r}; there are: {','.join(BENCHMARKS)}"
        )
    return letters


def _machine() -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in ("ccdaemon", "uvloop", "msgpack", "msgspec")}
    return {
        "cores": len(cores()),
        "load_1min": round(os.getloadavg()[0], 2),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        **versions,
    }


if __name__ == "__main__":
    sys.exit(main())
