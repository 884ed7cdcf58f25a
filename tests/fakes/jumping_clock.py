"""Runs a `ccd` command whose wall clock is off by what a file says: `python -m fakes.jumping_clock worker`."""

from __future__ import annotations

import os
import time
from pathlib import Path

_real = time.time
_file = Path(os.environ["CCD_TEST_CLOCK"])


def _time() -> float:
    return _real() + float(_file.read_text() or 0)


time.time = _time

if __name__ == "__main__":
    from ccd_cli.__main__ import main

    raise SystemExit(main())
