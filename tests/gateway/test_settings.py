from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from ccd_gateway.settings import GatewaySettings, load_settings, max_items
from ccd_settings.settings import SettingsError


def test_defaults() -> None:
    settings = GatewaySettings()
    assert (settings.bind, settings.workers, settings.max_body_bytes) == ("127.0.0.1:8080", 2, 32 << 20)
    assert (settings.keepalive_s, settings.reconnect_wait_s) == (15.0, 10.0)


def test_every_setting_says_what_it_is_for() -> None:
    assert [field.name for field in fields(GatewaySettings) if not field.metadata.get("help")] == []


@pytest.mark.parametrize(
    ("bind", "host"),
    [
        ("127.0.0.1:8080", "127.0.0.1"),
        ("[::1]:80", "::1"),
        (":8080", ""),
        ("Example.org:1", "example.org"),
        ("fd://3", None),
    ],
)
def test_bind_host(bind: str, host: str | None) -> None:
    assert GatewaySettings(bind=bind).bind_host == host


@pytest.mark.parametrize(
    "bind", ["", "8080", "localhost", "localhost:99999", "[zz]:80", "unix:/x", "a b:80", "fd://x"]
)
def test_wrong_bind(bind: str) -> None:
    with pytest.raises(SettingsError, match=r"^gateway: "):
        load_settings({}, {"gateway.bind": bind})


def test_sources_of_settings(tmp_path: Path) -> None:
    path = tmp_path / "ccd.toml"
    path.write_text("[daemon]\nx = 1\n[gateway]\nworkers = 3\nmax_streams = 9\nallowed_hosts = ['a']\n")
    environ = {"CCD_CONFIG": str(path), "CCD_GATEWAY__WORKERS": "4", "CCD_POOL__SPARES": "1"}
    got = load_settings(environ, {"gateway.socket": "/run/x.sock", "gateway.bind": None})
    assert (got.workers, got.max_streams, got.allowed_hosts) == (4, 9, ["a"])
    assert got.socket == Path("/run/x.sock")
    with pytest.raises(SettingsError, match="did you mean CCD_GATEWAY__WORKERS"):
        load_settings({"CCD_GATEWAY__WORKER": "4"}, {})


def test_daemon_socket() -> None:
    assert GatewaySettings(socket=Path("/a")).daemon_socket({"CCD_SOCKET": "/b"}) == Path("/a")
    assert GatewaySettings().daemon_socket({"CCD_SOCKET": "/b"}) == Path("/b")


def test_the_model_map() -> None:
    settings = GatewaySettings(model_map={"gpt-*": "sonnet", "gpt-4o": "opus", "openai/gpt-?": "haiku"})
    names = ("gpt-4o", "gpt-5-mini", "openai/gpt-4", "claude-x", "GPT-4o")
    assert [settings.model_for(name) for name in names] == ["opus", "sonnet", "haiku", "claude-x", "GPT-4o"]


def test_the_longest_list_is_set_in_the_daemon_s_section(tmp_path: Path) -> None:
    file = tmp_path / "ccd.toml"
    file.write_text("[server]\nmax_items = 7\nmax_frame_bytes = 1000000\n")
    assert max_items({"CCD_CONFIG": ""}) == 100_000
    assert max_items({"CCD_CONFIG": str(file)}) == 7
    assert max_items({"CCD_CONFIG": str(file), "CCD_SERVER__MAX_ITEMS": "9"}) == 9
    with pytest.raises(SettingsError, match="CCD_SERVER__MAX_ITEMS"):
        max_items({"CCD_CONFIG": "", "CCD_SERVER__MAX_ITEMS": "0"})


def test_a_data_directory_that_cannot_be_meant_is_not_made(tmp_path: Path) -> None:
    """A gateway that starts there would have none of the keys that it should ask for."""
    environ = {"CCD_CONFIG": "", "CCD_DATA__DIR": str(tmp_path / "new")}
    assert load_settings(environ, {}).keys_file == tmp_path / "new" / "keys.json"
    with pytest.raises(SettingsError, match=r"data\.dir: there is no directory"):
        load_settings({**environ, "CCD_DATA__DIR": str(tmp_path / "mistyped" / "data")}, {})
