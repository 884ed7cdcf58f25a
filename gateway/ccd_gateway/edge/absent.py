"""Routes that are not here: a 404 that says why and what is, for clients that expect all of OpenAI's API."""

from __future__ import annotations

from collections.abc import Iterable

from ccd_gateway.edge.routing import ANY, Refusing, Route
from ccd_gateway.errors import ApiError
from ccd_gateway.shapes import MESSAGES

# What a part of OpenAI's API would need, and Claude Code does not have.
_REASONS = {
    "audio": "Claude neither speaks nor listens",
    "completions": "the older text completions are not offered; send a prompt as a user message instead",
    "embeddings": "Claude makes no embeddings",
    "fine_tuning": "models cannot be tuned here",
    "images": "Claude makes no images; it reads those in messages",
    "moderations": "there is no moderation model",
    "realtime": "there is no realtime API",
    "videos": "Claude makes no videos",
}


#: Where a path ends that is meant for an API in whose shape the refusal is to be.
_MESSAGES_ENDS = ("/messages", "/messages/count_tokens")


def misplaced(routes: Iterable[Route]) -> dict[str, Route]:
    """Returns by their ends what answers paths without a route that are meant for the Messages API."""
    served = _served(routes)
    refusing = Refusing(lambda method, path: unknown_route(method, path, served))
    return {end: Route("", refusing, scopes=ANY, shape=MESSAGES) for end in _MESSAGES_ENDS}


def absent(routes: Iterable[Route]) -> Route:
    """What answers every path without a route; `routes` are those with one."""
    served = _served(routes)
    return Route("", Refusing(lambda method, path: unknown_route(method, path, served)), scopes=ANY)


def _served(routes: Iterable[Route]) -> list[str]:
    return [route.path for route in routes if route.path.startswith("/v1/") and "{" not in route.path]


def _meant(path: str, served: Iterable[str]) -> str | None:
    """The route that a path was meant for: with another prefix, with one twice, or without."""
    plain = path.rstrip("/")
    ends = {right: right.removeprefix("/v1") for right in served}
    found = [right for right, end in ends.items() if plain.endswith(end) and plain != right]
    return max(found, key=len, default=None)


def unknown_route(method: str, path: str, served: Iterable[str] = ()) -> ApiError:
    """The 404 for a path that leads nowhere.

    Args:
        method: the request's.
        path: the request's; only a part of it is shown.
        served: paths of this server under /v1, to be named.
    """
    shown = f"{method} {path[:200]}"
    if (right := _meant(path, served)) is not None:
        text = f"Unknown route: {shown}. It is {right} here: the base URL ends before that, or before /v1."
        return ApiError(404, text, code="unknown_url")
    head, _, rest = path.removeprefix("/").partition("/")
    if head != "v1":
        return ApiError(404, f"Unknown route: {shown}. The API is under /v1.", code="unknown_url")
    reason = _REASONS.get(rest.partition("/")[0])
    why = f": {reason}" if reason else ""
    there = ", ".join(sorted(served))
    return ApiError(404, f"There is no {shown} here{why}. There are: {there}.", code="unknown_url")
