"""A test that times out ends, also when its loop will not.

pytest-timeout raises in the main thread, once. An event loop may swallow that, or go on in a cleanup that waits for
what will never come. So it is raised again and again; and where even that does not help, the whole run ends by force,
with the stacks of all threads on stderr.
"""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Generator
from typing import Any

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key  # stderr itself, which is captured during a test

_AGAIN_S = 15.0
_PATIENCE = 4  # times that it is raised again


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> Generator[None, object, object]:
    done = yield
    again_s = min(_AGAIN_S, settings.timeout)
    if settings.method == "signal":
        signal.setitimer(signal.ITIMER_REAL, settings.timeout, again_s)
    stderr = item.config.stash[fault_handler_stderr_fd_key]
    faulthandler.dump_traceback_later(settings.timeout + _PATIENCE * again_s, file=stderr, exit=True)
    return done


@pytest.hookimpl(wrapper=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> Generator[None, object, object]:
    faulthandler.cancel_dump_traceback_later()
    return (yield)
