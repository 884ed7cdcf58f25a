"""A spare's rehearsal with the real CLI: the API hears nothing of it, neither then nor later."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccd_client import Client
from fakes.stack import Api, running_stack, wait_until


@pytest.mark.parametrize("own_header", ["", "x-team: blue"])
def test_a_rehearsal_reaches_nobody_and_leaves_nothing(
    tmp_path: Path, cli: Path, api: Api, own_header: str
) -> None:
    settings = {"CCD_POOL__SPARES": "1", "ANTHROPIC_CUSTOM_HEADERS": own_header}
    with running_stack(tmp_path, cli, api, **settings) as stack, Client(stack.socket) as client:
        wait_until(lambda: [worker["state"] for worker in stack.workers()] == ["ready"], what="a spare")
        assert api.requests() == []
        assert client.chat("Say hello.", system="You are brief.").text
        (request,) = api.requests()
        assert request["body"]["system"][0]["text"] == "You are brief."
        assert [message["role"] for message in request["body"]["messages"]] == ["user"]
        assert "rehears" not in str(request)
        assert request["headers"].get("x-team") == ("blue" if own_header else None)
        rehearsals = stack.status()["pool"]["rehearsals"]
        assert rehearsals["on"] and rehearsals["done"] >= 1 and rehearsals["fault"] is None
