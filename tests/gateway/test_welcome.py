from __future__ import annotations

from typing import Any

from fakes.gateway_daemon import HEALTHY, Call, Daemon
from fakes.gateway_process import Gateway


def test_a_shell_gets_text_with_a_command_to_copy(gateway: Gateway, daemon: Daemon) -> None:
    answer = gateway.request("GET", "/", headers={"Accept": "*/*"})
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    text = answer.body.decode()
    assert text.startswith("ccd is running.\n")
    assert "/v1/chat/completions -H 'Content-Type: application/json' -d '" in text
    for path in ("/v1/models", "/health", "/openapi.json"):
        assert path in text and gateway.request("GET", path).status == 200


def test_a_browser_gets_a_page_in_which_nothing_of_the_request_is_markup(gateway: Gateway) -> None:
    answer = gateway.request("GET", "/", headers={"Accept": "text/html,application/xhtml+xml"})
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert b"<h1>ccd is running.</h1>" in answer.body and b'href="/openapi.json"' in answer.body
    asked = gateway.request("GET", "/", headers={"Accept": "text/html", "Host": "127.0.0.1:1<script>"})
    assert b"<script>" not in asked.body


def test_it_says_when_it_cannot_answer(gateway: Gateway, daemon: Daemon) -> None:
    async def degraded(call: Call) -> Any:
        return {**HEALTHY, "ready": False, "state": "degraded", "reason": "no <login>"}

    daemon.scripts["daemon.health"] = degraded
    assert b"it cannot answer now: no <login>" in gateway.request("GET", "/").body
    page = gateway.request("GET", "/", headers={"Accept": "text/html"}).body
    assert b"no &lt;login&gt;" in page
