"""Cached answers: under what a request's answer is kept, and what the answer says about it. No I/O.

The cache is the daemon's (`cache.enabled`), so that all processes of the gateway share it. The daemon's key holds the
whole call; what is sent along here is a digest of the request as the client made it, so that requests which differ in
a parameter without effect do not share an answer either.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import falcon.asgi
import msgspec

from ccd_protocol.methods import CacheUse, ChatParams

MAX_BYTES = 1 << 20
_AROUND = CacheUse(key="-", max_age_s=0.0, store=False)  # past the cache; the daemon says so if there is one
_MAX_AGE = re.compile(r"max-age\s*=\s*\"?(\d{1,9})\"?")


def cache_use(req: falcon.asgi.Request, fields: Mapping[str, Any]) -> CacheUse:
    """The `cache` parameter of a call that is not streamed.

    `Cache-Control` of the request is heeded: `no-cache` and `max-age` take no answer or no older one from the cache,
    `no-store` neither takes nor keeps one. Neither does a request that would take long to digest.

    Args:
        req: its path tells the surfaces apart.
        fields: the body, decoded.
    """
    wanted = (req.get_header("cache-control") or "").lower()
    words = {word.strip() for word in wanted.split(",")}
    if "no-store" in words:
        return _AROUND
    key = digest(req.path, fields)
    if key is None:
        return _AROUND
    if "no-cache" in words:
        return CacheUse(key=key, max_age_s=0.0)
    age = _MAX_AGE.search(wanted)
    return CacheUse(key=key) if age is None else CacheUse(key=key, max_age_s=float(age[1]))


def digest(surface: str, fields: Mapping[str, Any]) -> str | None:
    """A digest of a request: all fields, in any order; null and absent are the same, inside of a field nothing is.

    None for one of more than `MAX_BYTES`, because nothing else is served meanwhile.
    """
    given = [[name, value] for name, value in sorted(fields.items()) if value is not None]
    encoded = msgspec.json.encode([surface, given])
    return None if len(encoded) > MAX_BYTES else hashlib.sha256(encoded).hexdigest()


def numbered(params: ChatParams, number: int) -> ChatParams:
    """The call for one of several answers to a request: each has a place of its own in the cache."""
    use = params.get("cache")
    if use is None or number == 0:
        return params
    return {**params, "cache": {**use, "key": f"{use['key']}/{number}"}}


def name_cache(resp: falcon.asgi.Response, answers: Sequence[Mapping[str, Any]]) -> None:
    """Say in `X-Cache` where the answers came from: HIT only if none was asked for; nothing where there is no cache."""
    words = {answer.get("cache") for answer in answers} - {None}
    if not words:
        return
    resp.set_header("x-cache", next(word for word in ("bypass", "miss", "hit") if word in words).upper())
