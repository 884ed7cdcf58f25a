"""The catalogue of methods is consistent."""

from __future__ import annotations

import re
from typing import is_typeddict

from ccd_protocol.frames import MAX_METHOD_CHARS
from ccd_protocol.methods import METHODS


def test_names_are_noun_dot_verb_and_fit() -> None:
    for name in METHODS:
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", name)
        assert len(name) <= MAX_METHOD_CHARS


def test_parameters_and_results_are_maps() -> None:
    for method in METHODS.values():
        assert is_typeddict(method.params) and is_typeddict(method.result)
        assert method.summary.endswith(".")


def test_admin_methods_are_marked() -> None:
    for name, method in METHODS.items():
        assert method.admin == name.startswith("admin.")
