"""The commands that people sit before, on a real terminal whose screen is read, and in pipes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.stack import Api, Stack, running_stack
from fakes.terminal import Terminal, terminal

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with running_stack(folder, cli, api, CCD_DATA__DIR=str(folder / "data")) as stack:
        yield stack


@pytest.fixture
def screen(stack: Stack, tmp_path: Path) -> Iterator[Terminal]:
    with terminal(tmp_path / "terminal", stack.environ()) as screen:
        yield screen


def said(body: dict[str, Any]) -> str:
    return json.dumps(body["messages"][-1]["content"])


def test_ask_at_a_terminal(stack: Stack, screen: Terminal) -> None:
    stack.api.reset()
    screen.ccd(
        'ask -v what is a terminal \'[[offline: {"first_ms": 1500, "text": "A screen with *keys*."}]]\''
    )
    screen.wait("Waiting for the first word")
    shown = screen.wait("s in all")
    assert "A screen with *keys*." in shown and "Waiting" not in shown
    assert "tokens in" in shown and "first word after" in shown and "$" in shown
    assert "what is a terminal" in said(stack.api.bodies()[-1])
    screen.clear()
    screen.ccd('ask --markdown say \'[[offline: {"text": "# Title\\n\\nA **bold** word."}]]\'')
    assert "**" not in screen.wait("A bold word.").partition("Title")[2].partition("]]")[2]


def test_retries_are_shown(stack: Stack, screen: Terminal) -> None:
    screen.ccd('ask \'[[offline: {"status": 529, "times": 1, "retry_after_s": 0, "text": "at last"}]]\' x')
    shown = screen.wait("the model API is asked again")
    assert "529" in shown


def test_what_is_piped_in_goes_along(stack: Stack) -> None:
    stack.api.reset()
    done = stack.ccd("ask", "write", "a", "commit", "message", stdin="diff --git a/x b/x\n")
    assert done.returncode == 0 and done.stdout.endswith("\n") and done.stderr == ""
    assert said(stack.api.bodies()[-1]).count("write a commit message\\n\\ndiff --git a/x b/x") == 1
    assert stack.ccd("ask", stdin="only this").returncode == 0
    assert stack.ccd("ask", "-", stdin="asked for").returncode == 0
    assert "only this" in said(stack.api.bodies()[-2]) and "asked for" in said(stack.api.bodies()[-1])
    empty = stack.ccd("ask", stdin="")
    assert empty.returncode == 2 and "there is no prompt" in empty.stderr


def test_files_and_bytes_go_along(stack: Stack, tmp_path: Path) -> None:
    stack.api.reset()
    for name, data in (("a.png", PNG), ("b.pdf", PDF), ("c.txt", b"some notes")):
        (tmp_path / name).write_bytes(data)
    files = [part for name in ("a.png", "b.pdf", "c.txt") for part in ("-f", str(tmp_path / name))]
    assert stack.ccd("ask", "what are these?", *files).returncode == 0
    kinds = [block["type"] for block in stack.api.bodies()[-1]["messages"][-1]["content"]]
    assert kinds[:4] == ["text", "image", "document", "text"]
    assert "c.txt:\\n\\nsome notes" in said(stack.api.bodies()[-1])
    (tmp_path / "bad").write_bytes(b"\xff\x00")
    refused = stack.ccd("ask", "x", "-f", str(tmp_path / "bad"))
    assert refused.returncode == 2 and "is not UTF-8 text" in refused.stderr


def test_a_question_goes_on(stack: Stack) -> None:
    stack.api.reset()
    assert stack.ccd("ask", "the first").returncode == 0
    assert stack.ccd("ask", "-c", "the second").returncode == 0
    assert [message["role"] for message in stack.api.bodies()[-1]["messages"]] == [
        "user",
        "assistant",
        "user",
    ]
    assert stack.ccd("ask", "--conversation", "notes", "alone").returncode == 0
    assert len(stack.api.bodies()[-1]["messages"]) == 1
    assert stack.ccd("ask", "--forget", "not kept").returncode == 0
    assert stack.ccd("ask", "-c", "after notes").returncode == 0
    assert "alone" in json.dumps(stack.api.bodies()[-1]["messages"])
    assert stack.ccd("ask", "-c", "--forget", "x").returncode == 2


def test_json_also_for_failures(stack: Stack, tmp_path: Path) -> None:
    answer = json.loads(stack.ccd("ask", "--json", "hello").stdout)
    assert "hello" in answer["text"] and answer["usage"]["output_tokens"] > 0
    failed = stack.ccd("ask", "--json", "hello", "--model", "no-such-model")
    assert failed.returncode != 0
    assert json.loads(failed.stdout)["error"]["code"] == "model_not_found"
    away = stack.ccd("ask", "--json", "hello", "--socket", str(tmp_path / "nobody"))
    assert away.returncode == 69 and json.loads(away.stdout)["error"]["code"] == "lost"


def test_a_schema_and_a_limit(stack: Stack, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}')
    done = stack.ccd("ask", "how many?", "--schema", str(schema), "--max-tokens", "500")
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout)["n"], int)
    assert stack.api.bodies()[-1]["max_tokens"] == 500
    schema.write_text("[1]")
    assert stack.ccd("ask", "x", "--schema", str(schema)).returncode == 2


def test_chat(stack: Stack, screen: Terminal, tmp_path: Path) -> None:
    stack.api.reset()
    screen.ccd("chat --system brief")
    screen.wait("/help lists")
    screen.type("my name is Ada")
    screen.wait("my name is Ada", gone=False)
    wait_for_bodies(stack.api, 1)
    screen.type("/model haiku")
    screen.wait("Model: haiku")
    screen.type('slow [[offline: {"text": "one two three", "deltas": 100, "delta_ms": 300}]]')
    wait_for_bodies(stack.api, 2)
    screen.wait("one")
    screen.press("C-c")
    screen.wait("(stopped)")
    screen.press("l", "i", "n", "e", "1", "Escape", "Enter")
    screen.type("line2")
    wait_for_bodies(stack.api, 3)
    body = stack.api.bodies()[-1]
    assert "line1\\nline2" in said(body) and "haiku" in body["model"]
    assert "my name is Ada" in json.dumps(body["messages"][0]) and "brief" in json.dumps(body["system"])
    file = tmp_path / "saved.md"
    screen.type(f"/save {file}")
    screen.wait("Saved to")
    assert "my name is Ada" in file.read_text()
    screen.type("/nonsense")
    screen.wait("There is no /nonsense")
    screen.press("C-d")
    screen.wait("\n$")
    screen.type("echo the shell $((40 + 2))")
    screen.wait("the shell 42")


def wait_for_bodies(api: Api, count: int) -> None:
    from fakes.stack import wait_until

    wait_until(lambda: len(api.bodies()) >= count, what=f"{count} requests")


def test_chat_needs_a_terminal(stack: Stack) -> None:
    done = stack.ccd("chat")
    assert done.returncode == 2 and "ccd ask" in done.stderr


def test_a_batch_has_its_bar_beside_the_answers(stack: Stack, screen: Terminal, tmp_path: Path) -> None:
    questions = tmp_path / "questions.txt"
    questions.write_text("".join(f'n{number} [[offline: {{"first_ms": 700}}]]\n' for number in range(6)))
    screen.ccd(f"ask --batch {questions} --concurrency 1 > {tmp_path / 'answers.jsonl'}")
    screen.wait("1/6")
    screen.wait("6 answered")
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [row["number"] for row in rows] == list(range(6))
    assert all(f"n{row['number']}" in row["text"] for row in rows)
