"""What keeps web pages from using a gateway that listens on the visitor's own machine.

A page can make a browser send requests to 127.0.0.1. It cannot choose their Host header (so a name that
was rebound to 127.0.0.1 shows), it cannot leave out Origin, and it cannot send `application/json`
without asking first.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping

from ccd_gateway.errors import JSON, ApiError

Headers = Mapping[bytes, bytes]

_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<name>[A-Za-z0-9_.-]+))(?::\d{1,5})?")
_WILDCARDS = frozenset({"", "0.0.0.0", "::"})
_EXPOSED = (
    "x-request-id, request-id, x-ccd-ignored, x-ccd-estimated, x-cache, x-conversation-id, "
    "retry-after, retry-after-ms, "
    "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    "x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)
_MAX_PREFLIGHT_BYTES = 4096


class BrowserRules:
    """Decides by the headers of a request; no I/O.

    Args:
        bind_host: the host that the gateway listens on, or None when it is not known.
        hosts: further Host names to answer to; `*` for any.
        origins: Origins that may use the gateway; `*` for any. Without one, no CORS header is ever sent.
    """

    def __init__(self, bind_host: str | None, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._bind_host = bind_host
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    def check(self, method: str, headers: Headers) -> None:
        """Admit a request or refuse it.

        Raises:
            ApiError: 403 for a Host or Origin that is not listed, 415 for a body that a form could have sent.
        """
        host = headers.get(b"host")
        if host is not None and not self._host_allowed(host.decode("latin-1")):
            raise _forbidden(
                "This Host name is not served here. If it should be, list it in gateway.allowed_hosts.",
                "host_not_allowed",
            )
        origin = headers.get(b"origin")
        if origin is not None and not self.origin_allowed(origin):
            raise _forbidden(
                "Pages of this Origin may not use the gateway. If they should, list it in "
                "gateway.allowed_origins.",
                "origin_not_allowed",
            )
        if method not in ("GET", "HEAD", "OPTIONS") and _from_browser(headers) and not _is_json(headers):
            raise ApiError(
                415,
                "Requests from a browser must have Content-Type: application/json.",
                code="unsupported_media_type",
            )

    def origin_allowed(self, origin: bytes) -> bool:
        """Whether the Origin is listed."""
        return "*" in self._origins or origin.decode("latin-1").lower() in self._origins

    def cors_headers(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        """What to add to every answer to a page; nothing unless CORS is configured."""
        if not self._origins:
            return []
        headers = [(b"vary", b"Origin")]
        if origin is not None and self.origin_allowed(origin):
            headers.append((b"access-control-allow-origin", origin))
            headers.append((b"access-control-expose-headers", _EXPOSED.encode()))
        return headers

    def preflight(self, method: str, headers: Headers) -> list[tuple[bytes, bytes]] | None:
        """The headers that answer a preflight, or None when the request is not one. Call after `check`."""
        wanted = headers.get(b"access-control-request-method")
        if method != "OPTIONS" or wanted is None or b"origin" not in headers:
            return None
        answer = [
            (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
            (b"access-control-max-age", b"600"),
        ]
        asked = headers.get(b"access-control-request-headers", b"")
        if asked and len(asked) <= _MAX_PREFLIGHT_BYTES:
            answer.append((b"access-control-allow-headers", asked))
        return answer

    def _host_allowed(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = (match["v6"] or match["name"]).lower().rstrip(".")
        if name == "localhost" or name.endswith(".localhost") or "*" in self._hosts or name in self._hosts:
            return True
        return name == self._bind_host or self._address_allowed(name)

    def _address_allowed(self, name: str) -> bool:
        """Loopback always; any address where the gateway listens on all, for an address cannot be rebound."""
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self._bind_host in _WILDCARDS


def _forbidden(message: str, code: str) -> ApiError:
    return ApiError(403, message, code=code, headers=[("x-should-retry", "false")])


def _from_browser(headers: Headers) -> bool:
    site = headers.get(b"sec-fetch-site", b"none").strip().lower()
    return b"origin" in headers or site not in (b"none", b"same-origin")


def _is_json(headers: Headers) -> bool:
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return kind == JSON.encode()
