from __future__ import annotations

import pytest

from ccd_gateway.errors import ApiError
from ccd_gateway.surface.address import target


@pytest.mark.parametrize(
    ("model", "header", "wanted"),
    [
        ("sonnet", None, (None, "sonnet")),
        ("agent/sonnet", None, ("agent", "sonnet")),
        ("agent/a/b", None, ("agent", "a/b")),
        ("agent/", None, ("agent", None)),
        ("agent/sonnet", "chat", ("chat", "agent/sonnet")),
        (
            "arn:aws:bedrock:eu:1:inference-profile/x",
            None,
            (None, "arn:aws:bedrock:eu:1:inference-profile/x"),
        ),
        ("/x", None, (None, "/x")),
    ],
)
def test_target(model: str, header: str | None, wanted: tuple[str | None, str | None]) -> None:
    assert target(model, header) == wanted


@pytest.mark.parametrize("header", ["", "a b", "a/b", "x" * 65])
def test_wrong_profile_header(header: str) -> None:
    with pytest.raises(ApiError) as caught:
        target("m", header)
    assert caught.value.error["param"] == "X-CCD-Profile"
