"""curl: what stands on the wire, seen without any client library."""

import json
import os
import signal
import subprocess
from typing import Any

import driver
from driver import ANTHROPIC_URL, CITY, KEY, MODEL, OPENAI_URL, OSLO, PNG_URL, ROME, contains, same

PATHS = {
    "chat": f"{OPENAI_URL}/chat/completions",
    "responses": f"{OPENAI_URL}/responses",
    "messages": f"{ANTHROPIC_URL}/v1/messages",
}
CHAT_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}


def curl(*arguments: str, body: Any = None) -> str:
    """What curl prints."""
    command = [
        "curl",
        "--silent",
        "--show-error",
        "--no-buffer",
        "--noproxy",
        "*",
        "--max-time",
        "60",
        *arguments,
    ]
    if body is not None:
        command += ["--data-binary", "@-"]
    done = subprocess.run(
        command, input=None if body is None else json.dumps(body), capture_output=True, text=True, check=True
    )
    return done.stdout


def asked(api: str, prompt: Any, **fields: Any) -> dict[str, Any]:
    """The smallest body that asks one thing."""
    turn = {"input": prompt} if api == "responses" else {"messages": [{"role": "user", "content": prompt}]}
    limit = {"max_tokens": 500} if api == "messages" else {}
    return {"model": MODEL, **limit, **turn, **fields}


def ask(api: str, prompt: Any, **fields: Any) -> Any:
    """The decoded answer; like most people who use curl, it does not say what type the body has."""
    return json.loads(
        curl(PATHS[api], "-H", f"Authorization: Bearer {KEY}", body=asked(api, prompt, **fields))
    )


def stream(api: str, prompt: Any, **fields: Any) -> list[Any]:
    """The data of a stream's events, decoded, but for the last word."""
    text = curl(PATHS[api], body=asked(api, prompt, stream=True, **fields))
    same((text[-2:], "\r" in text), ("\n\n", False))
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in data]


def text_of(api: str, answer: Any) -> str:
    """The text of an answer."""
    if api == "chat":
        return str(answer["choices"][0]["message"]["content"])
    content = answer["output"][-1]["content"] if api == "responses" else answer["content"]
    return str(content[-1]["text"])


each = driver.across("chat", "responses", "messages")


@each("plain")
def _(case: Any, api: str) -> None:
    contains(text_of(api, ask(api, case.says("hello"))), "hello")


@each("stream")
def _(case: Any, api: str) -> None:
    events = stream(api, case.says(deltas=3))
    same(events[-1] == "[DONE]", api == "chat")
    contains(json.dumps(events), "w1")


@driver.feature("chat", "tools_streamed")
def _(case: Any) -> None:
    events = stream("chat", case.calls(ROME, OSLO), tools=[CHAT_TOOL])
    calls = [call for event in events[:-1] for call in event["choices"][0]["delta"].get("tool_calls", [])]
    for index, city in enumerate((ROME, OSLO)):
        first, *later = [call for call in calls if call["index"] == index]
        same((first["type"], first["function"]), ("function", {"name": "get_weather", "arguments": ""}))
        same(bool(first["id"]), True)
        same([set(call) for call in later], [{"index", "function"}] * len(later))
        same(json.loads("".join(call["function"]["arguments"] for call in later)), city)


@driver.feature("chat", "tool")
def _(case: Any) -> None:
    message = ask("chat", case.calls(ROME), tools=[CHAT_TOOL])["choices"][0]["message"]
    same(json.loads(message["tool_calls"][0]["function"]["arguments"]), ROME)


@driver.feature("chat", "images")
def _(case: Any) -> None:
    image = {"type": "image_url", "image_url": {"url": PNG_URL}}
    ask("chat", [image, {"type": "text", "text": case.says()}])
    same(case.body()["messages"][0]["content"][0]["type"], "image")


@each("broken")
def _(case: Any, api: str) -> None:
    text = curl(PATHS[api], body=asked(api, case.breaking(), stream=True))
    # On a machine that is very busy the failure may be there before the stream has begun: then it has a status.
    last = text.strip().rpartition("data: ")[2]
    contains(json.loads(last)["error"]["message"], "broke off")


@each("errors")
def _(case: Any, api: str) -> None:
    for fault, status in ((401, 401), (429, 429), (529, 529 if api == "messages" else 503)):
        written = "\n%{http_code} %header{content-type} %header{retry-after}"
        body = asked(api, case.says(status=fault, retry_after_s=20))
        answer, _, last = curl(PATHS[api], "-w", written, body=body).rpartition("\n")
        same(last.split()[:2], [str(status), "application/json"])
        same(bool(json.loads(answer)["error"]["message"]), True)
        same(len(last.split()) == 3, status != 401)


@each("cancel")
def _(case: Any, api: str) -> None:
    body = json.dumps(asked(api, case.says("a b c d", deltas=4, hang_after_deltas=2), stream=True))
    with subprocess.Popen(
        ["curl", "-sN", "--noproxy", "*", PATHS[api], "-d", body], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
    case.wait_interrupted()


@each("request_id")
def _(case: Any, api: str) -> None:
    written = curl(
        PATHS[api],
        "-o",
        os.devnull,
        "-H",
        "X-Request-ID: mine",
        "-w",
        "%header{x-request-id}",
        body=asked(api, case.says()),
    )
    same(written, "mine")


@driver.feature("chat", "models")
def _(case: Any) -> None:
    contains([model["id"] for model in json.loads(curl(f"{OPENAI_URL}/models"))["data"]], "sonnet")


@driver.feature("messages", "models")
def _(case: Any) -> None:
    listed = json.loads(curl(f"{OPENAI_URL}/models", "-H", "anthropic-version: 2023-06-01"))
    same({model["type"] for model in listed["data"]}, {"model"})


@driver.feature("chat", "conversation")
def _(case: Any) -> None:
    name = case.mark.strip("<>")
    same(ask("chat", case.says("noted"), conversation_id=name)["conversation_id"], name)
    ask("chat", case.says(), conversation_id=name)
    same(len(case.bodies()[-1]["messages"]), 3)


@driver.feature("messages", "counting")
def _(case: Any) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    same(json.loads(curl(f"{PATHS['messages']}/count_tokens", body=body))["input_tokens"] > 0, True)


@driver.feature("responses", "counting")
def _(case: Any) -> None:
    same(
        json.loads(curl(f"{PATHS['responses']}/input_tokens", body={"input": "hello"}))["input_tokens"] > 0,
        True,
    )


@driver.feature("responses", "background")
def _(case: Any) -> None:
    found = ask("responses", case.says(deltas=3), background=True)
    while found["status"] in ("queued", "in_progress"):
        found = json.loads(curl(f"{PATHS['responses']}/{found['id']}"))
    same(text_of("responses", found), "w1 w2 w3")
    replay = curl(f"{PATHS['responses']}/{found['id']}?stream=true&starting_after=2")
    contains(replay, "event: response.completed")


@driver.feature("responses", "stored")
def _(case: Any) -> None:
    first = ask("responses", case.says("noted"))
    ask("responses", case.says(), previous_response_id=first["id"])
    same(len(case.bodies()[-1]["messages"]), 3)
    path = f"{PATHS['responses']}/{first['id']}"
    same(json.loads(curl("-X", "DELETE", path))["deleted"], True)
    same(curl("-o", os.devnull, "-w", "%{http_code}", path), "404")


driver.main()
