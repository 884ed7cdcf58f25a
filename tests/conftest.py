from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fakes.endings import pytest_timeout_cancel_timer, pytest_timeout_set_timer

__all__ = ["pytest_timeout_cancel_timer", "pytest_timeout_set_timer"]

# How long an example takes says something of the machine only, which may be busy with other things.
settings.register_profile("ccd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ccd")

# Whoever starts the tests in the background may have these ignored, and what is ignored is inherited; the tests and
# the programs that they start mean what a terminal does.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)  # still without effect here, but the default in a program


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-documents",
        action="store_true",
        help="write the tables of the documents instead of checking them",
    )


@pytest.fixture(scope="session")
def cli() -> Path:
    from fakes.stack import real_cli

    return real_cli()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    from fakes.stack import running_api

    with running_api(tmp_path_factory.mktemp("api")) as api:
        yield api
