"""`/openapi.json` is true: requests made up from it meet no fault and no answer that it does not describe."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import Phase as HypothesisPhase

from ccd_gateway.app import create_app
from ccd_gateway.edge.routing import Route, Routes
from ccd_gateway.openapi import document
from ccd_gateway.settings import GatewaySettings
from fakes.gateway_daemon import Daemon, start, text
from fakes.gateway_keys import add_key, bearer
from fakes.gateway_process import Gateway
from fakes.task_worker import running_worker


def routes() -> list[Route]:
    """Every route of the gateway; nothing is opened for it."""
    app: Any = create_app(
        GatewaySettings(usage_file=Path("/nonexistent/u"), keys_file=Path("/nonexistent/k"))
    )
    return app.routes.all  # type: ignore[no-any-return]


schema = schemathesis.openapi.from_dict(document(routes()))


@pytest.fixture(scope="module")
def keyed(_daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, str]]:
    folder = tmp_path_factory.mktemp("openapi")
    token = add_key(folder / "keys.json", scopes=("chat", "agent", "stats"))
    _daemon.chat(start(), text("hi"))
    files = {"keys_file": folder / "keys.json", "usage_file": folder / "usage.sqlite3"}
    with (
        running_worker(_daemon.path, folder, CCD_GATEWAY__KEYS_FILE=str(folder / "keys.json")),
        Gateway(_daemon.path, body_timeout_s=5, **files) as gateway,
    ):
        yield gateway, token
    assert gateway.log == gateway.greeting


CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.CHECKS.get_one("status_code_conformance"),
    schemathesis.checks.CHECKS.get_one("content_type_conformance"),
    schemathesis.checks.CHECKS.get_one("response_schema_conformance"),
]


@schema.parametrize()
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[HypothesisPhase.explicit, HypothesisPhase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_fault_and_no_answer_that_is_not_described(
    case: schemathesis.Case, keyed: tuple[Gateway, str]
) -> None:
    gateway, token = keyed
    case.headers = {**dict(case.headers or {}), **bearer(token)}
    case.call_and_validate(base_url=f"http://127.0.0.1:{gateway.port}", checks=CHECKS, timeout=20)


def test_every_route_is_described_and_every_description_is_a_route() -> None:
    """Every method that a resource has, and no other; but for routes that are only there to refuse."""
    table = Routes(routes(), routes()[0])
    for route in routes():
        methods = table.of(re.sub(r"\{\w+(:path)?\}", "x", route.path)).methods
        served = {name for name, responder in methods.items() if "on_" in responder.__name__}
        described = {name.upper() for name in route.description().item} if route.description else set()
        assert described - {"PARAMETERS"} >= served - {"OPTIONS", "HEAD"}, route.path
        assert described <= served | {"PARAMETERS"} or "_refuse" in str(methods["GET"]), route.path


def test_the_document_is_served_to_everybody(keyed: tuple[Gateway, str]) -> None:
    answer = keyed[0].request("GET", "/openapi.json")
    assert answer.status == 200 and answer.json == json.loads(json.dumps(document(routes())))
    assert answer.json["openapi"] == "3.1.0"
