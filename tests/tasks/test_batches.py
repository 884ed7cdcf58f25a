"""OpenAI's and Anthropic's own clients run their batches unchanged."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from fakes.offline_api import directive
from fakes.stack import wait_until
from fakes.task_stack import TaskStack

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


@pytest.fixture(scope="module")
def client(tasks: TaskStack) -> Iterator[openai.OpenAI]:
    url = f"{tasks.stack.url}/v1"
    with openai.OpenAI(base_url=url, api_key="x", max_retries=0, _strict_response_validation=True) as client:
        yield client


@pytest.fixture(scope="module")
def claude(tasks: TaskStack) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=tasks.stack.url, api_key="x", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def chat_line(name: str, prompt: str, url: str = CHAT, **more: Any) -> str:
    body = {"model": "sonnet", "messages": [{"role": "user", "content": prompt}], **more}
    return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body})


def run(client: openai.OpenAI, text: str, endpoint: Any = CHAT) -> Any:
    file = client.files.create(file=("lines.jsonl", io.BytesIO(text.encode())), purpose="batch")
    assert file.bytes == len(text.encode()) and client.files.content(file.id).read() == text.encode()
    batch = client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
    return wait_until(
        lambda: (
            (found := client.batches.retrieve(batch.id)).status in ("completed", "failed", "cancelled")
            and found
        ),
        timeout_s=60,
    )


def lines_of(client: openai.OpenAI, file_id: str) -> dict[str, Any]:
    content = client.files.content(file_id).read()
    assert client.files.retrieve(file_id).bytes == len(content)
    return {line["custom_id"]: line for line in map(json.loads, content.splitlines())}


def test_openais_client_runs_a_batch_of_chats(client: openai.OpenAI) -> None:
    tool = {
        "type": "function",
        "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
    }
    calling = directive(tool_calls=[{"name": "look", "input": {}}])
    text = "\n".join([chat_line("a", directive(text="one")), chat_line("b", calling, tools=[tool])])
    batch = run(client, text)
    assert batch.status == "completed" and batch.request_counts.completed == 2
    assert batch.error_file_id is None and batch.usage.total_tokens > 0
    answers = lines_of(client, batch.output_file_id)
    completion = openai.types.chat.ChatCompletion.model_validate(answers["a"]["response"]["body"])
    assert answers["a"]["response"]["status_code"] == 200 and answers["a"]["error"] is None
    assert completion.choices[0].message.content == "one" and completion.model == "sonnet"
    assert answers["b"]["response"]["body"]["choices"][0]["finish_reason"] == "tool_calls"
    assert batch.id in [found.id for found in client.batches.list(limit=3)]


def test_a_batch_of_responses(client: openai.OpenAI) -> None:
    body = {"model": "sonnet", "input": directive(text="two")}
    line = {"custom_id": "r", "method": "POST", "url": RESPONSES, "body": body}
    batch = run(client, json.dumps(line) + "\n", RESPONSES)
    answer = lines_of(client, batch.output_file_id)["r"]["response"]["body"]
    assert openai.types.responses.Response.model_validate(answer).output_text == "two"


def test_wrong_lines_are_errors_with_their_numbers_and_the_rest_is_answered(client: openai.OpenAI) -> None:
    text = "\n".join(
        [
            chat_line("good", "hello"),
            "this is not JSON",
            "",
            chat_line("url", "x", url="/v1/embeddings"),
            chat_line("good", "again"),
            chat_line("wrong", "x", temperature=9),
            chat_line("a\0b", "x"),
            chat_line("stream", "x", stream=True),
            json.dumps({"custom_id": "odd", "url": CHAT, "body": {}, "colour": 1}),
            chat_line("fails", directive(status=400, message="no")),
        ]
    )
    batch = run(client, text)
    assert batch.status == "completed"
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (9, 1, 8)
    assert set(lines_of(client, batch.output_file_id)) == {"good"}
    content = client.files.content(batch.error_file_id).read()
    errors = [json.loads(line)["response"]["body"]["error"] for line in content.splitlines()]
    assert [error.get("line") for error in errors] == [2, 4, 5, 6, 7, 8, 9, None]
    assert all(f"line {error['line']}:" in error["message"] for error in errors[:-1])
    assert "temperature" in errors[3]["message"] and "colour" in errors[6]["message"]


def test_cancelling_a_batch(client: openai.OpenAI) -> None:
    text = "\n".join(chat_line(str(n), directive(deltas=50, delta_ms=100)) for n in range(20))
    file = client.files.create(file=("x.jsonl", text.encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    wait_until(lambda: client.batches.retrieve(batch.id).status == "in_progress")
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    wait_until(lambda: client.batches.retrieve(batch.id).status == "cancelled")
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)


def test_files_are_listed_deleted_and_refused(client: openai.OpenAI, tasks: TaskStack) -> None:
    file = client.files.create(file=("x.jsonl", b"{}"), purpose="batch")
    assert file.id in [found.id for found in client.files.list(purpose="batch")]
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("x", b"x"), purpose="assistants")
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.BadRequestError, match="endpoint"):
        client.batches.create(input_file_id="x", endpoint="/v1/embeddings", completion_window="24h")
    other = tasks.http("GET", "/v1/files", anthropic_version="2023-06-01")
    assert (
        other.status == 404 and other.json["type"] == "error" and "OpenAI" in other.json["error"]["message"]
    )
    empty = client.files.create(file=("x.jsonl", b"\n \n"), purpose="batch")
    with pytest.raises(openai.BadRequestError, match="at least one line"):
        client.batches.create(input_file_id=empty.id, endpoint=CHAT, completion_window="24h")


def message(name: str, prompt: str, **more: Any) -> Any:
    params = {"model": "sonnet", "max_tokens": 100, "messages": [{"role": "user", "content": prompt}], **more}
    return {"custom_id": name, "params": params}


def test_anthropics_client_runs_a_message_batch(claude: anthropic.Anthropic) -> None:
    requests = [
        message("a", directive(text="one")),
        message("b", "x", temperature=9),
        message("c", directive(status=400, message="no")),
    ]
    batch = claude.messages.batches.create(requests=requests)
    assert batch.processing_status == "in_progress" and batch.results_url is None
    ended = wait_until(
        lambda: (found := claude.messages.batches.retrieve(batch.id)).processing_status == "ended" and found
    )
    counts = ended.request_counts
    assert (counts.processing, counts.succeeded, counts.errored) == (0, 1, 2)
    results = {entry.custom_id: entry.result for entry in claude.messages.batches.results(batch.id)}
    assert results["a"].type == "succeeded" and results["a"].message.content[0].text == "one"
    assert results["a"].message.usage.output_tokens > 0 and results["a"].message.model == "sonnet"
    assert {results["b"].type, results["c"].type} == {"errored"}
    assert results["b"].error.error.type == "invalid_request_error"
    assert batch.id in [found.id for found in claude.messages.batches.list(limit=5)]
    assert claude.messages.batches.delete(batch.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.retrieve(batch.id)


def test_cancelling_a_message_batch(claude: anthropic.Anthropic) -> None:
    slow = directive(deltas=50, delta_ms=100)
    batch = claude.messages.batches.create(requests=[message(str(n), slow) for n in range(12)])
    assert claude.messages.batches.cancel(batch.id).processing_status in ("canceling", "ended")
    ended = wait_until(
        lambda: (found := claude.messages.batches.retrieve(batch.id)).processing_status == "ended" and found
    )
    assert ended.request_counts.canceled == 12
    assert {entry.result.type for entry in claude.messages.batches.results(batch.id)} == {"canceled"}
