"""Requests that are too large in other ways than bytes: they fail alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from fakes.stack import Api, Stack, running_stack

QUESTION = {"role": "user", "content": "x"}
HANGS = {"role": "user", "content": '[[offline: {"deltas": 3, "hang_after_deltas": 2}]]'}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    # One process, so that all requests share one connection to the daemon.
    folder = tmp_path_factory.mktemp("large")
    with running_stack(folder, cli, api, gateway=True, CCD_GATEWAY__WORKERS="1") as stack:
        yield stack


def tool(enum: list[Any]) -> dict[str, Any]:
    function = {"name": "f", "parameters": {"type": "object", "enum": enum}}
    return {"messages": [QUESTION], "tools": [{"type": "function", "function": function}]}


TOO_MUCH: dict[str, tuple[dict[str, Any], int]] = {
    "messages": ({"messages": [*[QUESTION, {"role": "assistant", "content": "y"}] * 8200, QUESTION]}, 400),
    "elements": (tool([0] * 20_000), 400),
    "objects": (tool([[0] * 1000] * 1200), 413),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_they_disturb_nobody_else(what: str, stack: Stack) -> None:
    body, status = TOO_MUCH[what]
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        create: Any = client.chat.completions.create
        with create(model="sonnet", stream=True, messages=[HANGS]) as stream:
            assert any(chunk.choices[0].delta.content for chunk in stream)
            with pytest.raises(openai.APIStatusError, match=r"cannot be sent|server\.max_items") as caught:
                create(model="sonnet", **body)
            assert caught.value.status_code == status
            assert create(model="sonnet", messages=[QUESTION]).choices[0].message.content
            assert [row["state"] for row in stack.workers()].count("busy") == 1
