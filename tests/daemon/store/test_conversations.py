from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccd_daemon.config import ConversationSettings as Settings
from ccd_daemon.store.conversations import ConversationStore
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import Message


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "conversations.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[ConversationStore]:
    store = ConversationStore(path, Settings(), clock)
    yield store
    store.close()


def said(*texts: str) -> list[Message]:
    return [
        Message(role="user" if index % 2 == 0 else "assistant", content=text)
        for index, text in enumerate(texts)
    ]


async def history(store: ConversationStore, tenant: str, name: str) -> list[Message]:
    async with store.turn(tenant, name) as found:
        return found.messages


def test_a_conversation_begins_at_first_use_and_survives_a_restart(
    store: ConversationStore, path: Path
) -> None:
    async def first() -> None:
        assert await history(store, "a", "mine") == []
        await store.append("a", "mine", said("q1", "a1"), "be brief")
        await store.append("a", "mine", said("q2", "a2"), None)

    asyncio.run(first())
    store.close()
    again = ConversationStore(path, Settings())

    async def second() -> None:
        async with again.turn("a", "mine") as found:
            assert found.messages == said("q1", "a1", "q2", "a2")
            assert found.system == "be brief"
        assert (await again.get("a", "mine"))["message_count"] == 4

    asyncio.run(second())
    again.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_another_tenants_conversation_does_not_exist(store: ConversationStore) -> None:
    async def run() -> None:
        await store.append("a", "shared-name", said("secret", "answer"), None)
        assert await history(store, "b", "shared-name") == []
        unknown = []
        for name in ("shared-name", "never-was"):
            with pytest.raises(RpcError) as caught:
                await store.get("b", name)
            assert caught.value.code is Code.NOT_FOUND
            unknown.append(caught.value.message.replace(name, "X"))
            with pytest.raises(RpcError):
                await store.delete("b", name)
        assert unknown[0] == unknown[1]
        assert await store.all_of("b") == []
        assert len(await store.all_of("a")) == 1

    asyncio.run(run())


def test_turns_of_one_conversation_are_put_in_order_and_others_are_not_held_up(
    store: ConversationStore,
) -> None:
    order: list[str] = []

    async def turn(name: str, text: str, gate: asyncio.Event) -> None:
        async with store.turn("a", name):
            order.append(f"{text} begins")
            await gate.wait()
            order.append(f"{text} ends")

    async def run() -> None:
        held, free = asyncio.Event(), asyncio.Event()
        free.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(turn("one", "first", held))
            while "first begins" not in order:
                await asyncio.sleep(0)
            tasks.create_task(turn("one", "second", free))
            await tasks.create_task(turn("two", "other", free))
            assert "second begins" not in order
            held.set()
        assert order.index("first ends") < order.index("second begins")
        assert "other ends" in order
        assert not store._locks

    asyncio.run(run())


def test_create_list_delete(store: ConversationStore, clock: Clock) -> None:
    async def run() -> None:
        first = await store.create("a", {"model": "haiku"})
        clock.now += 5
        await store.create("a", {}, "named")
        assert [entry["id"] for entry in await store.all_of("a")] == ["named", first["id"]]
        assert first["metadata"] == {"model": "haiku"}
        with pytest.raises(RpcError) as caught:
            await store.create("a", {}, "named")
        assert caught.value.code is Code.CONFLICT
        await store.append("a", "named", said("q", "a"), None)
        assert await store.messages("a", "named") == said("q", "a")
        await store.delete("a", "named")
        assert await history(store, "a", "named") == []

    asyncio.run(run())


def test_everything_is_bounded(path: Path, clock: Clock) -> None:
    store = ConversationStore(
        path, Settings(max_count=3, max_messages=4, max_bytes=1024, retention_s=100), clock
    )

    async def run() -> None:
        for index in range(5):
            await store.append("a", "long", said(f"q{index}", f"a{index}"), None)
        assert await history(store, "a", "long") == said("q3", "a3", "q4", "a4")
        await store.append("a", "large", said("x" * 900, "y" * 200), None)
        await store.append("a", "large", said("q", "a"), None)
        assert await history(store, "a", "large") == said("q", "a")
        for index in range(4):
            clock.now += 1
            await store.append("a", f"c{index}", said("q", "a"), None)
        assert {entry["id"] for entry in await store.all_of("a")} == {"c1", "c2", "c3"}
        clock.now += 101
        await store.append("a", "fresh", said("q", "a"), None)
        assert [entry["id"] for entry in await store.all_of("a")] == ["fresh"]

    asyncio.run(run())
    store.close()


def test_a_broken_file_is_put_aside_and_a_newer_one_is_refused(path: Path, clock: Clock) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 1000)
    store = ConversationStore(path, Settings(), clock)
    asyncio.run(store.append("a", "x", said("q", "a"), None))
    store.close()
    assert list(path.parent.glob("*.broken-*"))
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in path.parent.glob("conversations.db*"))
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    newer = ConversationStore(path, Settings(), clock)
    with pytest.raises(RpcError) as caught:
        asyncio.run(newer.append("a", "x", said("q", "a"), None))
    assert caught.value.code is Code.STORAGE
    newer.close()


def test_a_disk_that_is_full_for_a_while_costs_no_conversation(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ConversationStore(path, Settings(), clock)
    asyncio.run(store.append("a", "x", said("q", "a"), None))
    store.close()

    def full(*_: object, **__: object) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    again = ConversationStore(path, Settings(), clock)
    with monkeypatch.context() as context:
        context.setattr(sqlite3, "connect", full)
        with pytest.raises(RpcError) as caught:
            asyncio.run(again.messages("a", "x"))
    assert caught.value.code is Code.STORAGE
    assert not list(path.parent.glob("*.broken-*"))
    assert len(asyncio.run(again.messages("a", "x"))) == 2
    again.close()


def test_tokens_are_summed(store: ConversationStore) -> None:
    async def main() -> None:
        assert (await store.create("a", {}, "mine"))["total_tokens"] == 0
        await store.append("a", "mine", said("q", "a"), None, None, 12)
        await store.append("a", "mine", said("q", "a"), None, None, 30)
        await store.append("a", "new", said("q", "a"), None, None, 5)
        assert (await store.get("a", "mine"))["total_tokens"] == 42
        assert (await store.get("a", "new"))["total_tokens"] == 5

    asyncio.run(main())


def test_a_file_of_the_version_before_is_used_as_it_is(path: Path) -> None:
    async def begin(store: ConversationStore) -> None:
        await store.append("a", "mine", said("q", "a"), None, None, 12)

    async def go_on(store: ConversationStore) -> None:
        await store.append("a", "mine", said("q", "a"), None, None, 30)
        found = await store.get("a", "mine")
        assert (found["message_count"], found["total_tokens"]) == (4, 30)

    store = ConversationStore(path, Settings())
    asyncio.run(begin(store))
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE conversation DROP COLUMN total_tokens")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    store = ConversationStore(path, Settings())
    asyncio.run(go_on(store))
    store.close()


def _everything(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


@pytest.mark.parametrize("way", ["deleted", "too old", "too many", "too long"])
def test_what_is_forgotten_is_nowhere_in_the_files(path: Path, clock: Clock, way: str) -> None:
    bounds = {"too many": {"max_count": 1}, "too long": {"max_messages": 2}}.get(way, {})
    store = ConversationStore(path, Settings(**bounds), clock)
    secret = "the-secret-text"

    async def run() -> None:
        await store.append("a", "one", said(secret * 500, "answer"), secret)
        assert secret.encode() in _everything(path.parent)
        clock.now += 1
        if way == "deleted":
            await store.delete("a", "one")
        elif way == "too long":
            await store.append("a", "one", said("next", "answer"), "other")
        else:
            clock.now += 100 * 86400 if way == "too old" else 0
            await store.append("a", "two", said("next", "answer"), None)
        assert secret.encode() not in _everything(path.parent)

    asyncio.run(run())
    store.close()
