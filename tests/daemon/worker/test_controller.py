from __future__ import annotations

import json
from typing import Any

import pytest

from ccd_daemon.claude import control
from ccd_daemon.claude.login import Mode
from ccd_daemon.worker.controller import Controller


def requests(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize(
    ("mode", "binding", "subtype"),
    [
        (Mode.FULL, None, "initialize"),
        (Mode.KEEP_SYSTEM, None, "get_binary_version"),
        (Mode.KEEP_SYSTEM, '{"system":"x"}', "initialize"),
        (Mode.REPLAY, None, "get_binary_version"),
    ],
)
def test_warming_up_asks_what_binding_will_not_need_again(
    mode: Mode, binding: str | None, subtype: str
) -> None:
    controller = Controller("w1", mode)
    (asked,) = requests(controller.warm_up(binding))
    assert asked["request"]["subtype"] == subtype
    answer = control.ControlReply(subtype="success", request_id=asked["request_id"])
    assert not controller.is_warm_reply(control.ControlReply(request_id="other"))
    assert controller.is_warm_reply(answer)
    assert not controller.is_warm_reply(answer), "true once"


def test_ids_are_not_used_twice() -> None:
    controller = Controller("w1", Mode.FULL)
    lines = [*requests(controller.warm_up(None)), *requests(controller.interrupt() + controller.guard())]
    ids = [*(line["request_id"] for line in lines), controller.next_id()]
    assert len(set(ids)) == 4
    assert all(name.startswith("w1-") for name in ids)


def test_only_where_the_request_body_is_ours_is_a_second_call_guarded_against() -> None:
    assert b"CLAUDE_CODE_EXTRA_BODY" in Controller("w1", Mode.FULL).guard()
    replay = Controller("w1", Mode.REPLAY)
    replay.env = {"CLAUDE_CODE_MAX_RETRIES": "2"}
    changed = json.loads(replay.guard())["request"]["settings"]["env"]
    assert not changed["ANTHROPIC_CUSTOM_HEADERS"].isascii()  # which the CLI refuses by itself
    back = json.loads(replay.unguard())["request"]["settings"]["env"]
    assert back == {"ANTHROPIC_CUSTOM_HEADERS": "", "CLAUDE_CODE_MAX_RETRIES": "2"}
    assert changed.keys() == back.keys()


def test_a_reset_is_confirmed_by_a_new_conversation_and_its_own_result() -> None:
    controller = Controller("w1", Mode.FULL)
    cleared = control.ResultLine(local_command="clear")
    emptied, clear = requests(controller.reset())
    assert emptied["request"]["settings"]["env"] == {"CLAUDE_CODE_EXTRA_BODY": ""}
    assert clear["message"]["content"] == "/clear"
    assert not controller.reset_confirmed(cleared)
    controller.reset_seen = True
    assert controller.reset_confirmed(cleared)
    assert not controller.reset_confirmed(control.ResultLine())
    assert not controller.reset_confirmed(control.ResultLine(local_command="clear", is_error=True))
    controller.reset()
    assert not controller.reset_confirmed(cleared), "each reset must be confirmed anew"


def test_what_a_rehearsal_changes_is_put_back_with_the_next_reset() -> None:
    controller = Controller("w1", Mode.FULL)
    controller.env = {"ANTHROPIC_CUSTOM_HEADERS": "x-team: blue", "CLAUDE_CODE_MAX_RETRIES": "2"}
    changed, spoken = requests(controller.rehearse())
    env = changed["request"]["settings"]["env"]
    assert not env["ANTHROPIC_CUSTOM_HEADERS"].isascii(), "so the CLI refuses the turn by itself"
    assert json.loads(env["CLAUDE_CODE_EXTRA_BODY"])["messages"] == [], "and so would the API"
    assert spoken["type"] == "user"
    put_back = requests(controller.reset())[0]["request"]["settings"]["env"]
    assert put_back == {**controller.env, "CLAUDE_CODE_EXTRA_BODY": ""}
    assert requests(controller.reset())[0]["request"]["settings"]["env"] == {"CLAUDE_CODE_EXTRA_BODY": ""}


@pytest.mark.parametrize(
    ("line", "well"),
    [
        (control.ResultLine(is_error=True, result="Invalid ANTHROPIC_CUSTOM_HEADERS"), True),
        (control.ResultLine(is_error=True, api_error_status=400), False),
        (control.ResultLine(result="Hello!"), False),
    ],
)
def test_a_rehearsal_must_be_refused_and_not_by_the_api(line: control.ResultLine, well: bool) -> None:
    assert Controller.rehearsed(line) is well
