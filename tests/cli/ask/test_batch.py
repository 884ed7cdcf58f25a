from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from ccd_cli.ask import batch as ask_batch
from ccd_cli.ask.ask import ask
from fakes.peer_server import PeerServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PeerServer]:
    with PeerServer(tmp_path / "s") as server:
        yield server


def run(server: PeerServer, tmp_path: Path, lines: list[Any], *flags: str) -> Any:
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return CliRunner().invoke(ask, ["--batch", str(file), "--socket", str(server.path), *flags])


def test_answers_come_in_order_with_their_ids(server: PeerServer, tmp_path: Path) -> None:
    lines = [
        '"one"',
        "",
        {"prompt": "twö", "id": "b", "model": "own"},
        {"messages": [{"role": "user", "content": "three"}]},
    ]
    done = run(server, tmp_path, lines, "--model", "m", "--concurrency", "2")
    assert done.exit_code == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["index"], row.get("id"), row["text"]) for row in rows] == [
        (0, None, "one"),
        (1, "b", "twö"),
        (2, None, "three"),
    ]
    assert rows[0]["usage"] == {"input_tokens": 3, "output_tokens": 2} and "content" not in rows[0]
    asked = [called.params for called in server.calls if called.method == "chat.complete"]
    assert sorted(params["model"] for params in asked) == ["m", "m", "own"]
    assert done.stderr.splitlines()[-1] == "3 of 3 done, 0 failed"


def test_a_failure_is_a_row_and_an_exit_status(server: PeerServer, tmp_path: Path) -> None:
    done = run(server, tmp_path, ['"a"', {"messages": [{"role": "tool"}]}, '"c"'])
    assert done.exit_code == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row.get("text") for row in rows] == ["a", None, "c"]
    assert (rows[1]["error"]["code"], rows[1]["error"]["param"]) == ("bad_params", "messages[0].tool_call_id")


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["not json"], "line 1"),
        (['"a"', "5"], "line 2"),
        ([{"prompt": "a", "messages": []}], "either prompt or messages"),
        ([{"id": 1}], "either prompt or messages"),
        ([{"prompt": "a", "modle": "x"}], "no option 'modle'"),
        ([""], "empty"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_is_asked(
    server: PeerServer, tmp_path: Path, lines: list[Any], problem: str
) -> None:
    done = run(server, tmp_path, lines)
    assert done.exit_code == 2
    assert problem in done.stderr
    assert server.calls == []


def test_no_daemon_is_one_failure(tmp_path: Path) -> None:
    file = tmp_path / "q"
    file.write_text('"a"\n"b"\n')
    done = CliRunner().invoke(ask, ["--batch", str(file), "--socket", str(tmp_path / "none")])
    assert done.exit_code == 69
    assert done.stdout == "" and done.stderr.count("ccd up") == 1


def test_prompt_and_batch_exclude_each_other(server: PeerServer, tmp_path: Path) -> None:
    assert run(server, tmp_path, ['"a"'], "prompt").exit_code == 2
    assert CliRunner().invoke(ask, []).exit_code == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    with ask_batch.progress_on(screen, 8) as show:
        show(3, 0)
        show(8, 1)
    assert "8/8" in screen.getvalue() and "1 failed" in screen.getvalue()


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = Terminal()
    with ask_batch.progress_on(screen, 8) as show:
        show(8, 1)
    assert screen.getvalue() == "8 of 8 done, 1 failed\n"


def test_questions_are_read_strictly() -> None:
    assert ask_batch.questions(['"a"\n', "\n", '{"prompt": "b", "temperature": 0.5}']) == [
        {"messages": "a"},
        {"messages": "b", "temperature": 0.5},
    ]
    with pytest.raises(click.UsageError):
        ask_batch.questions([])
