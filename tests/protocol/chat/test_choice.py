"""What `profile` and `model` of a chat name together."""

from __future__ import annotations

from itertools import product

import pytest

from ccd_protocol.chat.choice import Choice, chosen
from ccd_protocol.errors import Code, RpcError

PROFILES = ("chat", "work")


@pytest.mark.parametrize(
    ("profile", "model", "expected"),
    [
        (None, None, ("chat", None)),
        (None, "", ("chat", None)),
        (None, "default", ("chat", None)),
        (None, "opus", ("chat", "opus")),
        (None, "work", ("work", None)),
        (None, "work/opus", ("work", "opus")),
        (None, "work/", ("work", None)),
        (None, "work/default", ("work", None)),
        (None, "work/chat", ("work", "chat")),
        (None, "work/work/opus", ("work", "opus")),
        (None, "vendor/opus", ("chat", "vendor/opus")),
        ("work", None, ("work", None)),
        ("work", "opus", ("work", "opus")),
        ("work", "work/opus", ("work", "opus")),
        ("work", "work", ("work", "work")),
        ("", "opus", ("chat", "opus")),
        ("nowhere", "opus", ("nowhere", "opus")),
    ],
)
def test_what_is_named(profile: str | None, model: str | None, expected: tuple[str, str | None]) -> None:
    assert chosen(profile, model, PROFILES) == expected


@pytest.mark.parametrize(
    ("profile", "model"), [("chat", "work/opus"), (None, "work/chat/opus"), ("nowhere", "work/opus")]
)
def test_two_profiles_are_one_too_many(profile: str | None, model: str) -> None:
    with pytest.raises(RpcError) as caught:
        chosen(profile, model, PROFILES)
    assert (caught.value.code, caught.value.data["param"]) == (Code.BAD_PARAMS, "model")


def test_a_choice_that_was_made_is_made_again_to_the_same() -> None:
    parts = ("", "chat", "work", "opus", "default", "x")
    models = [None, *("/".join(way) for n in (1, 2, 3) for way in product(parts, repeat=n))]
    for profile, model in product((None, "chat", "work"), models):
        try:
            first = chosen(profile, model, PROFILES)
        except RpcError:
            continue
        assert isinstance(first, Choice)
        assert chosen(*first, PROFILES) == first
