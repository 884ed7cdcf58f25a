"""Fetching by URL: what is reached and what is not, whatever a server or a name server tries."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ccd_gateway.images.fetch import Fetched, Fetcher, FetchError, is_public, place_of

MAX_BYTES = 1 << 20
BODY = b"\x89PNG" + bytes(100)


def plain(body: bytes = BODY, status: str = "200 OK", *headers: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: Image/PNG; x=y",
        f"Content-Length: {len(body)}",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


class Trap:
    """A server on loopback that says the same to every caller, and counts them."""

    def __init__(self, answer: bytes, *, holds: bool = False, listens: bool = True) -> None:
        self.listens = listens
        self.answer = answer
        self.holds = holds
        self.heard: list[bytes] = []
        self.serving: set[asyncio.Task[None]] = set()

    def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.ensure_future(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            if self.listens:
                self.heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            if self.holds:
                await reader.read()
            writer.close()
            await writer.wait_closed()

    async def done(self) -> None:
        """Until nobody is served any more."""
        await asyncio.gather(*self.serving)


def served(answer: Callable[[int], Trap], work: Callable[[int, Trap], Coroutine[Any, Any, None]]) -> None:
    """Run `work` with the port of a trap that `answer` makes for that port."""

    async def main() -> None:
        trap: list[Trap] = []
        server = await asyncio.start_server(lambda r, w: trap[0](r, w), "127.0.0.1", 0)
        port = int(server.sockets[0].getsockname()[1])
        trap.append(answer(port))
        async with server:
            await work(port, trap[0])
            await trap[0].done()

    asyncio.run(main())


def fetched(raw: bytes, path: str = "/a.png") -> Fetched:
    found: list[Fetched] = []

    async def work(port: int, trap: Trap) -> None:
        found.append(await Fetcher(["127.0.0.1"]).get(f"http://127.0.0.1:{port}{path}", MAX_BYTES))

    served(lambda port: Trap(raw), work)
    return found[0]


def refused(raw: bytes, **more: Any) -> str:
    said: list[str] = []

    async def work(port: int, trap: Trap) -> None:
        with pytest.raises(FetchError) as caught:
            await Fetcher(["127.0.0.1"], **more).get(f"http://127.0.0.1:{port}/", MAX_BYTES)
        said.append(str(caught.value))

    served(lambda port: Trap(raw, holds="timeout_s" in more), work)
    return said[0]


def test_what_is_fetched() -> None:
    assert fetched(plain()) == Fetched("image/png", BODY)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n2\r\nef\r\n0\r\n\r\n"
    assert fetched(chunked) == Fetched("", b"abcdef")
    assert fetched(b"HTTP/1.0 200 OK\r\n\r\nto the end") == Fetched("", b"to the end")


def test_what_is_sent() -> None:
    async def work(port: int, trap: Trap) -> None:
        url = f"http://LOCALHOST:{port}/ä b?q=ü&x=%20#part".replace(" ", "%20")
        await Fetcher(["127.0.0.0/8", "::1"]).get(url, MAX_BYTES)
        [heard] = trap.heard
        assert heard.startswith(b"GET /%C3%A4%20b?q=%C3%BC&x=%20 HTTP/1.1\r\n")
        assert f"\r\nHost: localhost:{port}\r\n".encode() in heard
        assert b"authorization" not in heard.lower() and b"cookie" not in heard.lower()

    served(lambda port: Trap(plain()), work)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (plain(status="404 Not Found"), "HTTP 404"),
        (plain(status="204 No Content"), "HTTP 204"),
        (plain(status="302 Found"), "HTTP 302"),  # leads nowhere
        (b"", "not whole, or not HTTP"),
        (b"SSH-2.0-x\r\n", "not whole, or not HTTP"),
        (plain()[:-1], "not whole"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx", "not whole"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "not HTTP"),
        (plain(BODY, "200 OK", "Content-Encoding: gzip"), "packs"),
        (plain(bytes(MAX_BYTES + 1)), "larger than 1 MiB"),
        (plain(bytes(2 * MAX_BYTES)), "larger than 1 MiB"),
    ],
)
def test_answers_that_are_of_no_use(raw: bytes, says: str) -> None:
    assert says in refused(raw)


def test_a_slow_server_is_given_up() -> None:
    assert "within 0.2 s" in refused(b"HTTP/1.1 200 OK\r\n", timeout_s=0.2)


def test_a_server_that_is_not_there() -> None:
    async def main() -> None:
        server = await asyncio.start_server(Trap(b""), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        with pytest.raises(FetchError, match="cannot be reached"):
            await Fetcher(["127.0.0.1"]).get(f"http://127.0.0.1:{port}/", MAX_BYTES)
        with pytest.raises(FetchError, match="there is no server"):
            await Fetcher([]).get("http://no-such-name.invalid/", MAX_BYTES)

    asyncio.run(main())


def test_a_server_that_does_not_speak_tls() -> None:
    async def work(port: int, trap: Trap) -> None:
        with pytest.raises(FetchError, match="TLS failed"):
            await Fetcher(["127.0.0.1"]).get(f"https://127.0.0.1:{port}/", MAX_BYTES)

    served(lambda port: Trap(plain(), listens=False), work)


# --- what must not be reached ---

DISGUISES = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "0.0.0.0",
    "[::]",
    "localhost",
    "127.0.0.1.",
    "①②⑦.0.0.1",
]


@pytest.mark.parametrize("host", DISGUISES)
def test_loopback_is_not_reached_in_any_disguise(host: str) -> None:
    async def work(port: int, trap: Trap) -> None:
        with pytest.raises(FetchError):
            await Fetcher([]).get(f"http://{host}:{port}/", MAX_BYTES)
        assert trap.heard == []

    served(lambda port: Trap(plain()), work)


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("http://127.0.0.1:{port}/secret", "not a public one"),
        ("//127.0.0.1:{port}/secret", "not a public one"),
        ("http://[::ffff:127.0.0.1]:{port}/", "not a public one"),
        ("http://169.254.169.254/latest", "not a public one"),
        ("file:///etc/passwd", "not an http or https URL"),
        ("gopher://127.0.0.1:{port}/", "not an http or https URL"),
        ("http://user:pass@127.0.0.2:{port}/", "login"),
    ],
)
def test_a_redirect_is_another_url_to_check(location: str, says: str) -> None:
    """The first server may be reached (127.0.0.2 stands for a public one), where it leads may not."""

    async def main() -> None:
        trap = Trap(plain())
        inner = await asyncio.start_server(trap, "127.0.0.1", 0)
        where = location.format(port=inner.sockets[0].getsockname()[1])
        redirect = plain(b"", "302 Found", f"Location: {where}")
        outside = Trap(redirect)
        outer = await asyncio.start_server(outside, "127.0.0.2", 0)
        async with inner, outer:
            with pytest.raises(FetchError, match=says):
                await Fetcher(["127.0.0.2"]).get(
                    f"http://127.0.0.2:{outer.sockets[0].getsockname()[1]}/", MAX_BYTES
                )
            await outside.done()
        assert trap.heard == []

    asyncio.run(main())


def test_redirects_are_followed_a_few_times() -> None:
    async def work(port: int, trap: Trap) -> None:
        with pytest.raises(FetchError, match="more than 3 redirects"):
            await Fetcher(["127.0.0.1"]).get(f"http://127.0.0.1:{port}/", MAX_BYTES)
        assert len(trap.heard) == 4

    served(lambda port: Trap(plain(b"", "307 Temporary Redirect", "Location: /again")), work)


def test_a_name_is_resolved_once_and_all_its_addresses_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that says something public first, and loopback to whoever asks again."""

    async def work(port: int, trap: Trap) -> None:
        loop = asyncio.get_running_loop()
        asked: list[str] = []
        real = loop.getaddrinfo

        async def rebinding(host: Any, *args: Any, **more: Any) -> Any:
            asked.append(str(host))
            if host == "both.example":
                return [(2, 1, 6, "", ("93.184.216.34", port)), (2, 1, 6, "", ("127.0.0.1", port))]
            if host == "rebinding.example":
                address = "127.0.0.2" if asked.count(host) == 1 else "127.0.0.1"
                return [(2, 1, 6, "", (address, port))]
            return await real(host, *args, **more)

        monkeypatch.setattr(loop, "getaddrinfo", rebinding, raising=False)
        with pytest.raises(
            FetchError, match="cannot be reached"
        ):  # nobody listens at the address that was checked
            await Fetcher(["127.0.0.2"]).get(f"http://rebinding.example:{port}/", MAX_BYTES)
        with pytest.raises(FetchError, match="not a public one"):
            await Fetcher([]).get(f"http://both.example:{port}/", MAX_BYTES)
        assert asked.count("rebinding.example") == 1 and trap.heard == []

    served(lambda port: Trap(plain()), work)


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "127.0.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1", "::1", "::", "fe80::1"),
        *(
            "fc00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001:db8::1",
            "::7f00:1",
        ),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        *(
            "ftp://a/",
            "file:///etc/passwd",
            "unix:/run/x",
            "http:///x",
            "http://",
            "//a/b",
            "http://a:99999/",
        ),
        *("http://a b/", "http://a/\nX: y", "http://a\x00/", "http://[fe80::1%25eth0]/", "http://[zz]/"),
        *("http://user@a/", "http://:p@a/", "http://" + "a" * 9000, "http://" + "a" * 64 + ".example/"),
    ],
)
def test_urls_that_are_not_fetched(url: str) -> None:
    with pytest.raises(FetchError):
        place_of(url)


def test_the_host_header() -> None:
    assert place_of("http://a/").authority == "a"
    assert place_of("https://a:443/x").authority == "a"
    assert place_of("https://a:80/x").authority == "a:80"
    assert place_of("http://[2606:4700::1]:8/").authority == "[2606:4700::1]:8"
