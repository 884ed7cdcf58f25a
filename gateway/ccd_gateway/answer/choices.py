"""The `n` answers of one request, on as many workers: all of them, or none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from ccd_gateway.answer.backend import Backend
from ccd_gateway.answer.caching import numbered
from ccd_gateway.answer.lines import Delta
from ccd_gateway.answer.turn import ChatTurn, PieceReader
from ccd_protocol.methods import ChatAnswer, ChatParams

T = TypeVar("T")


async def complete_all(backend: Backend, params: ChatParams, count: int) -> list[ChatAnswer]:
    """So many whole answers; when one fails the others are cancelled.

    Raises:
        RpcError: the first failure.
    """
    if count == 1:
        return [await backend.complete(params)]
    calls = [backend.complete(numbered(params, number)) for number in range(count)]
    return await _all_or_none(calls, lambda answer: None)


async def start_all(
    backend: Backend, params: ChatParams, count: int, silence_s: float, reader: Callable[[], PieceReader]
) -> list[ChatTurn]:
    """So many turns, each of which has begun to answer or has been silent; the caller closes them.

    Raises:
        RpcError: the first failure; the other turns are cancelled.
    """
    if count == 1:
        return [await backend.start(params, silence_s, reader)]
    return await _all_or_none(
        [backend.start(params, silence_s, reader) for _ in range(count)], ChatTurn.close
    )


async def deltas(
    turns: Sequence[ChatTurn], silence_s: float
) -> AsyncGenerator[tuple[int, list[Delta] | None], None]:
    """What comes after `first` on any of the turns: its number and deltas; None at its end, [] for silence.

    Raises:
        RpcError: one of them failed.
    """
    if len(turns) > 1:
        async for piece in _merged(turns, silence_s):
            yield piece
        return
    turn = turns[0]
    while (found := await turn.deltas(silence_s)) is not None:
        if found or turn.silent:
            yield 0, found
    yield 0, None


async def _merged(
    turns: Sequence[ChatTurn], silence_s: float
) -> AsyncGenerator[tuple[int, list[Delta] | None], None]:
    inbox: asyncio.Queue[tuple[int, list[Delta] | Exception | None]] = asyncio.Queue(len(turns))
    tasks = [
        asyncio.create_task(_forward(number, turn, silence_s, inbox)) for number, turn in enumerate(turns)
    ]
    running = len(turns)
    try:
        while running:
            number, found = await inbox.get()
            if isinstance(found, Exception):
                raise found
            running -= found is None
            yield number, found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _forward(
    number: int,
    turn: ChatTurn,
    silence_s: float,
    inbox: asyncio.Queue[tuple[int, list[Delta] | Exception | None]],
) -> None:
    try:
        async for _, found in deltas([turn], silence_s):
            await inbox.put((number, found))
    except Exception as error:  # for the reader, who alone knows what to do about it
        await inbox.put((number, error))


async def _all_or_none(work: Sequence[Coroutine[Any, Any, T]], undo: Callable[[T], object]) -> list[T]:
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(outcome, BaseException):
                undo(outcome)
        raise
