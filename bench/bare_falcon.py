"""The floor of an answer that is not streamed: the same framework on the same server, without a gateway.

Run with an address; the application reads the body and sends ready bytes of the size of an answer.
"""

from __future__ import annotations

import sys
from typing import Any

import falcon.asgi
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

_BODY = b'{"padding":"' + b"x" * 700 + b'"}'


class _Ready:
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        await req.stream.read()
        resp.content_type = "application/json"
        resp.data = _BODY


class _Server(BaseApplication):  # type: ignore[misc]
    def load_config(self) -> None:
        for name, value in {
            "bind": sys.argv[1], "workers": 2, "worker_class": "asgi", "asgi_loop": "uvloop",
            "control_socket_disable": True, "loglevel": "warning",
            "when_ready": lambda arbiter: print(f"http://{sys.argv[1]}", flush=True),
        }.items():  # fmt: skip
            self.cfg.set(name, value)

    def load(self) -> Any:
        app = falcon.asgi.App()
        app.add_route("/v1/chat/completions", _Ready())
        return app


if __name__ == "__main__":
    _Server().run()
