from __future__ import annotations

from typing import Any

import pytest

from ccd_gateway.errors import ApiError
from ccd_gateway.models.routes import page
from fakes.gateway_daemon import Daemon
from fakes.gateway_process import Gateway

VERSION = {"anthropic-version": "2026-10-21"}
OWN = ["claude-sonnet-5-20260115", "sonnet", "vendor/claude-x"]
IDS = [*OWN, *(f"agent/{name}" for name in OWN)]


def test_list(gateway: Gateway, daemon: Daemon) -> None:
    answer = gateway.request("GET", "/v1/models", headers=VERSION).json
    assert [row["id"] for row in answer["data"]] == IDS
    assert answer["data"][0] == {
        "type": "model",
        "id": "claude-sonnet-5-20260115",
        "display_name": "Sonnet 5",
        "created_at": "2026-01-15T00:00:00Z",
        "lifecycle": "active",
    }
    assert answer["data"][2]["created_at"] == "1970-01-01T00:00:00Z"
    assert (answer["has_more"], answer["first_id"], answer["last_id"]) == (False, IDS[0], IDS[-1])
    assert gateway.request("GET", "/v1/models").json["object"] == "list"


def test_one(gateway: Gateway, daemon: Daemon) -> None:
    assert gateway.request("GET", "/v1/models/agent/sonnet", headers=VERSION).json["id"] == "agent/sonnet"
    assert gateway.request("GET", "/v1/models/sonnet").json["object"] == "model"
    missing = gateway.request("GET", "/v1/models/nope", headers=VERSION)
    assert (missing.status, missing.json["error"]["type"]) == (404, "not_found_error")
    assert missing.headers["request-id"] == missing.json["request_id"]


def test_pages(gateway: Gateway, daemon: Daemon) -> None:
    first = gateway.request("GET", "/v1/models?limit=2", headers=VERSION).json
    assert ([row["id"] for row in first["data"]], first["has_more"]) == (IDS[:2], True)
    second = gateway.request("GET", "/v1/models?limit=9&after_id=sonnet", headers=VERSION).json
    assert ([row["id"] for row in second["data"]], second["has_more"]) == (IDS[2:], False)
    assert gateway.request("GET", "/v1/models?limit=0", headers=VERSION).status == 400


def rows(*names: str) -> list[dict[str, Any]]:
    return [{"id": name} for name in names]


def test_backwards_and_bad_pages() -> None:
    assert page(rows("a", "b", "c"), "1", None, "c") == {
        "data": rows("b"),
        "has_more": True,
        "first_id": "b",
        "last_id": "b",
    }
    assert page(rows("a"), None, "a", None) == {
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }
    for limit, after in (("x", None), ("1001", None), ("-1", None), (None, "nope")):
        with pytest.raises(ApiError):
            page(rows("a"), limit, after, None)
