from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from ccd_cli.ask import batch as ask_batch
from ccd_cli.ask.ask import ask
from ccd_cli.ask.progress import Tally, progress_on
from ccd_client import BatchItem, Code, RpcError
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
    assert [(row["number"], row.get("id"), row["text"]) for row in rows] == [
        (0, None, "one"),
        (1, "b", "twö"),
        (2, None, "three"),
    ]
    assert rows[0]["usage"] == {"input_tokens": 3, "output_tokens": 2} and "content" not in rows[0]
    asked = [called.params for called in server.calls if called.method == "chat.complete"]
    assert sorted(params["model"] for params in asked) == ["m", "m", "own"]
    assert done.stderr.splitlines()[-1].startswith("3 answered, 0 failed; 9 tokens in, 6 out, $0.0000; ")


def test_a_failure_is_a_row_and_an_exit_status(server: PeerServer, tmp_path: Path) -> None:
    done = run(server, tmp_path, ['"a"', {"messages": [{"role": "tool"}]}, '"c"'])
    assert done.exit_code == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row.get("text") for row in rows] == ["a", None, "c"]
    assert (rows[1]["error"]["code"], rows[1]["error"]["param"]) == ("bad_params", "messages[0].tool_call_id")


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (['{"prompt": "a"}', "not json"], "line 2"),
        (["{"], "line 1"),
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


def tally(done: int, failed: int) -> Tally:
    counted = Tally(8)
    for number in range(done):
        error = RpcError(Code.BUSY) if number < failed else None
        counted.count(BatchItem(number, None, error))
    return counted


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    with progress_on(screen, 8) as show:
        show(tally(8, failed=1))
    assert "8/8" in screen.getvalue() and "1 failed" in screen.getvalue() and "/s" in screen.getvalue()


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = Terminal()
    with progress_on(screen, 8) as show:
        show(tally(4, failed=1))
    assert screen.getvalue() == "4 of 8 done, 1 failed\n"


def test_questions_are_read_strictly() -> None:
    assert ask_batch.questions(['"a"\n', "\n", '{"prompt": "b", "temperature": 0.5}']) == [
        (0, None, {"messages": "a"}),
        (1, None, {"messages": "b", "temperature": 0.5}),
    ]
    with pytest.raises(click.UsageError):
        ask_batch.questions([])


def test_plain_lines_are_prompts() -> None:
    assert ask_batch.questions(["why?\n", "\n", " [1, 2] \n"]) == [
        (0, None, {"messages": "why?"}),
        (1, None, {"messages": "[1, 2]"}),
    ]


def test_an_earlier_run_is_gone_on_with(server: PeerServer, tmp_path: Path) -> None:
    lines = [{"prompt": "one", "id": "a"}, {"prompt": "two", "id": 2}, '"three"', '"four"']
    answers = tmp_path / "answers.jsonl"
    rows = [
        {"number": 0, "id": "a", "text": "one"},
        {"number": 1, "id": 2, "error": {"code": "busy"}},
        {"number": 3, "text": "four"},
    ]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run(server, tmp_path, lines, "--resume", str(answers))
    assert done.exit_code == 0, done.stderr
    assert [(row["number"], row["text"]) for row in map(json.loads, done.stdout.splitlines())] == [
        (1, "two"),
        (2, "three"),
    ]
    answers.write_text('{"number": 0, "id": "a", "te')
    cut = run(server, tmp_path, lines, "--resume", str(answers))
    assert cut.exit_code == 2 and "line 1 is no row" in cut.stderr
    twice = run(server, tmp_path, [{"prompt": "x", "id": 1}] * 2, "--resume", str(answers))
    assert twice.exit_code == 2 and "same id" in twice.stderr


def test_an_interrupted_run_prints_what_it_has_and_says_what_is_left(
    server: PeerServer, tmp_path: Path
) -> None:
    file = tmp_path / "q"
    file.write_text("never stuck\nquick\nalso quick\n")
    command = [sys.executable, "-m", "ccd_cli", "ask", "--batch", str(file), "--socket", str(server.path)]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    with subprocess.Popen(
        [*command, "--concurrency", "2"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as asking:
        assert asking.stderr is not None
        for line in asking.stderr:  # until both others are answered
            if line.startswith("2 of 3"):
                break
        asking.send_signal(signal.SIGINT)
        out, rest = asking.communicate(timeout=30)
    assert asking.returncode == 130, rest
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["quick", "also quick"]
    assert "2 answered, 0 failed" in rest and "1 left: go on with --resume" in rest
