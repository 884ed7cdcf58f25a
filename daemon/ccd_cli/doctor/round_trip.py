"""A full round trip on loopback: the real CLI, a daemon of its own and the offline API answer one question.

Nothing of the user's is touched: a fresh HOME, a dummy key, a socket in a temporary directory.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ccd_cli.doctor.finding import Finding
from ccd_client import Client
from ccd_protocol.errors import RpcError

_READY_S = 90.0
_STOP_S = 30.0
_QUESTION = "ping from ccd doctor"


def round_trip(command: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Ask one question through everything but the gateway and the real API.

    Args:
        command: the CLI.
        environ: PATH and the locale are taken from it.
    """
    started = time.monotonic()
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ccd-doctor-")))
            base = {name: environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in environ}
            base |= {"HOME": str(folder)}
            api = stack.enter_context(_running(["-m", "ccd_offline", "--bind", "127.0.0.1:0"], base))
            env = base | {
                "ANTHROPIC_API_KEY": "doctor",
                "ANTHROPIC_BASE_URL": str(json.loads(api)["url"]),
                "CCD_CLI__COMMAND": str(command),
                "CCD_POOL__SPARES": "1",
                "CCD_POOL__MAX_WORKERS": "1",
                "CCD_LOG__LEVEL": "error",
            }
            socket = folder / "run" / "ccd.sock"
            stack.enter_context(
                _running(["-m", "ccd_cli", "daemon", "--with-parent", "--socket", str(socket)], env)
            )
            with Client(socket) as client:
                text = client.chat(_QUESTION).text
    except (RpcError, OSError, ValueError, subprocess.SubprocessError) as error:
        told = error.message if isinstance(error, RpcError) else str(error)
        yield Finding("round trip", "fault", f"no answer: {told}", "ccd up --offline shows it step by step")
        return
    elapsed_s = time.monotonic() - started
    if _QUESTION in text:
        yield Finding(
            "round trip", "ok", f"CLI, daemon and socket answered in {elapsed_s:.1f} s, start included"
        )
    else:
        yield Finding("round trip", "fault", f"the echo came back changed: {text[:80]!r}", "ccd bugreport")


@contextmanager
def _running(arguments: list[str], environ: Mapping[str, str]) -> Iterator[str]:
    """Run `python -m …` until its first line of output, which is given; it ends with the block."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**environ, "CCD_STARTED_BY": str(os.getpid())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        readable, _, _ = select.select([process.stdout], [], [], _READY_S)
        line = process.stdout.readline() if readable else ""
        if not line:
            raise ValueError(f"{arguments[1]} did not start")
        yield line
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
