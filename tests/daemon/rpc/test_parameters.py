"""Parameters are what their method's description says, or the call is refused."""

from __future__ import annotations

from typing import Any

import pytest

from ccd_daemon.rpc.parameters import read
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import METHODS

GIVEN: dict[str, Any] = {
    "conversation_id": "c",
    "id": "w1",
    "session_id": "s",
    "text": "t",
    "content": "hello",
    "mode": "plan",
    "request_id": "r",
    "messages": [{"role": "user", "content": "hello"}],
}


@pytest.mark.parametrize("name", METHODS)
def test_required_ones_alone_will_do_and_each_of_them_is_missed(name: str) -> None:
    method = METHODS[name]
    least = {key: GIVEN[key] for key in method.required}
    assert read(least, method.params) == least
    for key in least:
        with pytest.raises(RpcError) as caught:
            read({other: value for other, value in least.items() if other != key}, method.params)
        assert (caught.value.code, caught.value.data["param"]) == (Code.BAD_PARAMS, key)


@pytest.mark.parametrize("name", METHODS)
def test_unknown_ones_are_refused(name: str) -> None:
    method = METHODS[name]
    with pytest.raises(RpcError) as caught:
        read({**{key: GIVEN[key] for key in method.required}, "modle": "opus"}, method.params)
    assert (caught.value.code, caught.value.data["param"]) == (Code.BAD_PARAMS, "modle")


def test_a_wrong_type_is_named_with_its_place() -> None:
    with pytest.raises(RpcError) as caught:
        read({"allowed_tools": ["Read", 5]}, METHODS["session.open"].params)
    assert caught.value.data["param"] == "allowed_tools[1]"


def test_what_acts_may_be_spelt_as_older_clients_do_and_no_other_way() -> None:
    kind = METHODS["session.answer"].params
    given = {"session_id": "s", "request_id": "r", "behavior": "allow"}
    edited = {"command": "edited"}
    older = {**given, "updatedInput": edited, "id": 1, "timestamp": 2}
    assert read(older, kind, "session.answer") == {**given, "updated_input": edited}
    for wrong in (
        {"updatedInpt": edited},
        {"updated_input": {}, "updatedInput": edited},
        {"Behavior": "deny"},
    ):
        with pytest.raises(RpcError) as caught:
            read({**given, **wrong}, kind, "session.answer")
        assert caught.value.code is Code.BAD_PARAMS
