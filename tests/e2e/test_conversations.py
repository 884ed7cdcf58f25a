"""Named conversations over the socket, with the real CLI: what the API gets is the whole conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ccd_client import Client
from ccd_protocol.errors import Code, RpcError
from fakes.stack import Api, running_stack


def ask(client: Client, text: str, name: str, **options: Any) -> dict[str, Any]:
    params = {"messages": [{"role": "user", "content": text}], "conversation_id": name, **options}
    return dict(client.call("chat.complete", params))


def test_a_conversation_goes_on_over_turns_kinds_and_restarts(tmp_path: Path, cli: Path, api: Api) -> None:
    data = {"CCD_DATA__DIR": str(tmp_path / "data")}
    with running_stack(tmp_path, cli, api, **data) as stack:
        with Client(stack.socket) as client:
            first = ask(client, "one", "mine", system="be brief")["text"]
            params = {"messages": [{"role": "user", "content": "two"}], "conversation_id": "mine"}
            with client.call_stream("chat.stream", params) as stream:
                for _ in stream:
                    pass
        stack.daemon.stop()
        stack.start_daemon()
        with Client(stack.socket) as client:
            ask(client, "three", "mine")
            ask(client, "other", "mine", tenant="somebody else")
            last, other = api.bodies()[-2:]
            assert [message["role"] for message in last["messages"]] == ["user", "assistant"] * 2 + ["user"]
            assert first in str(last["messages"][1])
            assert "two" in str(last["messages"][2])
            assert last["system"] == [{"type": "text", "text": "be brief"}]
            assert len(other["messages"]) == 1
            assert client.call("conversation.get", {"conversation_id": "mine"})["message_count"] == 6
            listed = client.call("conversation.list", {})["conversations"]
            assert [entry["id"] for entry in listed] == ["mine"]
            client.call("conversation.delete", {"conversation_id": "mine"})
            with pytest.raises(RpcError) as caught:
                client.call("conversation.get", {"conversation_id": "mine"})
            assert caught.value.code is Code.NOT_FOUND


def test_a_failed_turn_is_not_remembered(tmp_path: Path, cli: Path, api: Api) -> None:
    with running_stack(tmp_path, cli, api, CCD_DATA__DIR=str(tmp_path / "data")) as stack:
        with Client(stack.socket) as client:
            with pytest.raises(RpcError):
                ask(client, '[[offline: {"status": 500}]]', "mine")
            ask(client, "hello", "mine")
            assert client.call("conversation.get", {"conversation_id": "mine"})["message_count"] == 2
            with pytest.raises(RpcError) as caught:
                ask(client, "hello", "bad\nname")
            assert caught.value.data["param"] == "conversation_id"
