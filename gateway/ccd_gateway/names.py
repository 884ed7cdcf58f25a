"""Names that the older projects' documents give to models, and neither the CLI nor the model API knows."""

from __future__ import annotations

import re

_EXAMPLE = "claude-3"  # in every example of claude_code_api
_EXAMPLE_MEANS = "sonnet"
_SHORT = re.compile(r"(opus|sonnet|haiku)-\d+(?:[.-]\d+)?")


def model_name(name: str) -> str:
    """`opus-4`, `sonnet-4.5` and the like are the CLI's alias, `claude-3` is sonnet; others are themselves."""
    if name == _EXAMPLE:
        return _EXAMPLE_MEANS
    match = _SHORT.fullmatch(name)
    return match[1] if match else name
