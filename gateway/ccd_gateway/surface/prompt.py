"""A prompt as the Messages API has it: what a message and a count of its tokens have in common. Pure."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

Blocks = str | list[dict[str, Any]]
Object = dict[str, Any]


class Prompt(Struct, kw_only=True):
    """All that the model reads. Null and absent mean the same."""

    model: Annotated[str, Meta(min_length=1, max_length=512)]
    messages: Annotated[list[Object], Meta(min_length=1)]
    system: Blocks | None = None
    tools: list[Object] | None = None
    tool_choice: Object | None = None
    thinking: Object | None = None
    output_config: Object | None = None
    output_format: Object | None = None
    context_management: Object | None = None
    mcp_servers: list[Object] | None = None
    cache_control: Object | None = None
    speed: str | None = None
