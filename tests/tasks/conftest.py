from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.stack import Api, Stack, running_stack
from fakes.task_stack import TaskStack


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[TaskStack]:
    """A daemon with the real CLI, a gateway and a worker."""
    folder = tmp_path_factory.mktemp("tasks")
    settings = {"CCD_TASKS__WEBHOOK_NETWORKS": "127.0.0.1/32", "CCD_DATA__DIR": str(folder / "data")}
    stack: Stack
    with running_stack(folder, cli, api, gateway=True, **settings) as stack:
        tasks = TaskStack(stack)
        tasks.start()
        yield tasks
        tasks.stop()
