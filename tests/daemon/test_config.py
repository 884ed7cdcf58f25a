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
