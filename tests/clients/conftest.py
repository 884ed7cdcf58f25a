from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-compatibility",
        action="store_true",
        help="write docs/compatibility.md from what the clients' tests find",
    )
