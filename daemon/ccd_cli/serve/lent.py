"""What the gateway's parts do for `ccd worker`: the books of keys, files inside the allowed roots, guarded requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ccd_gateway.access.auth import KeyStore
from ccd_gateway.access.caller import Caller
from ccd_gateway.access.metering import Books, MeteredAnswer, begin
from ccd_gateway.errors import ApiError
from ccd_gateway.images import confined
from ccd_gateway.images.confined import Confined
from ccd_gateway.images.fetch import Fetcher
from ccd_gateway.settings import load_settings
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatParams, ChatResult
from ccd_tasks.settings import WorkerSettings
from ccd_tasks.turn.purse import Receipt
from ccd_tasks.webhooks.delivery import Post
from ccd_tasks.worker import Outside


def outside(settings: WorkerSettings, environ: Mapping[str, str]) -> Outside:
    """All of it, by the settings of the gateway.

    Raises:
        SettingsError: naming the key.
    """
    gateway = load_settings(environ, {})
    keys = Keys(gateway.keys_path(environ), gateway.usage_path(environ))
    return Outside(poster(settings.tasks.webhook_networks), keys, files_of(gateway.allowed_roots))


class Keys:
    """Admits and books turns on the keys that tasks were submitted with (see `turn.purse.Purse`)."""

    def __init__(self, keys: Path, usage: Path) -> None:
        self._store = KeyStore(keys)
        self._books = Books(usage)

    async def admit(self, key_id: str, params: Mapping[str, Any]) -> Receipt:
        """One turn.

        Raises:
            RpcError: UPSTREAM_LIMIT, BUDGET, STORAGE; FORBIDDEN, the key is not there any more.
        """
        key = self._store.keys().get(key_id)
        if key is None or not self._store.still_good(key):
            raise RpcError(
                Code.FORBIDDEN, "The API key that this task was submitted with is not valid any more."
            )
        return _Receipt(await begin(self._books, Caller(key=key), key, cast(ChatParams, params)))


class _Receipt:
    def __init__(self, run: MeteredAnswer) -> None:
        self._run = run

    def saw(self, payload: bytes) -> None:
        self._run.saw(payload)

    async def end(self, result: Mapping[str, Any]) -> None:
        await self._run.end(cast(ChatResult, result))

    def cut(self, *, asked: bool = False) -> None:
        self._run.cut(asked=asked)


def files_of(roots: Sequence[Path]) -> Callable[[str, bytes], str | None]:
    """Writes an answer into a file inside the roots; returns why not, or None."""
    inside = Confined(roots)

    def write(path: str, data: bytes) -> str | None:
        try:
            confined.write(inside.place(path, "output_file", None), "output_file", data)
        except ApiError as error:
            return str(error)
        return None

    return write


def poster(networks: Sequence[str]) -> Post:
    """Posts to public addresses, and to those that the settings allow."""
    return Fetcher(networks, setting="tasks.webhook_networks").post
