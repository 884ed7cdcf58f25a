from __future__ import annotations

import pytest

from ccd_settings.values import RawText, SettingsError, Where, convert


def read(name: str, kind: type, value: object) -> object:
    return convert(kind, value, Where("f.toml", ("pool", name)), {})


@pytest.mark.parametrize("as_text", [str, RawText])
@pytest.mark.parametrize(
    ("name", "kind", "text", "value"),
    [
        ("rss_hard_bytes", int, "2G", 2 << 30),
        ("rss_hard_bytes", int, "512 MiB", 512 << 20),
        ("rss_hard_bytes", int, "1.5k", 1536),
        ("rss_hard_bytes", int, "10b", 10),
        ("timeout_s", float, "30s", 30.0),
        ("timeout_s", float, "5m", 300.0),
        ("timeout_s", float, "250ms", 0.25),
        ("timeout_s", float, "2d", 172800.0),
        ("patience_ms", int, "5s", 5000),
    ],
)
def test_amounts_have_units(name: str, kind: type, text: str, value: object, as_text: type) -> None:
    assert read(name, kind, as_text(text)) == value


def test_numbers_are_what_they_were() -> None:
    assert read("rss_hard_bytes", int, 2147483648) == 2147483648
    assert read("rss_hard_bytes", int, RawText("2147483648")) == 2147483648
    assert read("timeout_s", float, 30) == 30.0
    assert read("timeout_s", float, RawText("0.5")) == 0.5


@pytest.mark.parametrize(
    ("name", "kind", "text", "told"),
    [
        ("rss_hard_bytes", int, "2X", "a whole number (or text like 2G or 512M), got '2X'"),
        ("rss_hard_bytes", int, "1.0001b", "a whole number"),
        ("timeout_s", float, "soon", "a number (or text like 30s or 5m), got 'soon'"),
        ("timeout_s", float, "30", "a number"),
        ("max_workers", int, "2G", "a whole number, got '2G'"),
        ("timeout_s", float, "-5s", "a number"),
    ],
)
def test_what_is_no_amount_is_told(name: str, kind: type, text: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(name, kind, text)
    assert told in str(caught.value) and "f.toml: pool." in str(caught.value)
