from __future__ import annotations

from typing import Any

import pytest

from ccd_gateway.errors import ApiError
from ccd_gateway.models.listing import find, listing, with_other_names
from fakes.gateway_daemon import MODELS, Daemon
from fakes.gateway_process import Gateway


def test_list(gateway: Gateway, daemon: Daemon) -> None:
    answer = gateway.request("GET", "/v1/models")
    assert answer.status == 200
    assert answer.json["object"] == "list"
    rows = answer.json["data"]
    names = ["claude-sonnet-5-20260115", "sonnet", "vendor/claude-x"]
    assert [row["id"] for row in rows] == [*names, *(f"agent/{name}" for name in names)]
    assert rows[0] == {
        "id": "claude-sonnet-5-20260115",
        "object": "model",
        "created": 1768435200,
        "owned_by": "anthropic",
        "display_name": "Sonnet 5",
    }
    assert rows[2]["created"] == 0


@pytest.mark.parametrize(
    "name",
    [
        "sonnet",
        "vendor/claude-x",
        "vendor%2Fclaude-x",
        "agent/sonnet",
        "agent/vendor/claude-x",
        "chat/sonnet",
    ],
)
def test_one(gateway: Gateway, daemon: Daemon, name: str) -> None:
    answer = gateway.request("GET", f"/v1/models/{name}")
    assert answer.status == 200
    assert answer.json["id"] == name.replace("%2F", "/")
    assert answer.json["object"] == "model"


@pytest.mark.parametrize("name", ["gpt-9", "nobody/sonnet", "agent/gpt-9", "agent/", "a" * 1000])
def test_unknown(gateway: Gateway, daemon: Daemon, name: str) -> None:
    answer = gateway.request("GET", f"/v1/models/{name}")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")


def test_names_of_other_vendors() -> None:
    found: Any = MODELS
    mapped = with_other_names(found, {"gpt-*": "sonnet", "gpt-4o": "sonnet", "gpt-3": "claude-unlisted"})
    assert mapped["gpt-4o"] == {**mapped["sonnet"], "id": "gpt-4o"}
    assert mapped["gpt-3"]["id"] == "gpt-3"
    assert "gpt-*" not in mapped
    assert find(found, "gpt-3", "claude-unlisted")["id"] == "gpt-3"
    assert find(found, "gpt-5", "sonnet")["id"] == "gpt-5"
    assert find(found, "gpt-5", "agent/sonnet")["id"] == "gpt-5"
    with pytest.raises(ApiError):
        find(found, "gpt-3", "nobody/sonnet")


def test_a_date_that_is_none() -> None:
    model = {"id": "claude-20269999-99999999", "alias": None, "display_name": ""}
    found: object = {"models": [model], "profiles": []}
    assert listing(found)["claude-20269999-99999999"]["created"] == 0  # type: ignore[arg-type]
    assert find(MODELS, "chat/sonnet")["id"] == "chat/sonnet"  # type: ignore[arg-type]
