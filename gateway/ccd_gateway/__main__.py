"""`python -m ccd_gateway`: run the gateway alone."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ccd_gateway.server.server import run
from ccd_gateway.settings import json_log, load_settings
from ccd_settings import compat, logs
from ccd_settings.settings import SettingsError


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop; exit status 2 for settings that cannot be used."""
    flags = _parser().parse_args(argv)
    if flags.config:
        os.environ["CCD_CONFIG"] = flags.config
    overrides = {f"gateway.{name}": getattr(flags, name) for name in ("bind", "socket", "workers")}
    overrides["gateway.insecure_no_auth"] = flags.insecure_no_auth or None
    try:
        settings = load_settings(os.environ, overrides)
    except SettingsError as error:
        print(f"ccd gateway: {error}", file=sys.stderr)
        return 2
    for note in compat.read(os.environ).notes_for("gateway"):
        logs.say("ccd gateway", note.text, as_json=json_log(os.environ))
    return run(settings, lambda url: print(f"ccd gateway: {url}", file=sys.stderr, flush=True))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ccd_gateway", description="OpenAI-compatible HTTP in front of the ccd daemon."
    )
    parser.add_argument("--bind", metavar="HOST:PORT", help="where to listen (127.0.0.1:8080)")
    parser.add_argument("--socket", metavar="PATH", help="the daemon's socket")
    parser.add_argument("--workers", metavar="N", help="gateway processes (2)")
    parser.add_argument(
        "--insecure-no-auth", action="store_true", help="serve other machines although there is no API key"
    )
    parser.add_argument("--config", metavar="FILE", help="settings file; its [gateway] table is read")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
