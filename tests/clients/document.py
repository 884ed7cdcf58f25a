"""docs/compatibility.md, written from what the clients' tests found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from clients.features import APIS, REPLAY, TITLES, features
from clients.parameters import SAMPLES
from clients.runs import Report

PATH = Path(__file__).parents[2] / "docs" / "compatibility.md"
YES, NO, NOT_SHOWN = "yes", "**no**", "–"
#: What clients' tables are headed with, in their order, and what is to be known of them.
CLIENTS = {
    "openai": "OpenAI's Python SDK; blocking and async, strict response validation",
    "anthropic": "Anthropic's Python SDK; blocking and async, strict response validation",
    "litellm": "LiteLLM, the library; `openai/…`, `litellm.responses`, `anthropic/…`",
    "langchain": "LangChain's `ChatOpenAI`, also with `use_responses_api`, and `ChatAnthropic`",
    "pydantic-ai": "Pydantic AI's `OpenAIChatModel`, `OpenAIResponsesModel` and `AnthropicModel`",
    "openai-agents": "OpenAI's Agents SDK over both of OpenAI's APIs",
    "instructor": "Instructor; modes `TOOLS`, `TOOLS_STRICT`, `JSON`, `JSON_SCHEMA`",
    "llm": "the `llm` command's library",
    "claude": "Claude Code itself, `claude -p`",
    "curl": "what stands on the wire",
    "llm-comply": "checks answers against the published schemas",
}
_HEAD = """\
# Compatibility

What clients were run with ccd, and what was seen. The tests write this page, and a test fails when it is not what they
find: each `yes` is a test with the real client, the real gateway and daemon, and the real Claude Code CLI, before a
scripted model API on loopback. How to set the clients up: [clients.md](clients.md). To write it again:

    python -m pytest tests/clients --write-compatibility

## Clients

| client | versions | |
|---|---|---|
"""
_FEATURES = f"""
Run by hand, and in order but for what is said here: openai-node 7.57.0, @anthropic-ai/sdk 1.12.0, AI SDK 7.0.173 with
@ai-sdk/openai 4.0.118, openai-compatible 3.0.92, open-responses 2.0.36 and anthropic 4.0.105, @langchain/openai 1.6.0,
@openai/agents 0.20.0 (Node 22.23), Aider 0.86.2. `@ai-sdk/open-responses` takes a refusal for a text and fails on it.

`{YES}`: shown by a test. `{NOT_SHOWN}`: the client has no such thing, or the test does not show it.
"""
_REPLAY = """
## In mode `replay`

With a subscription login, or `engine.body = "replay"`, the same tests pass (`CCD_ENGINE__BODY=replay python -m pytest
tests/clients`), but for what has no knob there. What is ignored is named, as everywhere. More is in
[replay.md](replay.md).

| | |
|---|---|
"""
_PARAMETERS = """
## Parameters

What became of each parameter: it was sent alone, and the request that the model API received was compared with the
one without it. What is ignored is named in the header `X-CCD-Ignored`, or refused where the request has
`X-CCD-Strict: true`.
"""

Fates = Mapping[str, Mapping[int, str]]


class Promise(NamedTuple):
    """A `yes` in the committed document."""

    api: str
    client: str
    feature: str


def document(reports: Mapping[str, Report], fates: Fates) -> str:
    """The whole page."""
    text = _HEAD + "".join(_client_row(client, reports[client]) for client in CLIENTS) + _FEATURES
    text += "".join(_feature_table(api, reports) for api in APIS)
    text += _REPLAY + "".join(_replay_row(feature) for feature in REPLAY)
    text += _PARAMETERS
    return text + "".join(_parameter_table(api, fates[api]) for api in APIS)


def _replay_row(feature: str) -> str:
    apis, why = REPLAY[feature]
    where = "" if apis == tuple(APIS) else f" ({', '.join(APIS[api] for api in apis)})"
    return f"| {TITLES[feature]}{where} | {why} |\n"


def _client_row(client: str, report: Report) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return f"| {client} | {versions or 'any'} | {CLIENTS[client]} |\n"


def _feature_table(api: str, reports: Mapping[str, Report]) -> str:
    clients = [client for client in CLIENTS if any(result.api == api for result in reports[client].results)]
    head = f"\n## {APIS[api]}\n\n| | {' | '.join(clients)} |\n|---|{'---|' * len(clients)}\n"
    rows = (
        f"| {TITLES[feature]} | {' | '.join(_cell(reports[client], api, feature) for client in clients)} |\n"
        for feature in features(api)
    )
    return head + "".join(rows)


def _cell(report: Report, api: str, feature: str) -> str:
    found = [result.ok for result in report.results if (result.api, result.feature) == (api, feature)]
    if not found:
        return NOT_SHOWN
    return YES if all(found) else NO


def _parameter_table(api: str, fates: Mapping[int, str]) -> str:
    rows = (
        f"| {_code(sample.name)} | {_code(sample.text)} | {fates[number]} |\n"
        for number, sample in enumerate(SAMPLES[api])
    )
    return f"\n### {APIS[api]}\n\n| parameter | value | what becomes of it |\n|---|---|---|\n" + "".join(rows)


def _code(text: str) -> str:
    """JSON and names as code, prose as it is."""
    plain = " " in text and not text.startswith(("{", "["))
    return text if plain else f"`{text}`"


def promises(text: str) -> list[Promise]:
    """Every `yes` of a page."""
    names = {title: feature for feature, title in TITLES.items()}
    found: list[Promise] = []
    for api, title in APIS.items():
        table = re.search(rf"^## {title}\n\n((?:\|.*\n)+)", text, re.MULTILINE)
        if table is None:
            continue
        head, _, *rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table[1].splitlines()]
        for name, *cells in rows:
            pairs = zip(head[1:], cells, strict=True)
            found += [Promise(api, client, names[name]) for client, cell in pairs if cell == YES]
    return found
