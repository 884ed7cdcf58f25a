"""Real clients, each in its own environment, against the real gateway, daemon and CLI over a scripted API."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients import document, parameters, snippets
from clients.features import APIS, features, impossible
from clients.runs import QUIET, Report, Runs, clients
from fakes.stack import Stack, clean_environ, running_api, running_stack

pytestmark = pytest.mark.timeout(1200)  # a fresh machine makes the environments first
COMMITTED = document.PATH.read_text() if document.PATH.exists() else ""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cli: Path) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("clients")
    settings = {
        "CCD_DATA__DIR": str(folder / "data"),
        "CCD_GATEWAY__MODEL_MAP": json.dumps({"gpt-*": parameters.MODEL}),
    }
    with running_api(folder) as api, running_stack(folder, cli, api, gateway=True, **settings) as stack:
        yield stack


@pytest.fixture(scope="module")
def runs(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Runs]:
    """Drivers run in the background; those that the chosen tests need are begun at once."""
    runs = Runs(stack, stack.folder / "clients")
    chosen = [
        item.callspec.params.get("promise") for item in request.session.items if hasattr(item, "callspec")
    ]
    runs.begin(promise.client for promise in chosen if isinstance(promise, document.Promise))
    yield runs
    runs.close()


@pytest.fixture(scope="module")
def reports(runs: Runs) -> dict[str, Report]:
    runs.begin(clients())
    return {client: runs.report(client) for client in clients()}


@pytest.mark.parametrize("snippet", snippets.snippets(), ids=lambda snippet: snippet.id)
def test_snippets_of_the_clients_page_run(
    stack: Stack, runs: Runs, tmp_path: Path, snippet: snippets.Snippet
) -> None:
    """As a user would paste them, but for the gateway's port."""
    call = {"name": "get_weather", "input": {"city": "Rome"}}
    asked = {"reply": {"tool_calls": [call]}, "match": {"contains": "weather in Rome"}}
    place = {"reply": {"text": '{"city": "Rome", "country": "Italy"}'}, "match": {"contains": "Colosseum"}}
    stack.api.script(asked, place)
    code = snippet.code.replace("http://127.0.0.1:8080", stack.url)
    command = ["sh", "-eu", "-c", code]
    if snippet.language == "python":
        command = [str(runs.python(snippets.CLIENTS[snippet.section])), "-c", code]
    done = run_snippet(command, stack, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert expected_of(code) in done.stdout.lower()


def expected_of(code: str) -> str:
    """What a snippet prints, in lower case: the scripted model's answer, or the echo of the question."""
    answers = {
        "weather in Rome": "it is sunny in rome.",
        "Colosseum": "italy",
        "is my name": "name",
        "/models": "sonnet",
    }
    return next((answer for question, answer in answers.items() if question in code), "hello")


def run_snippet(command: list[str], stack: Stack, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a snippet in a cleared environment, with Claude Code on the search path."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "claude").symlink_to(stack.cli)
    environ = clean_environ(folder / "home", **QUIET, CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1")
    environ.pop("PYTHONPATH", None)
    environ["PATH"] = f"{programs}:{environ['PATH']}"
    return subprocess.run(
        command,
        env=environ,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture(scope="module")
def fates(stack: Stack) -> dict[str, dict[int, str]]:
    """What becomes of every parameter; a failure is kept as text, for the test to find."""
    found: dict[str, dict[int, str]] = {}
    for api, samples in parameters.SAMPLES.items():
        probe = parameters.Probe(stack, api)
        found[api] = {number: _fate(probe, sample) for number, sample in enumerate(samples)}
    return found


def _fate(probe: parameters.Probe, sample: parameters.Sample) -> str:
    try:
        return probe.fate(sample)
    except AssertionError as error:
        return f"FAILED: {error}"


@pytest.mark.parametrize("api", list(APIS))
def test_no_parameter_is_dropped_in_silence(fates: dict[str, dict[int, str]], api: str) -> None:
    assert [fate for fate in fates[api].values() if fate.startswith("FAILED")] == []


PROMISES = [
    promise
    for promise in document.promises(COMMITTED)
    if not impossible(promise.api, promise.feature, os.environ.get("CCD_ENGINE__BODY"))
]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: "-".join(promise))
def test_what_the_document_promises(runs: Runs, promise: document.Promise) -> None:
    """Every `yes` of docs/compatibility.md."""
    found = [
        result
        for result in runs.report(promise.client).results
        if (result.api, result.feature) == (promise.api, promise.feature)
    ]
    assert found, "no driver shows this"
    failed = [f"{result.variant}\n{result.detail}" for result in found if not result.ok]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("client", clients())
def test_drivers_show_features_that_there_are(reports: dict[str, Report], client: str) -> None:
    results = reports[client].results
    assert results
    assert all(result.feature in features(result.api) for result in results)


@pytest.mark.parametrize("api", list(APIS))
def test_every_parameter_has_a_sample(reports: dict[str, Report], api: str) -> None:
    """Those that the gateway decodes, and those that the API's own SDK can send."""
    sdk: Any = reports["anthropic" if api == "messages" else "openai"].facts[f"{api} parameters"]
    sampled = {sample.name for sample in parameters.SAMPLES[api]}
    assert set(sdk) - sampled == set()
    assert parameters.known_fields(api) - sampled == set()


def test_the_document_is_what_was_found(
    reports: dict[str, Report], fates: dict[str, dict[int, str]], request: pytest.FixtureRequest
) -> None:
    found = document.document(reports, fates)
    failed = [result for report in reports.values() for result in report.results if not result.ok]
    assert not failed, "\n".join(f"{result.api} {result.feature}: {result.detail}" for result in failed)
    assert "FAILED" not in found
    if request.config.getoption("--write-compatibility", default=False):
        document.PATH.write_text(found)
    assert document.PATH.read_text() == found, "python -m pytest tests/clients --write-compatibility"
