"""Starts the offline API: `python -m ccd_offline --bind 127.0.0.1:0`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ccd_offline.server import serve


def main() -> int:
    """Serve until stopped; exit code 2 for an address that is not allowed or not free."""
    parser = argparse.ArgumentParser(
        prog="ccd_offline",
        description="A small Messages API on loopback, without a model. It ends with its parent process.",
    )
    parser.add_argument(
        "--bind", default="127.0.0.1:0", metavar="HOST:PORT", help="a loopback address; port 0: any"
    )
    parser.add_argument(
        "--port-file",
        type=Path,
        metavar="PATH",
        help='where to write {"url": "http://…"} when it is ready (by default it is printed)',
    )
    options = parser.parse_args()
    try:
        serve(options.bind, options.port_file)
    except (ValueError, OSError) as error:
        print(f"offline API: cannot serve on {options.bind}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
