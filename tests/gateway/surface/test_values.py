"""Values that do not arrive as they are written are found and named; those that are none say where they are."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_gateway.errors import ApiError
from ccd_gateway.surface.body import decode_object
from ccd_gateway.surface.values import changed


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ('{"a": 1, "b": [1.5, -3, 0, 1e5, "9007199254740993", {"c": 9007199254740992}]}', []),
        ('{"a": 9007199254740993}', ["a"]),
        ('{"a": {"b": [0, -9007199254740993]}}', ["a.b[1]"]),
        ('{"a":[18446744073709551616,123456789012345678901234567890]}', ["a[0]", "a[1]"]),
        ('{"a": -0}', ["a"]),
        ('{"a": [-0.0, -0.5]}', ["a[0]"]),
        ('{"a": {"x": 1, "x": 2}}', ["a.x"]),
        ('{"a": 1, "b": 2, "a": 3}', ["a"]),
        ('{"a" : 1, "a" : 1}', ["a"]),
        ('{"text": "\\"a\\": 1, \\"a\\": 2, 9007199254740993"}', []),
    ],
)
def test_what_changes_is_named(body: str, paths: list[str]) -> None:
    data = body.encode()
    assert changed(data, decode_object(data)) == paths


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"a": [1, {"b": 1e999}]}', "a[1].b"),
        ('{"messages": [{"content": "\\ud800"}]}', "messages[0].content"),
        ('{"a": "x \\udc00\\ud800"}', "a"),
        ('{"a": {"\\ud83d": 1}}', "a"),
        ('{"a": 1e9', None),
        ("", None),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(body: str, param: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        decode_object(body.encode())
    assert caught.value.status == 400 and caught.value.error["param"] == param
    assert param is None or f"'{param}'" in caught.value.error["message"]


exact = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


def has_minus_zero(value: Any) -> bool:
    if isinstance(value, float):
        return value == 0 and str(value).startswith("-")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(has_minus_zero, inner))


@given(st.dictionaries(st.text(max_size=5), exact))
def test_what_stays_as_it_is_is_not_named(fields: dict[str, Any]) -> None:
    for body in (json.dumps(fields).encode(), msgspec.json.encode(fields)):
        try:
            found = decode_object(body)
        except ApiError:  # halves of surrogate pairs, as json writes them
            return
        assert bool(changed(body, found)) == has_minus_zero(fields)
