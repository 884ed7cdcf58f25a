"""Where the socket is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ccd_settings import paths


def test_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = tmp_path / "system.sock"
    monkeypatch.setattr(paths, "SYSTEM_SOCKET", system)
    runtime = {"XDG_RUNTIME_DIR": "/run/user/7"}
    assert paths.socket_path({"CCD_SOCKET": "/x", **runtime}) == Path("/x")
    assert paths.socket_path(runtime) == Path("/run/user/7/ccd/ccd.sock")
    assert paths.socket_path({}) == Path(f"/tmp/ccd-{os.getuid()}/ccd.sock")
    system.touch()
    assert paths.socket_path(runtime) == system
