"""Fetches what a request names by URL, without reaching anything that only this machine can reach.

A name is resolved once, every address that it has must be public (or in a network that the settings allow), and the
connection is made to the address that was looked at, so a name that changes its mind meanwhile gains nothing. Each
redirect is another URL that has to pass. Time and size are bounded over everything, and nothing packed is taken.
"""

from __future__ import annotations

import asyncio
import functools
import http.client
import io
import ipaddress
import re
import ssl
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"http": 80, "https": 443}
_MAX_URL_CHARS = 8192
_MAX_REDIRECTS = 3
_MAX_HEAD_BYTES = 64 << 10
_MAX_REPLY_BYTES = 64 << 10  # to a POST
_TIMEOUT_S = 10.0
_MAX_OPEN = 16
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")
_SAFE = "/%:@!$&'()*+,;=~-._?"
#: Addresses that stand for an IPv4 address behind some gateway, whatever that one is.
_TUNNELS = tuple(
    ipaddress.ip_network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
)


class FetchError(Exception):
    """Why something was not fetched; the message is for the client."""


class Fetched(NamedTuple):
    """What a URL gave in the end."""

    media_type: str  # lower case, without parameters; "" where the server names none
    body: bytes


class UrlParts(NamedTuple):
    """A URL, taken apart."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """For the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def place_of(url: str) -> UrlParts:
    """Take a URL apart.

    Raises:
        FetchError: it is not an http or https URL of a server, or has a login in it.
    """
    if len(url) > _MAX_URL_CHARS or _UNPRINTABLE.search(url):
        raise FetchError(f"a URL has at most {_MAX_URL_CHARS} characters, and no white space")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except (ValueError, UnicodeError):
        raise FetchError("it is not a URL") from None
    if parts.scheme not in _PORTS or not host or "%" in host:
        raise FetchError("it is not an http or https URL")
    if parts.username is not None or parts.password is not None:
        raise FetchError("a URL with a login in it is not fetched")
    target = quote(parts.path or "/", safe=_SAFE) + (
        f"?{quote(parts.query, safe=_SAFE)}" if parts.query else ""
    )
    return UrlParts(parts.scheme, host, port or _PORTS[parts.scheme], target)


def is_public(address: Address) -> bool:
    """Whether an address is one that everybody in the world can reach, and nothing else in disguise."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in tunnel for tunnel in _TUNNELS):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class Fetcher:
    """Fetches for one gateway process.

    Args:
        networks: addresses that may be reached although they are not public.
        timeout_s: for everything together, redirects and the wait for others included.
        setting: where those addresses are listed, for messages.
    """

    def __init__(
        self,
        networks: Sequence[str],
        timeout_s: float = _TIMEOUT_S,
        setting: str = "gateway.fetch_networks",
    ) -> None:
        self._timeout_s = timeout_s
        self._setting = setting
        self._networks = [ipaddress.ip_network(text, strict=False) for text in networks]
        self._open = asyncio.Semaphore(_MAX_OPEN)

    async def get(self, url: str, max_bytes: int) -> Fetched:
        """What a URL gives, redirects followed.

        Raises:
            FetchError: it cannot be had, is too large, or may not be reached.
        """
        try:
            async with asyncio.timeout(self._timeout_s), self._open:
                return await self._followed(url, max_bytes)
        except TimeoutError:
            raise FetchError(f"no whole answer within {self._timeout_s:g} s") from None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """Send a body, and return the HTTP status of the answer; redirects are not followed.

        Raises:
            FetchError: there was no answer, or the URL may not be reached.
        """
        try:
            async with asyncio.timeout(self._timeout_s), self._open:
                place = place_of(url)
                request = _posting(place, headers, body)
                raw = await _exchange(place, await self._address(place), _MAX_REPLY_BYTES, request)
                return await asyncio.to_thread(_status, raw)
        except TimeoutError:
            raise FetchError(f"no whole answer within {self._timeout_s:g} s") from None

    async def _followed(self, url: str, max_bytes: int) -> Fetched:
        for _ in range(_MAX_REDIRECTS + 1):
            place = place_of(url)
            raw = await _exchange(place, await self._address(place), max_bytes, _getting(place))
            # In a thread, because a hostile answer can take long to read.
            answer = await asyncio.to_thread(_read, raw)
            if answer.location is None:
                if len(answer.fetched.body) > max_bytes:
                    raise _too_large(max_bytes)
                return answer.fetched
            url = urljoin(url, answer.location)
        raise FetchError(f"more than {_MAX_REDIRECTS} redirects")

    async def _address(self, place: UrlParts) -> str:
        """The address to connect to: the name is not looked up again."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(place.host, place.port, type=1)
        except OSError:
            raise FetchError(f"there is no server {place.host:.100}") from None
        names = [str(entry[4][0]) for entry in found]
        for name in names:
            if not self._allowed(ipaddress.ip_address(name.partition("%")[0])):
                raise FetchError(
                    f"the address of {place.host:.100} is not a public one, nor in {self._setting}"
                )
        return names[0]

    def _allowed(self, address: Address) -> bool:
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        plain = mapped or address
        return any(plain in network for network in self._networks) or is_public(address)


# --- one exchange ---


async def _exchange(place: UrlParts, address: str, max_bytes: int, request: bytes) -> bytes:
    """All that the server says to one request, to the end of its connection."""
    secure = place.scheme == "https"
    try:
        reader, writer = await asyncio.open_connection(
            address,
            place.port,
            ssl=_tls() if secure else None,
            server_hostname=place.host if secure else None,
        )
    except (OSError, ssl.SSLError) as error:
        raise FetchError(f"no connection to {place.host:.100}: {_why(error)}") from None
    try:
        writer.write(request)
        pieces: list[bytes] = []
        left = max_bytes + _MAX_HEAD_BYTES
        while piece := await reader.read(65536):
            left -= len(piece)
            if left < 0:
                raise _too_large(max_bytes)
            pieces.append(piece)
        return b"".join(pieces)
    except (OSError, ssl.SSLError) as error:
        raise FetchError(f"the connection to {place.host:.100} broke: {_why(error)}") from None
    finally:
        writer.transport.abort()


def _posting(place: UrlParts, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [
        f"POST {place.target} HTTP/1.1",
        f"Host: {place.authority}",
        *(f"{name}: {value}" for name, value in headers.items()),
        f"Content-Length: {len(body)}",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _getting(place: UrlParts) -> bytes:
    lines = [
        f"GET {place.target} HTTP/1.1",
        f"Host: {place.authority}",
        "User-Agent: ccd",
        "Accept: image/*",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate is not valid"
    return "TLS failed" if isinstance(error, ssl.SSLError) else "the server cannot be reached"


def _too_large(max_bytes: int) -> FetchError:
    return FetchError(f"it is larger than {max_bytes >> 20} MiB")


class _Answer(NamedTuple):
    location: str | None  # where a redirect leads
    fetched: Fetched


class _Recorded:
    """What `http.client` reads from in place of a socket."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._raw)


def _status(raw: bytes) -> int:
    response = http.client.HTTPResponse(_Recorded(raw), method="POST")  # type: ignore[arg-type]
    try:
        response.begin()
    except (http.client.HTTPException, ValueError, OverflowError, OSError):
        raise FetchError("the server's answer is not whole, or not HTTP") from None
    return response.status


def _read(raw: bytes) -> _Answer:
    response = http.client.HTTPResponse(_Recorded(raw), method="GET")  # type: ignore[arg-type]
    try:
        response.begin()
        body = response.read()
    except (http.client.HTTPException, ValueError, OverflowError, OSError):
        raise FetchError("the server's answer is not whole, or not HTTP") from None
    location = response.headers.get("location")
    if response.status in (301, 302, 303, 307, 308) and location:
        return _Answer(location, Fetched("", b""))
    if response.status != 200:
        raise FetchError(f"HTTP {response.status}")
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise FetchError("the server packs what was to come as it is")
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return _Answer(None, Fetched(media_type, body))
