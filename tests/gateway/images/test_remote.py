"""Images that requests name by URL, from a server on loopback, through the real gateway."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fakes.gateway_daemon import Daemon
from fakes.gateway_process import Gateway

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
GIF = b"GIF89a" + bytes(20)
FILES = {
    "/a.png": ("image/png", PNG),
    "/b": ("", GIF),
    "/page": ("text/html", PNG),
    "/fake.png": ("image/png", b"x"),
}


class Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Files)
        self.paths: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Files(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        kind, body = FILES.get(self.path, ("", b""))
        self.send_response(200 if body else 404)
        if kind:
            self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the test's output."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def fetching(_daemon: Daemon) -> Iterator[Gateway]:
    with Gateway(_daemon.path, fetch_images="true", fetch_networks=["127.0.0.1"]) as running:
        yield running
    assert running.log == running.greeting


def user(*urls: Any) -> list[dict[str, Any]]:
    parts: list[Any] = [{"type": "text", "text": "?"}]
    return [{"role": "user", "content": parts + [{"type": "image_url", "image_url": url} for url in urls]}]


def sent(daemon: Daemon) -> list[dict[str, Any]]:
    """The sources of the images that reached the daemon."""
    blocks = [block for message in daemon.calls[-1][1]["messages"] for block in message["content"]]
    return [block["source"] for block in blocks if block["type"] == "image"]


def base64_source(kind: str, data: bytes) -> dict[str, str]:
    return {"type": "base64", "media_type": kind, "data": base64.b64encode(data).decode()}


def test_images_are_fetched(fetching: Gateway, daemon: Daemon, server: Server) -> None:
    urls = [{"url": f"{server.url}/a.png"}, f"{server.url}/b"]
    assert fetching.chat(messages=user(*urls)).status == 200
    assert sent(daemon) == [base64_source("image/png", PNG), base64_source("image/gif", GIF)]
    assert fetching.chat(messages=user(*urls), stream=True).status == 200
    assert len(sent(daemon)) == 2 and len(server.paths) == 4


def test_images_of_responses_are_fetched(fetching: Gateway, daemon: Daemon, server: Server) -> None:
    def ask(path: str) -> Any:
        part = {"type": "input_image", "image_url": f"{server.url}{path}"}
        item = {"role": "user", "content": [{"type": "input_text", "text": "?"}, part]}
        return fetching.request("POST", "/v1/responses", {"model": "sonnet", "input": [item]})

    answer = ask("/a.png")
    assert answer.status == 200, answer.body
    assert sent(daemon) == [base64_source("image/png", PNG)]
    listed = fetching.request("GET", f"/v1/responses/{answer.json['id']}/input_items").json["data"]
    assert listed[0]["content"][1]["image_url"] == f"{server.url}/a.png"
    refused = ask("/none")
    assert (refused.status, refused.error["param"][:19]) == (400, "input[0].content[1]")
    assert "Failed to download image: HTTP 404" in refused.error["message"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/none.png", "Failed to download image: HTTP 404"),
        ("/page", "is not an image but 'text/html'"),
        ("/fake.png", "does not hold a JPEG, PNG, GIF or WebP image"),
    ],
)
def test_what_is_no_image(fetching: Gateway, daemon: Daemon, server: Server, path: str, says: str) -> None:
    answer = fetching.chat(messages=user({"url": f"{server.url}/a.png"}, {"url": f"{server.url}{path}"}))
    assert answer.status == 400 and says in answer.error["message"]
    assert answer.error["param"] == "messages[0].content[2].image_url.url"
    assert daemon.calls == []


def test_only_from_where_the_settings_allow(daemon: Daemon, server: Server) -> None:
    with Gateway(daemon.path, fetch_images="true") as public_only:
        for url in (
            server.url,
            server.url.replace("127.0.0.1", "[::ffff:127.0.0.1]"),
            "http://169.254.169.254/x",
        ):
            answer = public_only.chat(messages=user({"url": f"{url}/a.png"}))
            assert answer.status == 400 and "gateway.fetch_networks" in answer.error["message"]
    assert server.paths == []


def test_there_is_a_bound(fetching: Gateway, daemon: Daemon, server: Server) -> None:
    answer = fetching.chat(messages=user(*[{"url": f"{server.url}/a.png"}] * 33))
    assert answer.status == 400 and "32 images" in answer.error["message"]
    assert server.paths == []


def test_by_default_nothing_is_fetched(gateway: Gateway, daemon: Daemon, server: Server) -> None:
    answer = gateway.chat(messages=user({"url": f"{server.url}/a.png"}))
    assert answer.status == 400 and "gateway.fetch_images" in answer.error["message"]
    assert server.paths == []
    assert gateway.chat(messages=user({"url": "https://example.com/a.png"})).status == 200
    assert sent(daemon) == [{"type": "url", "url": "https://example.com/a.png"}]
