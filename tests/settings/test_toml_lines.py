"""Lines of tables and keys, for messages."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from ccd_settings.toml_lines import lines_of


def test_tables_keys_and_what_is_inside_of_texts() -> None:
    text = (
        """# comment
top = 1
[a]  # one
x = """
        + "'''"
        + """
y = 2
"""
        + "'''"
        + """
"z z".q = 3
[[b.c]]
k = [
  1, 2
]
"""
    )
    assert lines_of(text) == {
        ("top",): 2,
        ("a",): 3,
        ("a", "x"): 4,
        ("a", "z z", "q"): 7,
        ("b", "c"): 8,
        ("b", "c", "k"): 9,
    }


@given(st.text(alphabet="[]=.#\"' ab1\n", max_size=200))
def test_any_text_is_read_in_time(text: str) -> None:
    lines_of(text)


def test_top_level_keys_of_a_valid_file_have_their_lines() -> None:
    text = "\n".join(f"key{number} = {number}" for number in range(100))
    assert {path[0] for path in lines_of(text)} == set(tomllib.loads(text))
