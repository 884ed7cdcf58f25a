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

_MAX_AGE = re.compile(r"max-age\s*=\s*\"?(\d{1,9})\"?")


def cache_use(req: falcon.asgi.Request, fields: Mapping[str, Any]) -> CacheUse:
    """The `cache` parameter of a call that is not streamed.

    `Cache-Control` of the request is heeded: `no-cache` and `max-age` take no answer or no older one from the cache,
    `no-store` neither takes nor keeps one.

    Args:
        req: its path tells the surfaces apart.
        fields: the body, decoded.
    """
    use = CacheUse(key=digest(req.path, fields))
    wanted = (req.get_header("cache-control") or "").lower()
    words = {word.strip() for word in wanted.split(",")}
    age = _MAX_AGE.search(wanted)
    if "no-store" in words or "no-cache" in words:
        use["max_age_s"] = 0.0
    elif age is not None:
        use["max_age_s"] = float(age[1])
    if "no-store" in words:
        use["store"] = False
    return use


def digest(surface: str, fields: Mapping[str, Any]) -> str:
    """A digest of a request: all fields, in any order; null and absent are the same, inside of a field nothing is."""
    given = [[name, value] for name, value in sorted(fields.items()) if value is not None]
    return hashlib.sha256(msgspec.json.encode([surface, given])).hexdigest()


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
