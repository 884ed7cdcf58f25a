"""What there is to complete with. A shell waits for it, so nothing is waited for, and what fails gives no words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

_TIMEOUT_S = 1.0


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names and aliases of models, and profiles before a slash."""

    def found(answer: Any) -> Iterable[str]:
        for model in answer["models"]:
            yield from (name for name in (model["alias"], model["id"]) if name)
        yield from (f"{profile}/" for profile in answer["profiles"])

    return _of_daemon(ctx, incomplete, found)


def profiles(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of profiles."""
    return _of_daemon(ctx, incomplete, lambda answer: answer["profiles"])


def keys(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the gateway's keys."""
    from ccd_gateway.access import keyfile  # noqa: PLC0415
    from ccd_gateway.settings import load_settings  # noqa: PLC0415

    try:
        chosen: Path | None = ctx.params.get("keys_file")
        found = keyfile.read(chosen or load_settings(os.environ, {}).keys_path(os.environ))
    except Exception:
        return []
    return sorted(key.name for key in found.values() if key.name.startswith(incomplete))


def _of_daemon(ctx: click.Context, incomplete: str, words: Callable[[Any], Iterable[str]]) -> list[str]:
    from ccd_client import Client  # noqa: PLC0415
    from ccd_settings.settings import config_path, socket_in_force  # noqa: PLC0415

    try:
        socket = ctx.params.get("socket") or socket_in_force(os.environ, config_path(os.environ))
        with Client(socket, timeout_s=_TIMEOUT_S) as client:
            found = list(words(client.models()))
    except Exception:
        return []
    return [word for word in found if word.startswith(incomplete)]
