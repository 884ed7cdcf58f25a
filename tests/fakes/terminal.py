"""A terminal with a screen that can be read: tmux, with a server of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .stack import wait_until


class Terminal:
    """One shell in one window."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        tmux = shutil.which("tmux")
        assert tmux is not None, "these tests need tmux: apt-get install tmux"
        self._tmux = [tmux, "-S", str(folder / "tmux.sock"), "-f", "/dev/null"]
        self._environ = {**environ, "PS1": "$ ", "TERM": "xterm-256color"}
        shell = [
            "env",
            "-i",
            *(f"{name}={value}" for name, value in self._environ.items()),
            "TERM=screen-256color",
        ]
        self._run("new-session", "-d", "-x", "110", "-y", "40", "-c", str(folder), *shell, "sh")
        self.wait("$")

    def _run(self, *arguments: str) -> str:
        environ = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        done = subprocess.run(
            [*self._tmux, *arguments], env=environ, capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def screen(self) -> str:
        """What stands on it, long lines whole."""
        return self._run("capture-pane", "-p", "-J")

    def type(self, text: str) -> None:
        """Type a line and press Enter."""
        self._run("send-keys", "-l", text)
        self._run("send-keys", "Enter")

    def ccd(self, arguments: str) -> None:
        """Type a `ccd` command."""
        self.type(f"{shlex.quote(sys.executable)} -m ccd_cli {arguments}")

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names: C-c, Enter, Up."""
        self._run("send-keys", *keys)

    def wait(self, text: str, *, gone: bool = False) -> str:
        """Wait until a text stands on the screen, or no longer does."""
        last = [""]

        def there() -> bool:
            last[0] = self.screen
            return (text in last[0]) is not gone

        try:
            wait_until(there, timeout_s=40, what=text)
        except AssertionError as error:
            raise AssertionError(f"{error}\nthe screen:\n{last[0]}") from None
        return last[0]

    def clear(self) -> None:
        """An empty screen with a prompt."""
        self.type("clear")
        self.wait("clear", gone=True)

    def close(self) -> None:
        self._run("kill-server")


@contextmanager
def terminal(folder: Path, environ: dict[str, str]) -> Iterator[Terminal]:
    """A terminal for the length of a with block."""
    folder.mkdir(parents=True, exist_ok=True)
    opened = Terminal(folder, environ)
    try:
        yield opened
    finally:
        opened.close()
