import json
from pathlib import Path

import pytest

from ccd_daemon import config
from ccd_settings.settings import SettingsError


def test_defaults(tmp_path: Path) -> None:
    settings = config.read({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/1"})
    assert settings.pool.spares == 2
    assert settings.max_workers >= 4
    assert settings.queue.max_waiting == 64
    assert settings.deadlines.first_output_s == 90
    assert settings.deadlines.stall_s == 120
    assert settings.profiles["chat"].prefork
    assert settings.data_dir.name == "ccd"


def test_order_file_then_variables_then_flags(tmp_path: Path) -> None:
    file = tmp_path / "ccd.toml"
    file.write_text(
        '[pool]\nspares = 3\nmax_workers = 7\n[queue]\nmax_waiting = 9\n[profiles.fast]\nmodel = "haiku"\n'
    )
    environ = {
        "HOME": str(tmp_path),
        "CCD_CONFIG": str(file),
        "CCD_POOL__MAX_WORKERS": "8",
        "CCD_SOCKET": "/tmp/a/b.sock",
    }
    settings = config.read(environ, overrides={"queue.max_waiting": "10"})
    assert (settings.pool.spares, settings.max_workers, settings.queue.max_waiting) == (3, 8, 10)
    assert settings.profiles["fast"].model == "haiku"
    assert settings.profiles["chat"].prefork
    assert settings.socket == Path("/tmp/a/b.sock")
    assert settings.source == file


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("CCD_POOL__SPARES", "two", "CCD_POOL__SPARES"),
        ("CCD_POOL__SPARE", "2", "CCD_POOL__SPARES"),
        ("CCD_POLO__SPARES", "2", "CCD_POLO"),
        ("CCD_ENGINE__BODY", "best", "auto"),
        ("CCD_POOL__RSS_HARD_BYTES", "1048576", "rss_soft_bytes"),
    ],
)
def test_mistakes_are_named(variable: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        config.read({"HOME": "/nonexistent", variable: value})


def test_profile_names_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "ccd.toml"
    file.write_text('[profiles."a/b"]\n')
    with pytest.raises(SettingsError, match="lower-case"):
        config.read({"HOME": str(tmp_path), "CCD_CONFIG": str(file)})


def test_the_gateways_section_is_left_to_the_gateway(tmp_path: Path) -> None:
    file = tmp_path / "ccd.toml"
    file.write_text('[gateway]\nbind = "127.0.0.1:1"\n')
    assert (
        config.read({"HOME": str(tmp_path), "CCD_CONFIG": str(file), "CCD_GATEWAY__WORKERS": "1"}).source
        == file
    )


def test_directories_that_are_not_there_stop_the_start(tmp_path: Path) -> None:
    def settings(**environ: str) -> config.Settings:
        return config.read({"HOME": str(tmp_path), **environ})

    config.check_places(settings(CCD_DATA__DIR=str(tmp_path / "data")))
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    for key, value, words in (
        ("CCD_DATA__DIR", tmp_path / "none" / "data", "data.dir"),
        ("CCD_DATA__DIR", tmp_path / "file", "data.dir"),
        ("CCD_SESSIONS__ROOTS", [str(tmp_path / "none")], "sessions.roots"),
        ("CCD_SESSIONS__ROOTS", [str(tmp_path), str(tmp_path / "file")], "sessions.roots"),
    ):
        text = json.dumps(value) if isinstance(value, list) else str(value)
        with pytest.raises(SettingsError, match=words):
            config.check_places(settings(**{key: text}))


@pytest.mark.parametrize("source", ["project", "local"])
def test_settings_of_a_project_are_code_and_need_trust(source: str) -> None:
    environ = {"HOME": "/nonexistent", "CCD_SESSIONS__SETTING_SOURCES": json.dumps(["user", source])}
    with pytest.raises(SettingsError, match="trust_projects"):
        config.read(environ)
    trusting = config.read({**environ, "CCD_SESSIONS__TRUST_PROJECTS": "true"})
    assert trusting.sessions.setting_sources == ["user", source]
    assert config.read({"HOME": "/x", "CCD_SESSIONS__SETTING_SOURCES": '["user"]'}).sessions.setting_sources
