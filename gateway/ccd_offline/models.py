"""The models that the offline API pretends to have, and what each of them refuses.

The rows follow the public model documentation and the capability table that the CLI (2.1.330) carries:
which models think adaptively, which no longer take sampling parameters, and which cannot be told not to
think.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class PretendedModel(NamedTuple):
    """One model and its limits."""

    id: str
    max_output_tokens: int
    context_tokens: int
    thinks: bool  # takes `thinking` at all
    adaptive: bool  # takes thinking.type "adaptive" and output_config.effort; takes no assistant prefill
    sampling: bool  # takes temperature, top_p and top_k other than their defaults
    both_samplers: bool  # takes temperature and top_p together
    always_thinks: bool  # refuses thinking.type "disabled"
    notes: bool  # takes messages of role "system" in mid-conversation

    @property
    def display_name(self) -> str:
        """The name to show, derived from the id."""
        words = self.id.removeprefix("claude-").split("-")
        names = [word.capitalize() for word in words if not word[0].isdigit()]
        return " ".join(["Claude", *names, ".".join(word for word in words if word[0].isdigit())])


def _row(id: str, output_tokens: int, context_k: int, flags: str) -> PretendedModel:
    """Flags: t thinks, a adaptive, s sampling, b both samplers, n never stops thinking, m notes."""
    return PretendedModel(id, output_tokens, context_k * 1000, *(flag in flags for flag in "tasbnm"))


_ROWS = (
    _row("claude-opus-5-5", 128_000, 1000, "tanm"),
    _row("claude-sonnet-5-5", 128_000, 1000, "tanm"),
    _row("claude-haiku-5-5", 128_000, 1000, "tanm"),
    _row("claude-fable-5-2", 128_000, 1000, "tanm"),
    _row("claude-fable-5-1", 128_000, 1000, "tanm"),
    _row("claude-fable-5", 128_000, 1000, "tanm"),
    _row("claude-opus-5", 128_000, 1000, "tam"),
    _row("claude-sonnet-5", 128_000, 1000, "tam"),
    _row("claude-opus-4-8", 128_000, 1000, "tam"),
    _row("claude-opus-4-7", 128_000, 1000, "ta"),
    _row("claude-opus-4-6", 128_000, 200, "tas"),
    _row("claude-sonnet-4-6", 128_000, 200, "tas"),
    _row("claude-opus-4-5", 64_000, 200, "ts"),
    _row("claude-haiku-4-5", 64_000, 200, "ts"),
    _row("claude-sonnet-4-5", 64_000, 200, "ts"),
    _row("claude-opus-4-1", 32_000, 200, "ts"),
    _row("claude-sonnet-4-0", 64_000, 200, "tsb"),
    _row("claude-opus-4-0", 32_000, 200, "tsb"),
    _row("claude-3-7-sonnet", 64_000, 200, "tsb"),
    _row("claude-3-5-sonnet", 8_192, 200, "sb"),
    _row("claude-3-5-haiku", 8_192, 200, "sb"),
    _row("claude-3-opus", 4_096, 200, "sb"),
    _row("claude-3-sonnet", 4_096, 200, "sb"),
    _row("claude-3-haiku", 4_096, 200, "sb"),
)

MODELS = {row.id: row for row in _ROWS}
_ALIASES = {"claude-opus-4": "claude-opus-4-0", "claude-sonnet-4": "claude-sonnet-4-0"}
_SUFFIX = re.compile(r"-(\d{8}|latest)$")


def find(name: str) -> PretendedModel | None:
    """The model of that name, with or without a date or `-latest` at its end."""
    stem = _SUFFIX.sub("", name)
    return MODELS.get(_ALIASES.get(stem, stem))


def listing() -> list[dict[str, str]]:
    """The entries of `GET /v1/models`, newest first."""
    return [entry(model) for model in _ROWS]


def entry(model: PretendedModel) -> dict[str, str]:
    """One entry of `GET /v1/models`. The date is a placeholder: this API released nothing."""
    return {
        "type": "model",
        "id": model.id,
        "display_name": f"{model.display_name} (offline)",
        "created_at": "2026-01-01T00:00:00Z",
    }
