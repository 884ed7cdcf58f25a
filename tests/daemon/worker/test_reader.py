"""What is passed on of a CLI's output, and what the host is told of the rest, however the reads are cut."""

from __future__ import annotations

import json
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from ccd_daemon.claude.login import Mode
from ccd_daemon.request.body import Script
from ccd_daemon.worker.controller import Controller
from ccd_daemon.worker.parking import Parking
from ccd_daemon.worker.reader import StdoutReader
from ccd_daemon.worker.turn import Stage, Turn
from ccd_protocol.errors import Code, RpcError
from fakes.in_loop import in_loop


class Told:
    """A host that remembers what it was told."""

    def __init__(self) -> None:
        self.heard = True
        self.said: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *about: self.said.append(name)

    def bad_output(self, reason: str) -> None:
        self.said.append("bad_output")
        self.heard = False

    def end_early(self, turn: Turn, error: RpcError) -> None:
        self.said.append("end_early")
        turn.reject(error)


class Scene:
    def __init__(self, *, streaming: bool = True) -> None:
        self.told = Told()
        self.reads: list[bytes] = []
        self.controller = Controller("w1", Mode.FULL)
        self.parking = Parking()
        self.written: list[bytes] = []
        self.reader = StdoutReader(self.told, self.controller, self.parking, self.written.append, 1000)
        sink = self.reads.append if streaming else None
        self.turn = self.reader.turn = Turn(Script(b""), "m", sink, 0.0)

    def read(self, *chunks: bytes) -> Scene:
        for chunk in chunks:
            self.reader.on_stdout(chunk)
        return self


def line(**fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def event(kind: str, **fields: Any) -> bytes:
    return line(type="stream_event", event={"type": kind, **fields})


START = event("message_start", message={"model": "m", "usage": {"input_tokens": 3}})
TOKEN = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hi"})
SAID = line(type="assistant", message={"id": "1", "model": "m", "content": [{"type": "text", "text": "hi"}]})
SYNTHETIC = line(type="assistant", message={"model": "<synthetic>", "content": []})
DONE = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 4})
RESULT = line(type="result", subtype="success", is_error=False, result="hi")
STATUS = line(type="system", subtype="status", status="requesting")
REPLY = line(type="control_response", response={"subtype": "success", "request_id": "w1-1"})
ANSWER = START + TOKEN + TOKEN + SAID + DONE


@in_loop
async def test_a_read_of_token_lines_is_passed_on_as_the_very_object() -> None:
    scene = Scene()
    read = TOKEN * 3
    scene.read(read)
    assert scene.reads[0] is read
    assert scene.turn.output_started
    assert scene.told.said == ["watch"]


@in_loop
async def test_lines_among_others_go_out_together_and_the_others_do_not() -> None:
    scene = Scene().read(STATUS + START + TOKEN + SYNTHETIC + REPLY + TOKEN)
    assert scene.reads == [START + TOKEN + TOKEN]
    assert scene.told.said == ["watch", "on_reply"]
    assert scene.turn.api_requests == 1
    assert len(scene.written) == 1 and b"EXTRA_BODY" in scene.written[0]  # the guard against a second call


@in_loop
async def test_what_the_cli_asks_is_told_and_what_it_withdraws_is_no_longer_open() -> None:
    asked = line(type="control_request", request_id="c1", request={"subtype": "can_use_tool"})
    scene = Scene()
    withdrawn: list[str] = []
    scene.parking.withdrawn = withdrawn.append  # type: ignore[method-assign]
    scene.read(asked + line(type="control_cancel_request", request_id="c1"))
    assert (scene.told.said, withdrawn) == (["on_request"], ["c1"])


@in_loop
async def test_an_answer_that_calls_client_tools_parks_and_one_that_goes_on_without_them_is_told() -> None:
    calls = event("message_delta", delta={"stop_reason": "tool_use"}, usage={})
    user = line(type="user", message={"role": "user", "content": []})
    scene = Scene()
    scene.turn = scene.reader.turn = Turn(Script(b"", parks=True), "m", scene.reads.append, 0.0)
    scene.read(user + START + TOKEN + calls + calls)
    assert b"".join(scene.written).count(b'"get_usage"') == 1
    assert (
        "stop_message" not in scene.told.said
    )  # what came before the answer is the results of the one before
    assert scene.read(user).told.said[-1] == "stop_message"
    assert b"get_usage" not in b"".join(Scene().read(START + TOKEN + calls + user).written)


@pytest.mark.parametrize("seed", range(10))
def test_how_reads_are_cut_does_not_matter(seed: int) -> None:
    @in_loop
    async def once() -> None:
        stream = STATUS + ANSWER + RESULT
        random = Random(seed)
        cuts = [0, *sorted(random.sample(range(1, len(stream)), random.randrange(1, 40))), len(stream)]
        scene = Scene().read(*(stream[start:end] for start, end in pairwise(cuts)))
        assert b"".join(scene.reads) == ANSWER
        assert scene.turn.text == "hi"
        assert scene.turn.complete
        assert scene.told.said == ["watch", "watch", "on_result"]
        assert scene.reader.unfinished_bytes == 0

    once()


@in_loop
async def test_what_comes_before_the_result_is_passed_on_before_it() -> None:
    scene = Scene()
    order = []
    scene.turn.sink = lambda lines: order.append("lines")
    scene.told.on_result = lambda line: order.append("result")
    scene.read(ANSWER + RESULT)
    assert order == ["lines", "result"]


@in_loop
async def test_nothing_follows_a_message_that_is_done() -> None:
    scene = Scene().read(ANSWER, START + TOKEN + SAID, TOKEN)
    assert b"".join(scene.reads) == ANSWER


@in_loop
async def test_a_message_that_the_cli_would_go_on_from_is_stopped() -> None:
    cut_short = event("message_delta", delta={"stop_reason": "max_tokens"})
    scene = Scene().read(START + TOKEN + cut_short)
    assert scene.told.said == ["watch", "watch", "stop_message"]
    assert scene.reads == [START + TOKEN + cut_short]


@in_loop
async def test_a_surplus_message_changes_nothing_of_the_answer() -> None:
    refused = event("message_delta", delta={"stop_reason": "refusal"}, usage={"output_tokens": 9})
    other = event("message_start", message={"model": "n", "usage": {"input_tokens": 99}})
    scene = Scene().read(STATUS + START + TOKEN + SAID + refused, STATUS + other + TOKEN + SAID + DONE)
    turn = scene.turn
    assert b"".join(scene.reads) == START + TOKEN + SAID + refused
    assert (turn.stop_reason, turn.model, turn.api_requests) == ("refusal", "m", 2)
    assert turn.usage == {"input_tokens": 3, "output_tokens": 9}
    assert scene.told.said.count("stop_message") == 1


@in_loop
async def test_a_message_that_begins_again_after_output_ends_the_turn() -> None:
    scene = Scene().read(START + TOKEN, START)
    assert scene.told.said[-1] == "end_early"
    with pytest.raises(RpcError) as caught:
        await scene.turn.future
    assert caught.value.code is Code.UPSTREAM_ERROR
    assert caught.value.data["output_started"] is True


@in_loop
async def test_between_turns_nothing_is_passed_on_and_the_host_hears_the_rest() -> None:
    scene = Scene()
    scene.reader.turn = None
    scene.read(TOKEN, STATUS + REPLY + line(type="conversation_reset") + RESULT)
    assert not scene.reads
    assert scene.told.said == ["on_reply", "on_result"]
    assert scene.controller.reset_seen


@in_loop
async def test_a_collecting_turn_has_no_output_started() -> None:
    scene = Scene(streaming=False).read(ANSWER)
    assert scene.turn.stage is Stage.FLOWING or scene.turn.complete
    assert not scene.turn.output_started
    assert scene.turn.content == [{"type": "text", "text": "hi"}]


@pytest.mark.parametrize("bad", [b"not json\n", b"[]\n", b'{"type":"result","usage":7}\n', b"x" * 1001])
def test_after_bad_output_nothing_is_looked_at(bad: bytes) -> None:
    @in_loop
    async def once() -> None:
        scene = Scene().read(START + TOKEN, bad, RESULT)
        assert scene.told.said[-1] == "bad_output"
        assert scene.reads == [START + TOKEN]
        assert scene.reader.unfinished_bytes == 0

    once()
