"""What all drivers share. It runs in every client's own environment, so it needs the standard library only.

A driver is a script: functions marked `@feature(API, NAME)` each use the client once, as its users do, and fail by
raising. `main()` runs them, some at a time, and prints the results as one line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import sys
import threading
import time
import traceback
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from itertools import count
from typing import Any

MODEL = "claude-sonnet-4-6"  # takes sampling parameters, which newer models refuse, and thinks
OPENAI_URL = os.environ["OPENAI_BASE_URL"]
ANTHROPIC_URL = os.environ["ANTHROPIC_BASE_URL"]
KEY = os.environ["OPENAI_API_KEY"]
AT_A_TIME = 5
WAIT_S = 60.0
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PNG_URL = f"data:image/png;base64,{PNG}"
PDF = "JVBERi0xLjQ="
PDF_URL = f"data:application/pdf;base64,{PDF}"
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
ROME, OSLO = {"city": "Rome"}, {"city": "Oslo"}

_api = os.environ["OFFLINE_API_URL"]
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_numbers = count(1)
_features: list[tuple[str, str, str, Callable[[Case], Any]]] = []
_facts: dict[str, Any] = {}
_newest = [0]  # the number of the newest request that has been seen, so that nobody reads all of them again


@dataclass
class Case:
    """One use of the client: how to script the model, and what the model's API received."""

    mark: str
    after: int  # the number of a request that the API had received before
    client: Any = None

    def says(self, text: str | None = None, **directive: Any) -> str:
        """A prompt that makes the model answer as told; with no directive the model echoes the prompt."""
        if text is not None:
            directive["text"] = text
        return f"{self.mark} [[offline: {json.dumps(directive)}]]" if directive else f"{self.mark} please"

    def calls(self, *cities: Mapping[str, str], tool: str = "get_weather", **directive: Any) -> str:
        """A prompt that makes the model call the weather tool, once for each city."""
        return self.says(tool_calls=[{"name": tool, "input": city} for city in cities], **directive)

    def breaking(self, **fault: int) -> str:
        """A prompt whose answer breaks off, by default with an error, some time after its first half."""
        return self.says("one two three four", deltas=4, delta_ms=150, **(fault or {"error_after_deltas": 2}))

    def later(self, text: str) -> str:
        """A prompt that meets a rate limit of six seconds, once; then the mark and the text are the answer."""
        return self.says(f"{self.mark} {text}", status=429, retry_after_s=6, times=1)

    def waited(self) -> None:
        """The client must have waited for as long as it was told, and asked once more."""
        first, second = self.requests()
        waited_s = second["arrived_at"] - first["finished_at"]
        if waited_s < 5:
            raise AssertionError(f"the client waited for {waited_s:g} s instead of 6")

    def requests(self) -> list[dict[str, Any]]:
        """What the model's API received of this case, oldest first, without what the CLI adds to all of it."""
        found = [request for request in _received(self.after) if self.mark in json.dumps(request["body"])]
        return [{**request, "body": _the_clients(request["body"])} for request in found]

    def bodies(self) -> list[dict[str, Any]]:
        """The bodies of those requests."""
        return [request["body"] for request in self.requests()]

    def body(self) -> dict[str, Any]:
        """The body of the one request that there must have been."""
        bodies = self.bodies()
        same(len(bodies), 1)
        return bodies[0]

    def wait_interrupted(self) -> None:
        """Until the CLI has hung up on the API, as it does when its turn is interrupted."""
        until(lambda: self.requests()[0]["outcome"] == "disconnected", "the turn to be interrupted")


def _the_clients(body: dict[str, Any]) -> dict[str, Any]:
    """In mode `replay`: a request without the CLI's first line, notes and cache marks, and texts in their short form.

    What it adds is always the same, and is listed in docs/replay.md.
    """
    if os.environ.get("CCD_ENGINE__BODY") != "replay":
        return body
    own = [message for message in body["messages"] if message["role"] != "system"]
    found: dict[str, Any] = _unmarked({**body, "messages": own})
    for message in found["messages"]:
        blocks = message["content"] if isinstance(message["content"], list) else []
        for part in [message, *(block for block in blocks if block["type"] == "tool_result")]:
            part["content"] = _short(part["content"])
    if isinstance(found.get("system"), list):
        found["system"] = found["system"][1:]
    return found


def _short(content: Any) -> Any:
    """A single text as a text."""
    alone = isinstance(content, list) and len(content) == 1 and set(content[0]) == {"type", "text"}
    return content[0]["text"] if alone else content


def _unmarked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unmarked(item) for key, item in value.items() if key != "cache_control"}
    return [_unmarked(item) for item in value] if isinstance(value, list) else value


def script(reply: dict[str, Any], *, contains: str) -> None:
    """Make the model answer so whenever the prompt contains a text; for clients that choose their own prompts."""
    entry = {"reply": reply, "match": {"contains": contains}, "uses": -1}
    body = json.dumps({"replies": [entry]}).encode()
    request = urllib.request.Request(f"{_api}/_offline/script", body, {"Content-Type": "application/json"})
    with _opener.open(request, timeout=30):
        pass


def same(found: Any, wanted: Any) -> None:
    """Fail unless both are equal, and say what they are."""
    if found != wanted:
        raise AssertionError(f"found {found!r}, wanted {wanted!r}")


def contains(text: Any, part: str) -> None:
    """Fail unless the part stands in the text."""
    if part not in str(text):
        raise AssertionError(f"{part!r} is not in {text!r}")


def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll a fact of another process until it is true; its value."""
    deadline = time.monotonic() + WAIT_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {WAIT_S:g} s: {what}")
        time.sleep(0.05)
    return value


@contextlib.contextmanager
def raises(kind: type[BaseException] | tuple[type[BaseException], ...], part: str = "") -> Any:
    """The block must raise such an error, with such a text; its value is a list that then holds the error."""
    caught: list[Any] = []
    try:
        yield caught
    except kind as error:
        caught.append(error)
        contains(error, part)
        return
    raise AssertionError(f"no {kind}")


def feature(api: str, name: str) -> Callable[[Any], Any]:
    """Mark a function, plain or async, as the proof of a feature; it takes a `Case`."""

    def mark(function: Any) -> Any:
        _features.append((api, name, "", function))
        return function

    return mark


def across(*apis: str) -> Callable[..., Callable[[Any], Any]]:
    """Like `feature`, for functions that are the proof for several APIs, or some of them, and take an API as well."""

    def each(name: str, *only: str) -> Callable[[Any], Any]:
        def mark(function: Any) -> Any:
            for api in only or apis:
                feature(api, name)(lambda case, api=api: function(case, api))
            return function

        return mark

    return each


def variants(**clients: Callable[[], Any]) -> Callable[[str, str], Callable[[Any], Any]]:
    """Like `feature`, for async functions that are run once for each of the clients, as `case.client`."""

    def both(api: str, name: str) -> Callable[[Any], Any]:
        def mark(function: Any) -> Any:
            for variant, make in clients.items():
                _features.append((api, name, variant, _using(make, function)))
            return function

        return mark

    return both


def _using(make: Callable[[], Any], function: Any) -> Callable[[Case], Any]:
    async def run(case: Case) -> None:
        case.client = make()
        try:
            await function(case)
        finally:
            await value(case.client.close())

    return run


def fact(name: str, content: Any) -> None:
    """Something else that the tests want to know of the client."""
    _facts[name] = content


async def value(found: Any) -> Any:
    """What a blocking or an async client returned."""
    return await found if inspect.isawaitable(found) else found


async def items(stream: Any) -> AsyncIterator[Any]:
    """The items of a blocking or an async stream."""
    if hasattr(stream, "__aiter__"):
        async for item in stream:
            yield item
    else:
        for item in stream:
            yield item


@contextlib.asynccontextmanager
async def opened(manager: Any) -> AsyncIterator[Any]:
    """A blocking or an async context manager."""
    if hasattr(manager, "__aenter__"):
        async with manager as found:
            yield found
    else:
        with manager as found:
            yield found


def main(*distributions: str) -> None:
    """Run all features, and print their results and the versions of the distributions as JSON."""
    _features.sort(key=lambda entry: entry[1] != "retry_after")  # it waits, while the others run
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        results = list(pool.map(_run, _features))
    versions = {name: metadata.version(name) for name in distributions}
    report = {"versions": versions, "results": results, "facts": _facts}
    print("\n" + json.dumps(report), flush=True)
    # Some clients' own threads would keep the process from ending.
    os._exit(0)


def _run(entry: tuple[str, str, str, Callable[[Case], Any]]) -> dict[str, Any]:
    api, name, variant, function = entry
    mark = f"<{os.path.basename(sys.argv[0]).removesuffix('.py')}-{next(_numbers)}>"
    began = time.monotonic()
    try:
        found = function(Case(mark, _newest[0]))
        if inspect.iscoroutine(found):
            asyncio.run(found)
        detail = None
    except BaseException:
        detail = traceback.format_exc()[-6000:]
    threading.current_thread().name = "driver"
    took_s = round(time.monotonic() - began, 2)
    return {
        "api": api,
        "feature": name,
        "variant": variant,
        "ok": detail is None,
        "detail": detail,
        "took_s": took_s,
    }


def _received(after: int) -> list[dict[str, Any]]:
    """What the API received of all its clients after a request."""
    with _opener.open(f"{_api}/_offline/requests?path=/v1/messages&after={after}", timeout=30) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())["requests"]
    _newest[0] = max([_newest[0], *(request["seq"] for request in found)])
    return found


_received(0)
