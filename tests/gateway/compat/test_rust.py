"""The Rust project's HTTP surface, in front of a stand-in for the daemon."""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccd_protocol.errors import Code, RpcError
from fakes.gateway_daemon import CONVERSATION, Call, Daemon, start, text
from fakes.gateway_keys import add_key, bearer
from fakes.gateway_process import Gateway, events

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def compatible(_daemon: Daemon) -> Iterator[Gateway]:
    """A gateway where every answer belongs to a conversation."""
    with Gateway(_daemon.path, always_conversations="true") as running:
        yield running


def conversations(daemon: Daemon) -> None:
    async def answer(call: Call) -> Any:
        if call.params.get("conversation_id") in ("unknown", "a\x07b"):
            raise RpcError(Code.NOT_FOUND)
        return CONVERSATION

    for name in ("get", "delete"):
        daemon.scripts[f"conversation.{name}"] = answer


def test_a_conversation_is_passed_on_and_named_in_the_answer(gateway: Gateway, daemon: Daemon) -> None:
    answer = gateway.chat(conversation_id="my-session-123")
    assert answer.json["conversation_id"] == answer.headers["x-conversation-id"] == "my-session-123"
    params = daemon.calls[-1][1]
    assert (params["conversation_id"], params["tenant"]) == ("my-session-123", "local")


def test_without_a_name_nothing_is_stored(gateway: Gateway, daemon: Daemon) -> None:
    for answer in (gateway.chat(), gateway.chat(conversation_id=None), gateway.chat(conversation_id="")):
        assert "conversation_id" not in answer.json
        assert "x-conversation-id" not in answer.headers
        assert "conversation_id" not in daemon.calls[-1][1]


def test_every_answer_belongs_to_a_conversation_where_that_is_set(
    compatible: Gateway, daemon: Daemon
) -> None:
    first, second = compatible.chat().json["conversation_id"], compatible.chat().json["conversation_id"]
    assert UUID.fullmatch(first) and UUID.fullmatch(second) and first != second
    assert daemon.calls[-1][1]["conversation_id"] == second
    assert "conversation_id" not in compatible.chat(n=2).json


def test_a_stream_names_it_in_the_first_and_the_last_chunk(gateway: Gateway, daemon: Daemon) -> None:
    daemon.chat(start() + text("hi"))
    answer = gateway.chat(stream=True, conversation_id="né", stream_options={"include_usage": True})
    assert answer.headers["x-conversation-id"] == "n%C3%A9"
    *chunks, usage, done = events(answer.body)
    assert [chunk.get("conversation_id") for chunk in chunks] == ["né", *[None] * (len(chunks) - 2), "né"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"]["total_tokens"] and done == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_chat_begins_no_conversation(compatible: Gateway, daemon: Daemon, stream: bool) -> None:
    daemon.fail(Code.UPSTREAM_OVERLOADED)
    answer = compatible.chat(stream=stream)
    assert answer.status == 503 and "x-conversation-id" not in answer.headers


@pytest.mark.parametrize("name", ["a\nb", "x" * 201, 7, ["a"]])
def test_a_name_that_cannot_be_one(gateway: Gateway, daemon: Daemon, name: Any) -> None:
    answer = gateway.chat(conversation_id=name)
    assert (answer.status, answer.error["param"]) == (400, "conversation_id")
    assert daemon.calls == []


def test_several_answers_cannot_be_part_of_one(gateway: Gateway, daemon: Daemon) -> None:
    answer = gateway.chat(conversation_id="mine", n=2)
    assert (answer.status, answer.error["param"]) == (400, "n")


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("opus-4.1", "opus"),
        ("opus-4", "opus"),
        ("sonnet-4", "sonnet"),
        ("claude-3", "sonnet"),
        ("claude-opus-4-1-20250805", "claude-opus-4-1-20250805"),
        ("claude-3-7-sonnet-latest", "claude-3-7-sonnet-latest"),
        ("claude-3-haiku-20240307", "claude-3-haiku-20240307"),
    ],
)
def test_every_advertised_model_is_forwarded(gateway: Gateway, daemon: Daemon, asked: str, sent: str) -> None:
    assert gateway.chat(model=asked).json["model"] == asked
    assert daemon.calls[-1][1]["model"] == sent


def test_create(gateway: Gateway, daemon: Daemon) -> None:
    conversations(daemon)
    answer = gateway.request("POST", "/v1/conversations", {"model": "sonnet", "project_path": "/p", "x": 1})
    assert answer.status == 200
    assert answer.json == {
        "id": "mine",
        "created_at": "2026-01-01T00:00:00.250000000Z",
        "updated_at": "2026-01-01T00:00:01.500000000Z",
        "message_count": 4,
        "metadata": {"model": "sonnet", "total_tokens": 77, "turn_count": 4, "project_path": None},
    }
    metadata = {"model": "sonnet", "project_path": "/p"}
    assert daemon.calls == [("conversation.create", {"tenant": "local", "metadata": metadata})]
    assert gateway.request("POST", "/v1/conversations", {}).status == 200


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model": 1}'])
def test_create_wants_an_object(gateway: Gateway, daemon: Daemon, body: bytes) -> None:
    answer = gateway.request("POST", "/v1/conversations", body)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")


def test_list_get_and_delete(gateway: Gateway, daemon: Daemon) -> None:
    conversations(daemon)
    listed = gateway.request("GET", "/v1/conversations").json
    assert listed == {"conversations": [{"id": "mine", "updated_at": "2026-01-01T00:00:01.500000000Z"}]}
    assert gateway.request("GET", "/v1/conversations/mine").json["message_count"] == 4
    deleted = gateway.request("DELETE", "/v1/conversations/mine")
    assert (deleted.status, deleted.json["deleted"], deleted.json["id"]) == (200, True, "mine")
    assert gateway.request("DELETE", "/v1/sessions/mine").json == {"deleted": True, "session_id": "mine"}
    assert daemon.calls[-1] == ("conversation.delete", {"tenant": "local", "conversation_id": "mine"})


def test_names_of_the_clients_own_may_have_slashes(gateway: Gateway, daemon: Daemon) -> None:
    conversations(daemon)
    for method, path in (("GET", "conversations"), ("DELETE", "conversations"), ("DELETE", "sessions")):
        assert gateway.request(method, f"/v1/{path}/team%2Fmine/2").status == 200
        assert daemon.calls[-1][1]["conversation_id"] == "team/mine/2"


@pytest.mark.parametrize("name", ["unknown", "a%07b"])
def test_what_is_not_there(gateway: Gateway, daemon: Daemon, name: str) -> None:
    conversations(daemon)
    for method in ("GET", "DELETE"):
        answer = gateway.request(method, f"/v1/conversations/{name}")
        assert answer.status == 404
        assert answer.error == {
            "message": "Not found: Conversation not found",
            "type": "not_found_error",
            "param": None,
            "code": None,
        }
    session = gateway.request("DELETE", "/v1/sessions/unknown")
    assert (session.status, session.json) == (404, {"error": "Session not found: unknown"})


def test_stats(gateway: Gateway, daemon: Daemon) -> None:
    answer = gateway.request("GET", "/stats").json
    cache = answer["cache"]
    assert (cache["total_entries"], cache["total_hits"], cache["enabled"]) == (0, 0, False)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", answer["version"])


def test_a_body_over_two_mebibytes_and_the_error_for_one_that_is_too_large(
    compatible: Gateway, gateway: Gateway, daemon: Daemon
) -> None:
    image = "data:image/png;base64," + base64.b64encode(PNG + bytes(3 << 20)).decode()
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": image}}]}]
    assert compatible.chat(messages=messages).status == 200
    assert (answer := gateway.chat(messages=messages)).status == 413
    assert answer.error["code"] == "request_too_large"


def test_local_images_only_beneath_the_allowed_roots(gateway: Gateway, daemon: Daemon) -> None:
    with tempfile.TemporaryDirectory(prefix="ccd-") as folder:
        root = Path(folder) / "root"
        root.mkdir()
        (root / "a.png").write_bytes(PNG)
        (root / "link.png").symlink_to(root / "a.png")
        (Path(folder) / "outside.png").write_bytes(PNG)

        def chat(server: Gateway, url: str, *, bare: bool = False) -> Any:
            part = {"type": "image_url", "image_url": url if bare else {"url": url}}
            return server.chat(messages=[{"role": "user", "content": [{"type": "text", "text": "?"}, part]}])

        refused = chat(gateway, str(root / "a.png"))
        assert refused.status == 400
        assert "gateway.allowed_roots" in refused.error["message"]
        assert refused.error["param"] == "messages[0].content[1].image_url.url"
        with Gateway(daemon.path, allowed_roots=[str(root)]) as open_gateway:
            for name in (str(root / "a.png"), "a.png", f"file://{root}/a.png"):
                assert chat(open_gateway, name).status == 200
                source = daemon.calls[-1][1]["messages"][0]["content"][1]["source"]
                assert source["data"] == base64.b64encode(PNG).decode()
            assert chat(open_gateway, "a.png", bare=True).status == 200
            for name in ("link.png", "../outside.png", str(Path(folder) / "outside.png"), "none.png"):
                assert chat(open_gateway, name).status == 400


def test_a_tenant_has_conversations_of_its_own(daemon: Daemon, tmp_path: Path) -> None:
    files = {"keys_file": tmp_path / "keys.json", "usage_file": tmp_path / "usage.sqlite3"}
    token = add_key(files["keys_file"], tenant="team-1")
    with Gateway(daemon.path, **files) as keyed:
        assert keyed.chat(conversation_id="mine").status == 401
        assert keyed.chat(conversation_id="mine", headers=bearer(token)).status == 200
        asked = next(params for method, params in daemon.calls if method.startswith("chat."))
        assert (asked["conversation_id"], asked["tenant"]) == ("mine", "team-1")
        for method, path in (("GET", "mine"), ("DELETE", "mine"), ("GET", ""), ("POST", "")):
            body = {} if method == "POST" else None
            answer = keyed.request(method, f"/v1/conversations/{path}", body, bearer(token))
            assert answer.status == 200
            assert daemon.calls[-1][1]["tenant"] == "team-1"
