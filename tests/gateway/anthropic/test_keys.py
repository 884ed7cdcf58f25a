"""API keys on the paths of the Messages API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fakes.gateway_daemon import Daemon, line, start
from fakes.gateway_keys import add_key, bearer
from fakes.gateway_process import Gateway

BODY: dict[str, Any] = {"model": "sonnet", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
END = line({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}})


@pytest.fixture(scope="module")
def keyed(_daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, str, str]]:
    folder = tmp_path_factory.mktemp("keys")
    token = add_key(folder / "keys.json")
    narrow = add_key(folder / "keys.json", "narrow", models=("sonnet",))
    files = {"keys_file": folder / "keys.json", "usage_file": folder / "usage.sqlite3"}
    with Gateway(_daemon.path, **files) as gateway:
        yield gateway, token, narrow


def test_both_forms_of_a_key_are_taken(keyed: tuple[Gateway, str, str], daemon: Daemon) -> None:
    gateway, token, _ = keyed
    daemon.chat(start(), END)
    for headers in ({"x-api-key": token}, bearer(token)):
        assert gateway.request("POST", "/v1/messages", BODY, headers).status == 200
    assert len({params["tenant"] for _, params in daemon.calls if "tenant" in params}) == 1


def test_no_key_and_a_wrong_one_are_refused_alike(keyed: tuple[Gateway, str, str], daemon: Daemon) -> None:
    gateway = keyed[0]
    for headers in ({}, {"x-api-key": "ccd_wrong"}, {"Authorization": "Bearer ccd_wrong"}):
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            answer = gateway.request("POST", path, BODY, headers)
            assert (answer.status, answer.json["error"]["type"]) == (401, "authentication_error")
            assert answer.json["request_id"] == answer.headers["request-id"]
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "opus"},
        {"fallbacks": [{"model": "opus"}]},
        {"fallbacks": "default"},
        {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "opus"}]},
    ],
)
def test_no_part_of_a_request_names_a_model_that_the_key_may_not_use(
    keyed: tuple[Gateway, str, str], daemon: Daemon, fields: dict[str, Any]
) -> None:
    gateway, token, narrow = keyed
    daemon.chat(start(), END)
    allowed = gateway.request("POST", "/v1/messages", BODY, bearer(narrow))
    assert allowed.status == 200
    answer = gateway.request("POST", "/v1/messages", BODY | fields, bearer(narrow))
    assert (answer.status, answer.json["error"]["type"]) == (404, "not_found_error")
    assert gateway.request("POST", "/v1/messages", BODY | fields, bearer(token)).status == 200
