from __future__ import annotations

import json
from typing import Any

import msgspec

from ccd_daemon.claude import control
from ccd_daemon.request import client_tools
from ccd_daemon.request.body import Script
from ccd_daemon.worker.parking import Parking

TOOL = {"name": "get", "input_schema": {"type": "object"}}
BINDING = json.dumps({"systemPrompt": [], **client_tools.published([TOOL])})
RESULTS = ({"content": [{"type": "text", "text": "1"}]}, {"content": [{"type": "text", "text": "2"}]})
TURN = Script(b"", binding=BINDING, parks=True, place=("o:f:", "link"))
ANSWERED = Script(b"", binding=BINDING, parks=True, place=("o:f:", "next"), results=RESULTS)


def made(call: Any, request_id: str, number: int = 7) -> control.ControlRequestLine:
    params = {"name": "get", "arguments": {}, "_meta": {"claudecode/toolUseId": call}}
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    return control.ControlRequestLine(request_id, {"subtype": "mcp_message", "message": message})


def answers(data: bytes) -> dict[str, Any]:
    found = {}
    for line in data.splitlines():
        response = json.loads(line)["response"]
        found[response["request_id"]] = response.get("response", {}).get("mcp_response", response)
    return found


def parked(*calls: str) -> Parking:
    parking = Parking()
    parking.begin(TURN)
    parking.park(TURN, [], calls)
    return parking


def test_results_find_their_calls_in_whatever_order_these_came() -> None:
    parking = parked("a", "b")
    assert parking.asked(made("b", "r2", 2)) == parking.asked(made("a", "r1", 1)) == b""
    given = answers(parking.results(ANSWERED))
    assert given == {
        "r1": {"jsonrpc": "2.0", "id": 1, "result": RESULTS[0]},
        "r2": {"jsonrpc": "2.0", "id": 2, "result": RESULTS[1]},
    }


def test_a_call_that_comes_later_than_its_result_gets_it_then() -> None:
    parking = parked("a", "b")
    parking.asked(made("a", "r1"))
    assert set(answers(parking.results(ANSWERED))) == {"r1"}
    assert answers(parking.asked(made("b", "r2")))["r2"]["result"] == RESULTS[1]


def test_a_withdrawn_call_is_not_answered() -> None:
    parking = parked("a", "b")
    parking.asked(made("a", "r1"))
    parking.asked(made("b", "r2"))
    parking.withdrawn("r1")
    assert set(answers(parking.results(ANSWERED))) == {"r2"}


def test_nothing_is_left_over_for_the_next_turn() -> None:
    parking = parked("a", "b")
    parking.asked(made("a", "r1"))
    parking.results(ANSWERED)
    parking.ended(ANSWERED, [], clean=True)
    assert parking.asked(made("b", "r2")) == b""


def test_what_is_no_call_is_answered_or_refused() -> None:
    parking = parked("a")
    listing = control.ControlRequestLine("r", {"message": {"id": 1, "method": "tools/list"}})
    assert answers(parking.asked(listing))["r"]["result"]["tools"][0]["name"] == "get"
    for odd in ({}, {"message": "x"}, made(None, "r").request, made([], "r").request):
        assert answers(parking.asked(control.ControlRequestLine("r", odd)))["r"]["subtype"] == "error"


def test_a_process_stands_where_it_has_heard_just_what_was_said() -> None:
    parking = parked("a")
    place = parking.place
    assert place is not None
    assert place.startswith("o:f:")
    parking.begin(ANSWERED)
    assert parking.place is None
    parking.ended(ANSWERED, [], clean=True)
    assert parking.place not in (None, place)
    parking.begin(TURN)
    parking.ended(TURN, [], clean=False)
    assert parking.place is None
    assert parking.spoilt == place


def test_the_reply_that_tells_the_cost_is_known_once() -> None:
    parking = Parking()
    assert json.loads(parking.ask_cost("r9"))["request"] == {"subtype": "get_usage"}
    assert not parking.is_cost(control.ControlReply(request_id="r1"))
    assert parking.is_cost(control.ControlReply(request_id="r9"))
    assert not parking.is_cost(control.ControlReply(request_id="r9"))
    assert not parking.is_cost(control.ControlReply())


def test_it_waits_only_when_every_call_has_come_and_the_cost_is_known() -> None:
    parking = Parking()
    parking.begin(TURN)
    parking.ask_cost("r9")
    parking.asked(made("a", "r1"))
    assert parking.total_cost_usd(["a"]) is None
    told = control.ControlReply(request_id="r9", response=msgspec.Raw(b'{"session":{"total_cost_usd":0.5}}'))
    assert parking.is_cost(told)
    assert parking.total_cost_usd(["a", "b"]) is None
    parking.asked(made("b", "r2"))
    assert parking.total_cost_usd(["a", "b"]) == 0.5
    parking.park(TURN, [], ["a", "b"])
    parking.results(ANSWERED)
    assert parking.total_cost_usd([]) is None  # the next answer's cost is asked for anew
