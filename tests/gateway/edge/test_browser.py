from __future__ import annotations

import pytest

from ccd_gateway.edge.browser import BrowserRules
from ccd_gateway.errors import ApiError


def check(
    host: str | None = "127.0.0.1:8080",
    *,
    method: str = "POST",
    bind: str | None = "127.0.0.1",
    hosts: list[str] | None = None,
    origins: list[str] | None = None,
    **headers: str,
) -> tuple[int, str | None]:
    given = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    if host is not None:
        given[b"host"] = host.encode("latin-1")
    try:
        BrowserRules(bind, hosts or [], origins or []).check(method, given)
    except ApiError as error:
        return error.status, error.error["code"]
    return 200, None


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "localhost.",
        "x.localhost:1",
        "127.0.0.1",
        "127.9.9.9:80",
        "[::1]:8080",
        "[::1]",
        None,
    ],
)
def test_loopback_names(host: str | None) -> None:
    assert check(host) == (200, None)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.5",
        "[2001:db8::1]",
        "user@localhost",
        "localhost:80:80",
        "",
        "local host",
        "\xe9",
        "localhost, evil",
    ],
)
def test_other_names_are_refused(host: str) -> None:
    assert check(host, method="GET") == (403, "host_not_allowed")


def test_bind_address_and_listed_names() -> None:
    assert check("192.168.1.5:80", bind="192.168.1.5") == (200, None)
    assert check("192.168.1.6:80", bind="192.168.1.5") == (403, "host_not_allowed")
    assert check("gw.example", hosts=["GW.example"]) == (200, None)
    assert check("anything.example", hosts=["*"]) == (200, None)
    assert check("192.168.1.6", bind="0.0.0.0") == (200, None)
    assert check("gw.example", bind="0.0.0.0") == (403, "host_not_allowed")
    assert check("192.168.1.6", bind=None) == (403, "host_not_allowed")


def test_origins() -> None:
    page = {"origin": "http://localhost:3000", "content_type": "application/json"}
    assert check(**page) == (403, "origin_not_allowed")
    assert check(method="GET", origin="null") == (403, "origin_not_allowed")
    assert check(origins=["http://localhost:3000/"], **page) == (200, None)
    assert check(origins=["http://localhost:3001"], **page) == (403, "origin_not_allowed")
    assert check(origins=["*"], **page) == (200, None)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonx", 415),
        ("", 415),
    ],
)
def test_content_type_of_pages(content_type: str, status: int) -> None:
    allowed = {"origins": ["http://a"], "content_type": content_type}
    assert check(origin="http://a", **allowed)[0] == status  # type: ignore[arg-type]
    assert check(sec_fetch_site="cross-site", content_type=content_type)[0] == status
    assert check(sec_fetch_site="same-site", content_type=content_type)[0] == status


def test_content_type_does_not_matter_to_programs() -> None:
    assert check(content_type="application/x-www-form-urlencoded") == (200, None)
    assert check(sec_fetch_site="none", content_type="text/plain") == (200, None)
    assert check(method="GET", sec_fetch_site="cross-site") == (200, None)


def test_cors_is_off_unless_configured() -> None:
    rules = BrowserRules("127.0.0.1", [], [])
    assert rules.cors_headers(b"http://a") == []


def test_cors_headers_and_preflight() -> None:
    rules = BrowserRules("127.0.0.1", [], ["http://a"])
    headers = dict(rules.cors_headers(b"http://a"))
    assert headers[b"access-control-allow-origin"] == b"http://a"
    assert b"x-request-id" in headers[b"access-control-expose-headers"]
    assert rules.cors_headers(None) == [(b"vary", b"Origin")]
    asked = {
        b"origin": b"http://a",
        b"access-control-request-method": b"POST",
        b"access-control-request-headers": b"authorization,x-stainless-os",
    }
    answer = rules.preflight("OPTIONS", asked)
    assert answer is not None
    assert dict(answer)[b"access-control-allow-headers"] == b"authorization,x-stainless-os"
    assert b"POST" in dict(answer)[b"access-control-allow-methods"]
    assert rules.preflight("GET", asked) is None
    assert rules.preflight("OPTIONS", {b"origin": b"http://a"}) is None
