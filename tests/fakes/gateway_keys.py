"""API keys for tests."""

from __future__ import annotations

from pathlib import Path

from ccd_gateway.access.keyfile import changing, make


def add_key(path: Path, name: str = "app", **limits: object) -> str:
    """Make a key in a file; returns its token."""
    with changing(path) as keys:
        key, token = make(name, **limits)  # type: ignore[arg-type]
        keys[key.id] = key
    return token


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
