"""The door: is a key needed, is there one, is it good. Decides by the head of a request.

A request without a key and one with a wrong key get the same answer after the same work. An address that
keeps presenting wrong keys gets 429 for them; a right key always passes, whoever shares its address.

Not here: what a route asks for, which its `Route` says. Looking at the path here again would be a second reading of it,
and two readings differ one day.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ccd_gateway.access.keyfile import MAX_TOKEN_BYTES, PREFIX, Key, KeyFileError, find, read
from ccd_gateway.errors import ApiError

_LOOK_EVERY_S = 1.0
_MAX_FAILURES = 20
_FAILURES_S = 60.0
_MAX_PEERS = 10_000
_IN_QUERY = re.compile(
    rb"(?:^|&)(?:api[-_]?key|x-api-key|key|access[-_]token|token|authorization)=", re.IGNORECASE
)
_KEY_PROTOCOL = "ccd.key."
ADMIN = ("admin",)  # always by a key: whoever reaches the machine is not its operator yet
_log = logging.getLogger(__name__)

HeaderList = Iterable[tuple[bytes, bytes]]


class KeyStore:
    """The keys of a file, as it is now; a change is noticed within a second, a new key at its first use.

    A file that has become unreadable or wrong leaves the keys as they were, and is logged once; where none had
    been read, keys are needed all the same. A file that is gone, or empty, leaves none: whoever needed a key
    still does.

    Args:
        path: the file; it need not exist.
        clock: seconds, for the pause between two looks.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._looked_s = float("-inf")
        self._mark: object = None
        self.had_keys = False

    def keys(self, within_s: float = _LOOK_EVERY_S) -> dict[str, Key]:
        """The keys by id, as they were at most `within_s` ago."""
        now_s = self._clock()
        if now_s - self._looked_s >= within_s:
            self._looked_s = now_s
            self._look()
        return self._keys

    def still_good(self, key: Key) -> bool:
        """Whether a key that was admitted before is what it was: not revoked, rotated, narrowed or expired."""
        alive = key.expires is None or time.time() < key.expires
        return alive and self.keys().get(key.id) == key

    def _look(self) -> None:
        try:
            found = self._path.stat()
            mark: object = (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode, found.st_uid)
        except OSError as error:
            mark = error.errno
        if mark == self._mark:
            return
        self._mark = mark
        try:
            self._keys = read(self._path)
        except KeyFileError as error:
            _log.error("%s; the keys read before stay in force", error)
            self.had_keys = True  # a process that has just started knows of none, and lets nobody in
        self.had_keys = self.had_keys or bool(self._keys)


class Failures:
    """Wrong keys by address, for one minute each. Bounded: the oldest address is forgotten first."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, float]] = {}

    def add(self, peer: str, now_s: float) -> float:
        """Count one; returns how long the address has to wait, 0 for not at all."""
        count, since_s = self._counts.pop(peer, (0, now_s))
        if now_s - since_s >= _FAILURES_S:
            count, since_s = 0, now_s
        if len(self._counts) >= _MAX_PEERS:
            del self._counts[next(iter(self._counts))]
        self._counts[peer] = (count + 1, since_s)
        return since_s + _FAILURES_S - now_s if count >= _MAX_FAILURES else 0.0


class Door:
    """Admits requests.

    Args:
        store: the keys.
        required: whether every request needs one; None: as soon as there are keys.
    """

    def __init__(self, store: KeyStore, required: bool | None) -> None:
        self._store = store
        self._required = required
        self._failures = Failures()

    def key_of(
        self, scopes: tuple[str, ...] | None, query: bytes, headers: HeaderList, peer: str
    ) -> Key | None:
        """The request's key; None when it has none and needs none.

        Args:
            scopes: the key must allow one of them; with none of them every key will do; None: none is asked for.
            query: the request's.
            headers: the request's.
            peer: the client's address.

        Raises:
            ApiError: 401 for a key that is missing, wrong, ambiguous or in the query; 429 for too many of
                those from one address; 403 for a route that the key is not for.
        """
        if scopes is None:
            return None
        store = self._store
        token = presented(headers)
        key = find(store.keys(), token, time.time())
        if key is None and token.startswith(PREFIX):  # perhaps it was made a moment ago
            key = find(store.keys(within_s=0), token, time.time())
        required = store.had_keys if self._required is None else self._required
        if key is not None and not _IN_QUERY.search(query):
            _check_scope(key, scopes)
            return key
        if not required and scopes != ADMIN and not token.startswith(PREFIX):
            return None  # SDKs always send some key
        raise self._refusal(peer)

    def _refusal(self, peer: str) -> ApiError:
        wait_s = self._failures.add(peer, time.monotonic())
        if wait_s > 0:
            retry_after = str(max(1, round(wait_s)))
            message = "Too many requests with a wrong API key from this address. Wait before the next one."
            return ApiError(429, message, code="rate_limit_exceeded", headers=[("retry-after", retry_after)])
        return ApiError(
            401,
            "A valid API key is required: send it as 'Authorization: Bearer ccd_...' or 'x-api-key: ccd_...'.",
            code="invalid_api_key",
            headers=[("www-authenticate", "Bearer"), ("x-should-retry", "false")],
        )


def presented(headers: HeaderList) -> str:
    """The token in the headers; `""` when there is none, or more than one, or what cannot be one."""
    found: set[bytes] = set()
    count = {b"authorization": 0, b"x-api-key": 0}
    for name, value in headers:
        if name in count:
            count[name] += 1
            found.add(_token(name, value))
    if len(found) != 1 or max(count.values()) > 1:
        return ""
    [token] = found
    return token.decode("ascii", "replace") if len(token) <= MAX_TOKEN_BYTES else ""


def _token(name: bytes, value: bytes) -> bytes:
    if name == b"x-api-key":
        return value.strip()
    scheme, _, token = value.strip().partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def offered(subprotocols: Iterable[str]) -> list[tuple[bytes, bytes]]:
    """The keys among the subprotocols of a WebSocket's client, as headers: a page can set no headers of its own."""
    tokens = (name.removeprefix(_KEY_PROTOCOL) for name in subprotocols if name.startswith(_KEY_PROTOCOL))
    return [(b"x-api-key", token.encode()) for token in tokens]


def _check_scope(key: Key, scopes: tuple[str, ...]) -> None:
    if scopes and not set(scopes) & set(key.scopes):
        raise ApiError(
            403,
            f"This API key is not for this route: it lacks the scope '{scopes[0]}'.",
            code="insufficient_scope",
            headers=[("x-should-retry", "false")],
        )


# --- at the start ---


def is_local(address: object) -> bool:
    """Whether a listening socket's address can only be reached from this machine."""
    if isinstance(address, (str, bytes)):  # a Unix socket
        return True
    host = address[0] if isinstance(address, tuple) and address else ""
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


def why_not(address: object, keys_path: Path, *, insecure: bool, required: bool | None) -> str | None:
    """Why the gateway must not serve on an address, and what to do about it; None when it may.

    Raises:
        KeyFileError: the keys file cannot be used.
    """
    keys = read(keys_path)
    if required and not keys:
        return (
            f"gateway.require_keys is on, but there is no API key in {keys_path}.\n"
            "     Make one with:  ccd ctl keys create NAME"
        )
    if is_local(address) or insecure or (keys and required is not False):
        return None
    shown = address[0] if isinstance(address, tuple) else address
    reason = "gateway.require_keys is off" if keys else f"there is no API key in {keys_path}"
    return (
        f"refusing to listen on {shown}, where others can reach it: {reason}.\n"
        "     Make a key with:              ccd ctl keys create NAME\n"
        "     or listen on this machine:    --bind 127.0.0.1:8080\n"
        "     or, if something else guards the way to it:  --insecure-no-auth"
    )
