"""SPEC.md is executed: its frames, its conversations, its violations, and its tables."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import msgpack
import pytest

from ccd_protocol import frames as f
from ccd_protocol.errors import MEANINGS, Code
from ccd_protocol.methods import METHODS
from ccd_protocol.peer import CallFailed, Closed, Greeted, Peer

SPEC = (Path(__file__).parents[2] / "protocol" / "SPEC.md").read_text()


def blocks(kind: str) -> list[str]:
    found = re.findall(rf"^```{kind}\n(.*?)^```$", SPEC, re.DOTALL | re.MULTILINE)
    assert found
    return found


def rows(section: str) -> list[list[str]]:
    """The cells of the table in a section, without its head."""
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table(section)]


def table(section: str) -> list[str]:
    """The lines of the table in a section, without its head."""
    text = SPEC.split(f"## {section}")[1].split("\n## ")[0]
    return [line for line in text.splitlines() if line.startswith("|")][2:]


def described(block: str) -> tuple[list[Any], bytes]:
    value, _, code = block.partition("\n")
    return ast.literal_eval(value), bytes.fromhex(code)


@pytest.mark.parametrize("block", blocks("frame"))
def test_frame(block: str) -> None:
    value, code = described(block)
    assert msgpack.unpackb(code) == value
    assert msgpack.packb(value) == code


def test_every_kind_has_an_example_and_a_row() -> None:
    assert {described(block)[0][0] for block in blocks("frame")} == set(range(8))
    assert [row[0] for row in rows("2. Framing")] == [f"{n} {name}" for n, name in enumerate(f.KIND_NAMES)]


def lines(block: str) -> list[tuple[str, bytes, bool]]:
    """Who sends, what, and whether it crosses the line before it."""
    sent: list[tuple[str, bytes, bool]] = []
    crosses = False
    for line in block.splitlines():
        if line.startswith("#"):
            crosses = "crosses" in line
        elif line.startswith("  "):
            sent[-1] = (sent[-1][0], sent[-1][1] + bytes.fromhex(line), sent[-1][2])
        else:
            sent.append((line[0], bytes.fromhex(line[1:]), crosses))
            crosses = False
    return sent


def produce(peer: Peer, frame: list[Any]) -> bytes:
    """What the peer writes when its application does what the frame says."""
    match frame:
        case [f.HELLO, *_]:
            pass  # was queued when the peer was made
        case [f.CALL, call_id, method, params, timeout_ms, window, parent]:
            assert peer.call(method, params, timeout_ms=timeout_ms, window=window, parent=parent) == call_id
        case [f.ITEM, call_id, payload]:
            peer.item(call_id, payload)
        case [f.END, call_id, result]:
            assert peer.end(call_id, result)
        case [f.FAIL, call_id, code, message, data]:
            assert peer.fail(call_id, code, message, data)
        case [f.CANCEL, call_id, reason]:
            peer.cancel(call_id, reason)
        case [f.CREDIT, call_id, nbytes]:
            peer.consumed(call_id, nbytes)
        case [f.GOAWAY, _, code, message]:
            peer.goaway(code, message)
        case _:
            pytest.fail(f"unknown frame {frame}")
    return b"".join(peer.outgoing())


@pytest.mark.parametrize("block", blocks("conversation"))
def test_conversation(block: str) -> None:
    script = lines(block)
    peers = {
        ">": Peer("connecting", msgpack.unpackb(script[0][1])[3]),
        "<": Peer("accepting", msgpack.unpackb(script[1][1])[3]),
    }
    under_way: dict[str, list[bytes]] = {">": [], "<": []}  # by sender

    def arrive(receiver: str, count: int) -> None:
        sender = "<" if receiver == ">" else ">"
        for _ in range(count):
            events = peers[receiver].receive(under_way[sender].pop(0))
            assert not any(isinstance(event, Closed) for event in events), events

    for sender, code, crosses in script:
        other = "<" if sender == ">" else ">"
        arrive(sender, len(under_way[other]) - crosses)
        assert produce(peers[sender], msgpack.unpackb(code)) == code
        under_way[sender].append(code)
    for receiver, other in ((">", "<"), ("<", ">")):
        arrive(receiver, len(under_way[other]))
        assert peers[receiver].open_calls == 0


def test_violations() -> None:
    examples = rows("8. The end of a connection")
    assert len(examples) > 10
    hello = described(blocks("frame")[0])[1]
    for what, code, name in examples:
        peer = Peer("accepting", "test/1")
        assert isinstance(peer.receive(hello)[0], Greeted)
        event = peer.receive(bytes.fromhex(code))[-1]
        assert isinstance(event, Closed), what
        assert event.code is Code[name], what


def test_table_of_codes() -> None:
    expected = [
        [
            str(code.value),
            code.name,
            str(meaning.http_status),
            "yes" if meaning.retryable else "no",
            meaning.summary,
        ]
        for code, meaning in MEANINGS.items()
    ]
    assert rows("9. Codes") == expected


def test_table_of_methods() -> None:
    expected = [
        [name, "yes" if method.streams else "no", "yes" if method.admin else "no", method.summary]
        for name, method in METHODS.items()
    ]
    assert rows("10. Methods") == expected


def test_table_of_parameters() -> None:
    documented = {
        method: (set(re.findall(r"`(\w+)`", cells)), set(re.findall(r"\*\*`(\w+)`\*\*", cells)))
        for cells, methods in (line.strip("|").split("|") for line in table("11. Parameters"))
        for method in re.findall(r"`([\w.]+)`", methods)
    }
    assert documented == {name: (set(method.names), set(method.required)) for name, method in METHODS.items()}


def test_table_of_limits() -> None:
    limits = {row[0]: (int(row[2]), int(row[3])) for row in rows("3. HELLO")}
    assert {name: usual for name, (usual, _) in limits.items()} == f.Limits().caps()
    for name, (_, least) in limits.items():
        assert f.announced({name: least}) is not None
        with pytest.raises(f.Violation):
            f.announced({name: least - 1})
    assert str(f.MAX_CONTAINER_LEN) in SPEC and f"{f.HELLO_TIMEOUT_S:.0f} s" in SPEC


def test_goaway_example_fails_the_call_that_crossed() -> None:
    peer = Peer("connecting", "demo/1")
    peer.receive(described(blocks("frame")[0])[1])
    peer.call("a")
    peer.call("b")
    events = peer.receive(msgpack.packb([7, 1, 41, "restarting"]))
    assert [event.id for event in events if isinstance(event, CallFailed)] == [3]
