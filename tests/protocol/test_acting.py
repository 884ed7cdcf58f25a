"""Keys of messages that act: known, harmless, or an error."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest

from ccd_protocol.acting import ACTING, HARMLESS, acting
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import METHODS


@pytest.mark.parametrize("method", sorted(ACTING))
def test_every_parameter_of_the_method_and_harmless_extras_are_taken(method: str) -> None:
    own: dict[str, Any] = dict.fromkeys(get_type_hints(METHODS[method].params), "x")
    extras = dict.fromkeys(HARMLESS, 5)
    assert acting(method, {**own, **extras}) == own


@pytest.mark.parametrize("method", sorted(ACTING))
@pytest.mark.parametrize(
    "key", ["Model", "modell", "updated-input", "params", "", "\0", "x" * 100_000, "méthode"]
)
def test_every_other_key_is_refused_by_name(method: str, key: str) -> None:
    with pytest.raises(RpcError) as refusal:
        acting(method, {key: "x"})
    assert refusal.value.code is Code.BAD_PARAMS
    assert refusal.value.data["param"] == key[:60]
    assert len(refusal.value.message) < 300


def test_every_method_that_is_a_session_s_acts_unless_it_only_looks() -> None:
    looking = {"session.list", "session.get", "session.attach"}
    assert {name for name in METHODS if name.startswith("session.")} - ACTING == looking


def test_the_cli_s_own_spelling() -> None:
    given = {"request_id": "r", "behavior": "allow"}
    changed = {"command": "ls"}
    assert acting("session.answer", {**given, "updatedInput": changed}) == {**given, "updated_input": changed}
    assert acting("session.answer", {"updatedInput": changed, "updated_input": changed})
    with pytest.raises(RpcError, match="twice"):
        acting("session.answer", {**given, "updatedInput": changed, "updated_input": {}})
    with pytest.raises(RpcError, match="updatedInput"):
        acting("session.send", {"content": "x", "updatedInput": {}})


def test_a_near_miss_is_told_what_is_near() -> None:
    with pytest.raises(RpcError, match="is 'model' meant"):
        acting("session.set_model", {"mdoel": "haiku"})
