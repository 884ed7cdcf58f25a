"""The environment of what is served: this process's own, with the settings file that was named."""

from __future__ import annotations

import os
from pathlib import Path


def chosen(config: Path | None) -> dict[str, str]:
    """A copy of the environment in which `--config` wins over `$CCD_CONFIG`."""
    named = {} if config is None else {"CCD_CONFIG": str(config)}
    return {**os.environ, **named}
