"""A schema is a program of its caller: nothing outside is read, nothing asked in vain, and nobody else waits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccd_client import Client
from ccd_protocol.errors import RpcError
from fakes.offline_api import directive
from fakes.session_socket import ask
from fakes.stack import Api, Stack, running_stack

ROUTES = ("chat", "chat streamed", "responses", "chat.complete", "chat.stream")
PING_S = 0.25  # far below the check's deadline, far above what a busy machine makes of a ping


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("schemas")
    settings = {"CCD_DATA__DIR": str(folder), "CCD_DEADLINES__CHECK_S": "1"}
    with running_stack(folder, cli, api, gateway=True, **settings) as stack:
        yield stack


def answered(stack: Stack, route: str, schema: dict[str, Any], says: str) -> str:
    """What came of it: the text of the answer or of the failure."""
    prompt = "Answer. " + directive(text=says)
    if route.startswith("chat."):
        with Client(stack.socket) as client:
            form = {"type": "json_schema", "schema": schema}
            params = {"messages": [{"role": "user", "content": prompt}], "format": form}
            try:
                if route == "chat.complete":
                    return str(client.call(route, params)["text"])
                with client.stream(route, params) as stream:
                    return b"".join(stream).decode()
            except RpcError as error:
                return f"{error.code.name} {error.message}"
    if route == "responses":
        form = {"type": "json_schema", "name": "x", "schema": schema}
        body: dict[str, Any] = {"model": "haiku", "input": prompt, "text": {"format": form}}
        found = ask(stack.url, "POST", "/v1/responses", body)
    else:
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        messages = [{"role": "user", "content": prompt}]
        body = {"model": "haiku", "messages": messages, "response_format": form}
        found = ask(stack.url, "POST", "/v1/chat/completions", {**body, "stream": "streamed" in route})
    return f"{found.status} {found.body.decode()}"


@pytest.mark.parametrize("route", ROUTES)
def test_no_reference_leads_outside(stack: Stack, api: Api, tmp_path: Path, route: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"type": "string", "const": "s3cr3t"}')
    asked = len(api.requests())
    for target in (secret.as_uri(), f"{api.url}/v1/models", "other.json"):
        for schema in ({"$ref": target}, {"properties": {"a": {"items": {"$dynamicRef": target}}}}):
            text = answered(stack, route, {"type": "object", **schema}, "{}")
            assert text.startswith(("400", "BAD_PARAMS")) and "must begin with '#'" in text
            assert "s3cr3t" not in text
    assert len(api.requests()) == asked, "refused before the model is asked, and nothing was fetched"


@pytest.mark.parametrize("route", ROUTES)
def test_deep_and_large_ones_are_refused_in_one_line(stack: Stack, route: str) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(100):
        schema = {"type": "object", "properties": {"a": schema}}
    text = answered(stack, route, schema, "{}")
    assert text.startswith(("400", "BAD_PARAMS")) and "levels deep" in text
    text = answered(stack, route, {"type": "object", "required": ["x"] * 12_000}, "{}")
    assert text.startswith(("400", "BAD_PARAMS")) and "values" in text
    assert "Traceback" not in (stack.folder / "daemon.log").read_text()


@pytest.mark.parametrize("route", ROUTES)
def test_nobody_else_waits(stack: Stack, route: str) -> None:
    """The daemon answers pings and chats of others while a check takes all the time that it may."""
    slowest, over = 0.0, threading.Event()
    pattern = {"type": "string", "pattern": "^(a+)+$"}
    texts: list[str] = []

    def attack() -> None:
        texts.append(answered(stack, route, pattern, json.dumps("a" * 64 + "!")))
        over.set()

    thread = threading.Thread(target=attack)
    thread.start()
    with Client(stack.socket) as client:
        while not over.is_set():
            begun = time.monotonic()
            client.ping()
            slowest = max(slowest, time.monotonic() - begun)
    thread.join()
    assert slowest < PING_S, "one caller stopped the daemon"
    assert "cannot be checked against the schema within 1 s" in texts[0]


def test_the_usual_ones_are_still_checked(stack: Stack) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"$ref": "#/$defs/n"}},
        "$defs": {"n": {"minimum": 5}},
        "required": ["n"],
    }
    for route in ROUTES:
        assert '"n"' in answered(stack, route, schema, '{"n": 7}').replace("\\", "")
    assert "UPSTREAM_ERROR" in answered(stack, "chat.stream", schema, '{"n": 1}')
