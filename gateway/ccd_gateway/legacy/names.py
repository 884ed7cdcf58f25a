"""Names that claude-code-api's documents give to models, and the CLI does not know."""

from __future__ import annotations

import re

_SHORT = re.compile(r"(opus|sonnet|haiku)-\d+(?:[.-]\d+)?")


def model_name(name: str) -> str:
    """`opus-4`, `opus-4.1`, `sonnet-4` and the like are the CLI's alias; every other name is itself."""
    match = _SHORT.fullmatch(name)
    return match[1] if match else name
