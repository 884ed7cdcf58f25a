"""What a version is known to be able to do."""

from __future__ import annotations

import pytest

from ccd_daemon.claude.capability import capabilities


def test_the_versions_that_were_tried() -> None:
    new, old = capabilities("2.1.330"), capabilities("2.1.197")
    assert all(new.values())
    assert old == {**new, "client_composed": False, "get_binary_version": False, "await_claim": False}


@pytest.mark.parametrize("version", [None, "unknown", ""])
def test_nothing_is_claimed_of_an_unknown_version(version: str | None) -> None:
    assert set(capabilities(version).values()) == {None}


def test_between_two_tried_versions_it_is_not_known() -> None:
    between = capabilities("2.1.250")
    assert between["extra_body"] is True
    assert between["client_composed"] is None
    assert capabilities("2.0.1")["supported"] is False
    assert capabilities("3.0.0")["await_claim"] is True


def test_what_the_cli_announces_is_added_and_bounded() -> None:
    found = capabilities("2.1.330", ["ui_surface_v1", "x" * 1000, *map(str, range(1000))])
    assert found["ui_surface_v1"] is True
    assert len(found) < 60
    assert max(map(len, found)) <= 60
