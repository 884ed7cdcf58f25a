"""`GET /`: says that ccd runs, with links and a snippet to copy. Text for curl, HTML for a browser."""

from __future__ import annotations

import html

import falcon.asgi

from ccd_gateway.answer.backend import Backend
from ccd_gateway.edge.description import TEXT, Description, refused
from ccd_gateway.edge.routing import Route
from ccd_protocol.errors import RpcError

_TIMEOUT_S = 1.0
_LINKS = {
    "/v1/models": "the models that can be asked",
    "/health": "whether a request would be answered",
    "/openapi.json": "every path, for programs",
}
_ASK = '{"model": "sonnet", "messages": [{"role": "user", "content": "Say hello."}]}'
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>ccd</title>
<style>body {{ font: 16px/1.5 sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem }}
pre {{ background: #f4f4f4; color: #222; padding: 1rem; overflow-x: auto }}</style></head>
<body><h1>{state}</h1>
<p>Ask something from a shell:</p>
<pre>{ask}</pre>
<p>Any OpenAI client works with the base URL <code>{url}/v1</code>.</p>
<ul>
{links}
</ul></body></html>
"""


class Welcome:
    """The resource. It tells nobody more than `/health` does."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Answer a browser or a shell."""
        url = f"{req.scheme}://{req.netloc}"
        state = await self._state()
        ask = f"curl -s {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{_ASK}'"
        resp.set_header("vary", "accept")
        resp.set_header("cache-control", "no-store")
        if "text/html" in (req.get_header("accept") or "").lower():
            resp.content_type = "text/html; charset=utf-8"
            resp.set_header("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'")
            resp.text = _page(url, state, ask)
        else:
            resp.content_type = "text/plain; charset=utf-8"
            lines = [f"  {url}{path}  {what}" for path, what in _LINKS.items()]
            resp.text = "\n".join([state, "", ask, "", *lines, ""])

    on_head = on_get

    async def _state(self) -> str:
        try:
            health = await self._backend.call_once("daemon.health", timeout_s=_TIMEOUT_S)
        except RpcError:
            return "The gateway of ccd is running, but the daemon behind it is away."
        if health["ready"]:
            return "ccd is running."
        return f"ccd is running, but it cannot answer now: {health['reason'] or health['state']}"


def _page(url: str, state: str, ask: str) -> str:
    links = "\n".join(
        f'<li><a href="{path}">{path}</a>: {html.escape(what)}</li>' for path, what in _LINKS.items()
    )
    return _PAGE.format(state=html.escape(state), ask=html.escape(ask), url=html.escape(url), links=links)


def routes(backend: Backend) -> list[Route]:
    """The one route, for everybody."""
    return [Route("/", Welcome(backend), _description, scopes=None)]


def _description() -> Description:
    content = {"text/plain": {"schema": TEXT}, "text/html": {"schema": TEXT}}
    answer = {"description": "Says that ccd runs, and how to use it.", "content": content}
    return Description({"get": {"operationId": "welcome", "responses": {**refused({}), "200": answer}}})
