"""Logging to stderr, one line per event, to read or for machines. What was asked or answered is never logged."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), 127)}


class TextFormatter(logging.Formatter):
    """`2026-01-31 12:00:00 INFO  ccd.pool: text`, with control characters escaped so that no line can be forged."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line, and the traceback below it where there is one."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        text = record.getMessage().translate(_CONTROL)
        line = f"{when} {record.levelname:<7} {record.name}: {text}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line; a traceback is a field of it."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def say(program: str, text: str, *, as_json: bool) -> None:
    """One line on stderr of a program that has not configured its log, or has none."""
    if as_json:
        record = logging.LogRecord(program, logging.WARNING, "", 0, text, None, None)
        text = JsonFormatter().format(record)
    else:
        text = f"{program}: {text}"
    print(text, file=sys.stderr)


def configure(level: str, style: Literal["text", "json"]) -> None:
    """Send all logging to stderr in the chosen form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
