"""One answer through the whole path, checked at both ends: what the API received, what each client got."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import openai
import pytest

from ccd_client import Client
from ccd_protocol.errors import Code, RpcError
from fakes.stack import Api, Stack, running_stack, wait_until

HISTORY = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "u1"},
    {"role": "assistant", "content": "a1"},
    {"role": "developer", "content": "and kind"},
    {
        "role": "user",
        "content": [{"type": "text", "text": "/clear @/etc/hosts"}, {"type": "text", "text": "u2"}],
    },
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("chat"), cli, api, gateway=True) as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    stack.settle()
    with Client(stack.socket) as client:
        yield client


def openai_client(stack: Stack) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{stack.url}/v1", api_key="not-needed", max_retries=0, _strict_response_validation=True
    )


def texts(content: object) -> list[str]:
    return [content] if isinstance(content, str) else [block["text"] for block in content]  # type: ignore[union-attr]


def test_the_api_receives_exactly_what_the_client_asked(stack: Stack, client: Client) -> None:
    client.chat(HISTORY, model="claude-sonnet-4-5", temperature=0.25, max_tokens=77, stop=["STOP", "END"])
    (body,) = stack.api.bodies()
    assert "\n".join(block["text"] for block in body["system"]).split() == ["be", "brief", "and", "kind"]
    assert [(message["role"], texts(message["content"])) for message in body["messages"]] == [
        ("user", ["u1"]),
        ("assistant", ["a1"]),
        ("user", ["/clear @/etc/hosts", "u2"]),
    ]
    assert (body["temperature"], body["max_tokens"]) == (0.25, 77)
    assert body["stop_sequences"] == ["STOP", "END"]
    assert body["model"] == "claude-sonnet-4-5"
    assert body["tools"] == []
    assert "thinking" not in body


def test_a_sampling_parameter_that_the_model_no_longer_takes_is_left_out_and_named(
    stack: Stack, client: Client
) -> None:
    answer = client.chat("hello", model="haiku", temperature=0.5, top_p=0.5)
    assert answer.result["ignored"] == ["temperature", "top_p"]
    assert client.chat("again", model="haiku", temperature=0.5).result["ignored"] == ["temperature"]
    sent = ["+".join(key for key in ("temperature", "top_p") if key in body) for body in stack.api.bodies()]
    assert [key for key, _ in groupby(sent)] == ["temperature+top_p", "top_p", ""]  # learned once per model
    with openai_client(stack) as http:
        raw = http.chat.completions.with_raw_response.create(
            model="haiku", messages=[{"role": "user", "content": "x"}], temperature=0.5
        )
        assert "temperature" in raw.headers["x-ccd-ignored"]


def test_without_a_system_prompt_the_api_receives_none(stack: Stack, client: Client) -> None:
    client.chat("hello")
    assert stack.api.bodies()[0]["system"] == []


def test_the_answer_streams_token_by_token(client: Client) -> None:
    events = list(client.chat("one two three four five", stream=True))
    deltas = [event.text for event in events if type(event).__name__ == "TextDelta"]
    assert len(deltas) > 3
    assert "one two three four five" in "".join(deltas)


def test_usage_and_stop_reason_are_the_apis(stack: Stack, client: Client) -> None:
    answer = client.chat("hello there")
    assert answer.stop_reason == "end_turn"
    assert answer.usage["input_tokens"] > 0
    assert answer.usage["output_tokens"] > 0
    assert answer.result["api_calls"] == 1


def test_max_tokens_ends_the_answer_and_the_cli_cannot_continue_it(stack: Stack, client: Client) -> None:
    slow = '[[offline: {"text": "one two three four five six", "deltas": 6, "delta_ms": 40}]]'
    answer = client.chat(slow, max_tokens=4)
    assert answer.stop_reason == "max_tokens"
    assert client.chat("next").stop_reason == "end_turn"
    bodies = stack.api.bodies()
    assert [body for body in bodies if body.get("max_tokens") == 4] == bodies[:1]
    assert all(body["max_tokens"] == 0 for body in bodies[1:-1])  # what the CLI tried was refused unbilled


def test_calls_that_the_cli_makes_by_itself_are_counted(stack: Stack, client: Client) -> None:
    """On an instant API the CLI can win the race against the interrupt; the figure counts what it announced."""
    before = stack.status()["counters"]["surplus_calls"]
    for _ in range(3):
        assert client.chat("word " * 50, max_tokens=3).stop_reason == "max_tokens"
    assert stack.status()["counters"]["surplus_calls"] - before >= len(stack.api.bodies()) - 3


def test_a_stop_sequence_ends_the_answer(client: Client) -> None:
    answer = client.chat("alpha STOP omega", stop=["STOP"])
    assert answer.stop_reason == "stop_sequence"
    assert "omega" not in answer.text


@pytest.mark.parametrize("number", range(3))
def test_requests_in_flight_never_see_each_other(stack: Stack, client: Client, number: int) -> None:
    canaries = [f"canary-{number}-{index}" for index in range(8)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda canary: client.chat(f"say {canary}").text, canaries))
    for canary, answer in zip(canaries, answers, strict=True):
        assert [other for other in canaries if other in answer] == [canary]
    for body in stack.api.bodies():
        assert sum(canary in json.dumps(body) for canary in canaries) == 1


def test_nothing_of_an_earlier_request_is_in_a_later_one(stack: Stack, client: Client) -> None:
    for index in range(25):  # past the reset that comes every 20 turns
        client.chat(f"secret-{index}", system=f"system-{index}")
    for index, body in enumerate(stack.api.bodies()):
        text = json.dumps(body)
        assert [other for other in range(25) if f'secret-{other}"' in text or f'system-{other}"' in text] == [
            index
        ]


def test_unknown_models_and_profiles_are_not_found(client: Client) -> None:
    for model in ("claude-nonsense-9", "nonsense/haiku"):
        with pytest.raises(RpcError) as caught:
            client.chat("hello", model=model)
        assert caught.value.code is Code.MODEL_NOT_FOUND
    with pytest.raises(RpcError) as caught:
        client.chat("hello", profile="nonsense")
    assert caught.value.code is Code.MODEL_NOT_FOUND


def test_openai_sdk_streamed_and_not(stack: Stack) -> None:
    stack.api.reset()
    with openai_client(stack) as http:
        answer = http.chat.completions.create(model="sonnet", messages=HISTORY)  # type: ignore[arg-type]
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.total_tokens > 0
        stream = http.chat.completions.create(
            model="sonnet",
            messages=HISTORY,
            stream=True,
            stream_options={"include_usage": True},  # type: ignore[arg-type]
        )
        chunks = list(stream)
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert streamed == answer.choices[0].message.content
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
    first, second = stack.api.bodies()
    assert first["messages"] == second["messages"]
    assert [message["role"] for message in first["messages"]] == ["user", "assistant", "user"]


def test_openai_sdk_errors(stack: Stack) -> None:
    with openai_client(stack) as http:
        with pytest.raises(openai.NotFoundError) as missing:
            http.chat.completions.create(
                model="claude-nonsense-9", messages=[{"role": "user", "content": "x"}]
            )
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as wrong:
            http.chat.completions.create(
                model="sonnet", messages=[{"role": "user", "content": "x"}], max_tokens=-1
            )
        assert wrong.value.param in ("max_tokens", "max_completion_tokens")
        ids = [model.id for model in http.models.list()]
        assert "claude-sonnet-5-5" in ids
        assert http.models.retrieve(ids[0]).id == ids[0]


def test_an_http_client_that_goes_away_interrupts_the_turn_at_once(stack: Stack) -> None:
    stack.api.reset()
    request = {
        "model": "sonnet",
        "stream": True,
        "messages": [{"role": "user", "content": '[[offline: {"hang": true}]]'}],
    }
    curl = subprocess.Popen(
        ["curl", "-sN", f"{stack.url}/v1/chat/completions", "-d", json.dumps(request)],
        stdout=subprocess.DEVNULL,
    )
    wait_until(stack.api.requests, what="the request to reach the API")
    curl.kill()
    curl.wait()
    wait_until(
        lambda: stack.api.requests()[0]["outcome"] == "disconnected",
        timeout_s=5,
        what="the upstream request to be dropped",
    )
    wait_until(
        lambda: not any(worker["state"] == "busy" for worker in stack.workers()), what="the worker to be free"
    )


def test_the_command_line(stack: Stack) -> None:
    asked = stack.ccd("ask", "--model", "haiku", "hello from the shell")
    assert asked.returncode == 0, asked.stderr
    assert "hello from the shell" in asked.stdout
    piped = stack.ccd("ask", "--json", "-", stdin="from a pipe")
    assert "from a pipe" in json.loads(piped.stdout)["text"]
    assert "pong" in stack.ccd("ctl", "ping").stdout
    assert json.loads(stack.ccd("ctl", "ping", "--json").stdout)["pid"] == stack.daemon.pid
    assert json.loads(stack.ccd("ctl", "status", "--json").stdout)["state"] == "ready"
    assert "ready" in stack.ccd("ctl", "status").stdout
    rows = json.loads(stack.ccd("ctl", "workers", "--json").stdout)["workers"]
    assert rows[0]["id"] in stack.ccd("ctl", "workers").stdout
    missing = stack.ccd("ask", "--model", "claude-nonsense-9", "x")
    assert missing.returncode == 1
    assert "claude-nonsense-9" in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "problem"),
    [
        (["x", "--timeout", "nan"], b"", "--timeout"),
        (["x", "--timeout", "-1"], b"", "--timeout"),
        (["x", "--timeout", "0"], b"", "--timeout"),
        (["-"], b"caf\xe9", "not UTF-8"),
        ([b"caf\xe9"], b"", "not UTF-8"),
        (["-"], b" \n", "no prompt"),
        (["--batch", "-"], b'"caf\xe9"\n', "not UTF-8"),
        (["--batch", "-"], b'"fine"\n{\n', "line 2"),
    ],
)
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_wrong_use_is_told_in_words(
    stack: Stack, arguments: list[str | bytes], stdin: bytes, problem: str, locale: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ccd_cli", "ask", *arguments],
        env={**stack.environ(), "LC_ALL": locale},
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert problem in done.stderr.decode()
    assert not done.stdout


def test_commands_find_the_socket_in_the_settings_file(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "ccd.toml"
    file.write_text(f'[server]\nsocket = "{stack.socket}"\nmax_connections_per_uid = 9\n')
    environ = {name: value for name, value in stack.environ().items() if name != "CCD_SOCKET"}
    for command in (["ask", "found it"], ["ctl", "ping"]):
        done = subprocess.run(
            [sys.executable, "-m", "ccd_cli", *command],
            env={**environ, "CCD_CONFIG": str(file)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_commands_without_a_daemon_say_what_to_do(stack: Stack, tmp_path: Path) -> None:
    for command in (["ask", "x"], ["ctl", "ping"], ["ctl", "status"]):
        lost = stack.ccd(*command, "--socket", str(tmp_path / "none.sock"))
        assert lost.returncode == 69
        assert "ccd up" in lost.stderr


def test_no_prompt_is_in_any_command_line_or_log(stack: Stack, client: Client) -> None:
    client.chat("canary-prompt-4711", system="canary-system-4711")
    stack.ccd("ask", "-", stdin="canary-prompt-4711")
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            assert b"4711" not in line
    for log in stack.folder.glob("*.log"):
        assert "4711" not in log.read_text(errors="replace")
