"""Control requests of a session, and what becomes of them."""

from __future__ import annotations

import json

import pytest

from ccd_daemon.claude.control import ControlReply
from ccd_daemon.session.requests import ControlRequests, agreed
from ccd_protocol.errors import Code, RpcError
from fakes.in_loop import in_loop


@in_loop
async def test_each_reply_finds_its_request() -> None:
    written: list[bytes] = []
    requests = ControlRequests(written.append)
    first, second = requests.make("initialize"), requests.make("set_permission_mode", mode="plan")
    ids = [json.loads(line)["request_id"] for line in written]
    assert len(set(ids)) == 2 and json.loads(written[1])["request"]["mode"] == "plan"
    requests.replied(ControlReply(subtype="success", request_id=ids[1]))
    requests.replied(ControlReply(subtype="success", request_id="somebody else's"))
    assert (await second).request_id == ids[1] and not first.done()
    requests.fail(RpcError(Code.WORKER_CRASHED, "gone"))
    with pytest.raises(RpcError, match="gone"):
        await first


def test_a_refusal_is_told_in_the_words_of_the_cli() -> None:
    assert agreed(ControlReply(subtype="success", request_id="r")).request_id == "r"
    with pytest.raises(RpcError, match="no such mode") as caught:
        agreed(ControlReply(subtype="error", request_id="r", error="no such mode"))
    assert caught.value.code is Code.BAD_PARAMS
