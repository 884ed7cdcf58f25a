"""Settings read again: what changes, what waits, and that a wrong file changes nothing."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from ccd_daemon.config import SECTIONS, Settings, read
from ccd_daemon.reload import _LIVE, Reloading, differences
from ccd_protocol.errors import Code, RpcError
from ccd_settings.settings import SettingsError


class PoolStandIn:
    """Notes what the pool is told."""

    def __init__(self) -> None:
        self.adapted = 0
        self.rolled = 0

    def adapt(self) -> None:
        self.adapted += 1

    def roll(self) -> None:
        self.rolled += 1


def settings(**environ: str) -> Settings:
    return read({"HOME": "/nonexistent", **environ})


def reloading(old: Settings, **environ: str) -> tuple[Reloading, PoolStandIn]:
    pool: Any = PoolStandIn()
    return Reloading(old, lambda: settings(**environ), pool), pool


def test_nothing_is_different() -> None:
    assert differences(settings(), settings()) == []
    once, pool = reloading(settings())
    assert once.reload() == {"changed": [], "pending": []} and pool.rolled == 0


def test_what_can_change_does_and_the_rest_waits() -> None:
    old = settings()
    once, pool = reloading(old, CCD_POOL__SPARES="3", CCD_QUEUE__TIMEOUT_S="5", CCD_CACHE__ENABLED="true")
    assert once.reload() == {"changed": ["pool.spares", "queue.timeout_s"], "pending": ["cache.enabled"]}
    assert (old.pool.spares, old.queue.timeout_s, old.cache.enabled) == (3, 5.0, False)
    assert pool.adapted == 1 and pool.rolled == 0
    assert once.reload() == {"changed": [], "pending": ["cache.enabled"]}


def test_what_a_process_is_started_with_replaces_the_idle_ones() -> None:
    old = settings(CCD_PROFILES__CHAT__ENV='{"A": "1"}')
    once, pool = reloading(old, CCD_PROFILES__CHAT__ENV='{"A": "2"}')
    assert once.reload()["changed"] == ["profiles.chat.env"]
    assert old.profiles["chat"].env == {"A": "2"} and pool.rolled == 1


def test_a_profile_that_comes_or_goes_waits() -> None:
    once, _ = reloading(settings(CCD_PROFILES__OLD__MODEL="haiku"), CCD_PROFILES__NEW__MODEL="opus")
    assert once.reload() == {"changed": [], "pending": ["profiles.new", "profiles.old"]}


def test_wrong_settings_change_nothing() -> None:
    old = settings()

    def broken() -> Settings:
        raise SettingsError("/etc/ccd/ccd.toml:3: pool.spares: expected a number", "another")

    pool: Any = PoolStandIn()
    with pytest.raises(RpcError) as refused:
        Reloading(old, broken, pool).reload()
    assert refused.value.code is Code.BAD_PARAMS
    assert refused.value.data["problems"] == [
        "/etc/ccd/ccd.toml:3: pool.spares: expected a number",
        "another",
    ]
    assert old == settings() and pool.adapted == 0


def test_every_live_pattern_is_of_a_setting_that_there_is() -> None:
    names = {
        f"{section}.{field.name}"
        for section, kind in SECTIONS.items()
        if is_dataclass(kind)
        for field in fields(kind)
    }
    live = {name for name in names if _LIVE.fullmatch(name)}
    assert {"pool.spares", "log.level", "deadlines.turn_s", "sessions.idle_s"} <= live
    assert not live & {"server.socket", "data.dir", "engine.body", "log.format", "deadlines.check_s"}
