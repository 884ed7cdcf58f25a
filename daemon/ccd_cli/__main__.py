"""The `ccd` script: a standard-library shim, so that a base install says what is missing instead of crashing."""

from __future__ import annotations

import importlib
import sys

# What each top-level dependency belongs to; a missing one is reported by the extra that brings it.
_EXTRA_OF = {
    "click": "daemon",
    "rich": "daemon",
    "prompt_toolkit": "daemon",
    "uvloop": "daemon",
    "msgspec": "daemon",
    "psutil": "daemon",
    "jsonschema": "daemon",
    "falcon": "gateway",
    "gunicorn": "gateway",
    "trio": "trio",
    "dbos": "tasks",
    "sqlalchemy": "tasks",
    "standardwebhooks": "tasks",
}

_INTERRUPTED = 130


def main() -> int:
    """Run the `ccd` command; exit status 69 (unavailable) when an extra is not installed."""
    try:
        cli = importlib.import_module("ccd_cli.root")
    except ModuleNotFoundError as error:
        return missing(error)
    except KeyboardInterrupt:
        return _INTERRUPTED
    try:
        cli.main(prog_name="ccd")
    except ModuleNotFoundError as error:
        return missing(error)
    return 0


def missing(error: ModuleNotFoundError) -> int:
    """Name the extra that brings the missing module; anything else is a bug and is raised again."""
    extra = _EXTRA_OF.get((error.name or "").partition(".")[0])
    if extra is None:
        raise error
    print(
        f"ccd: this command needs the '{extra}' extra, which is not installed ({error.name} is missing).\n"
        f"     Install it with:  pip install 'ccdaemon[{extra}]'   (or 'ccdaemon[all]')",
        file=sys.stderr,
    )
    return 69


if __name__ == "__main__":
    raise SystemExit(main())
