"""What the keys have used, and what they may use now: one SQLite file for all processes of the gateway.

Everything here blocks and belongs on a thread (see `Books` in `metering`). Write-ahead logging without a
sync per commit: a process that is killed loses nothing, a power cut loses the last moments. An answer
costs two transactions, one before it and one after.

The answers that are open are counted per process, under its pid and start time, so that those of a
process that was killed stop to count.
"""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ccd_gateway.access.keyfile import Key
from ccd_gateway.access.limits import Bucket, full, refilled, shown, wait_s
from ccd_settings.sqlite_file import Schema, open_file, transaction

_TABLES = """
CREATE TABLE IF NOT EXISTS usage (
  day TEXT, key_id TEXT, model TEXT, key_name TEXT NOT NULL, tenant TEXT NOT NULL,
  requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL, weight REAL NOT NULL, cost_usd REAL NOT NULL,
  PRIMARY KEY (day, key_id, model)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bucket (
  key_id TEXT, kind TEXT, level REAL NOT NULL, at_s REAL NOT NULL, PRIMARY KEY (key_id, kind)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answering (
  key_id TEXT, process TEXT, count INTEGER NOT NULL, PRIMARY KEY (key_id, process)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS running (
  key_id TEXT, process TEXT, usd REAL NOT NULL, PRIMARY KEY (key_id, process)) WITHOUT ROWID;
"""
_SCHEMA = Schema(1, _TABLES)
_BOOK = """
INSERT INTO usage VALUES (:day, :key_id, :model, :key_name, :tenant, 1, :input, :cached, :output, :weight, :cost)
ON CONFLICT DO UPDATE SET requests = requests + 1, key_name = excluded.key_name, tenant = excluded.tenant,
  input_tokens = input_tokens + excluded.input_tokens, cached_tokens = cached_tokens + excluded.cached_tokens,
  output_tokens = output_tokens + excluded.output_tokens, weight = weight + excluded.weight,
  cost_usd = cost_usd + excluded.cost_usd
"""
_BUSY_S = 5.0
_PRICE_DAYS = 30


class Used(NamedTuple):
    """What one answer used up. `weight` is in input tokens: what the price of a model is multiplied with."""

    model: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    weight: float
    cost_usd: float

    @property
    def limited_tokens(self) -> int:
        """What counts against tokens per minute: input that was read from the cache does not."""
        return self.input_tokens + self.output_tokens


class Verdict(NamedTuple):
    """Whether an answer may begin.

    Attributes:
        refused: None, `"budget"`, `"concurrent"`, `"requests"` or `"tokens"`.
        wait_s: when asking again can help.
        spent_usd: what the key has spent today.
        headers: `x-ratelimit-*`.
    """

    refused: str | None
    wait_s: float
    spent_usd: float
    headers: list[tuple[bytes, bytes]]


class UsageRow(NamedTuple):
    """One line of `ccd ctl usage`."""

    day: str
    key: str
    key_id: str
    tenant: str
    model: str
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float


class Ledger:
    """The open file. To be used from one thread.

    Raises:
        sqlite3.Error, OSError: the file cannot be used; so does every method.
    """

    def __init__(self, path: Path) -> None:
        self._process = own_process()
        # A broken one is never set aside: budgets that were used up would begin anew.
        self._db = open_file(path, _SCHEMA, durable=False, set_aside=False)

    def close(self) -> None:
        """Forget the answers of this process, and close the file."""
        with transaction(self._db):
            self._forget(self._process)
        self._db.close()

    def begin(self, key: Key, now_s: float, running_usd: float = 0.0) -> Verdict:
        """Admit one answer, and count it as open, or say why not. What is refused uses nothing up.

        Args:
            key: whose answer.
            now_s: seconds since 1970.
            running_usd: what the key's open answers in this process have cost so far.
        """
        with transaction(self._db):
            spent_usd = self._spent(key, now_s) if key.usd_per_day is not None else 0.0
            requests = self._bucket(key, "requests", key.requests_per_minute, now_s)
            tokens = self._bucket(key, "tokens", key.tokens_per_minute, now_s)
            refused, after_s = self._refusal(key, spent_usd + running_usd, requests, tokens)
            if refused is None:
                if requests is not None:
                    requests = requests._replace(level=requests.level - 1)
                    self._keep(key, "requests", requests)
                self._count(key, 1)
        headers = []
        if requests is not None and key.requests_per_minute is not None:
            headers += shown("requests", requests, key.requests_per_minute)
        if tokens is not None and key.tokens_per_minute is not None:
            headers += shown("tokens", tokens, key.tokens_per_minute)
        return Verdict(refused, after_s, spent_usd, headers)

    def end(self, key: Key, used: Used | None, now_s: float, running_usd: float = 0.0) -> None:
        """Book an answer that was begun, and count it as closed; None when it came to nothing.

        `running_usd` is of the answers of the key that are still open in this process.
        """
        with transaction(self._db):
            self._count(key, -1)
            self._runs_up(key, running_usd)
            if used is None:
                return
            self._db.execute(
                _BOOK,
                {
                    "day": day_of(now_s),
                    "key_id": key.id,
                    "model": used.model,
                    "key_name": key.name,
                    "tenant": key.tenant,
                    "input": used.input_tokens,
                    "cached": used.cached_tokens,
                    "output": used.output_tokens,
                    "weight": used.weight,
                    "cost": used.cost_usd,
                },
            )
            tokens = self._bucket(key, "tokens", key.tokens_per_minute, now_s)
            if tokens is not None:
                self._keep(key, "tokens", tokens._replace(level=tokens.level - used.limited_tokens))

    def spent(self, key: Key, now_s: float, running_usd: float = 0.0) -> float:
        """USD that the key has spent today, with what its open answers in other processes have cost so far.

        `running_usd` is of those in this process: the others are told, it is not in the result.
        """
        with transaction(self._db):
            self._runs_up(key, running_usd)
            return self._spent(key, now_s)

    def prices(self, now_s: float) -> dict[str, float]:
        """USD per unit of weight by model, from what its answers have cost lately."""
        since = day_of(now_s - _PRICE_DAYS * 86400)
        rows = self._db.execute(
            "SELECT model, sum(cost_usd) / sum(weight) FROM usage WHERE day >= ? GROUP BY model"
            " HAVING sum(weight) > 0",
            (since,),
        )
        return dict(rows.fetchall())

    def _refusal(
        self, key: Key, spent_usd: float, requests: Bucket | None, tokens: Bucket | None
    ) -> tuple[str | None, float]:
        if key.usd_per_day is not None and spent_usd >= key.usd_per_day:
            return "budget", 0.0
        if key.concurrent is not None and self._open(key) >= key.concurrent:
            return "concurrent", 1.0
        if requests is not None and key.requests_per_minute is not None and requests.level < 1:
            return "requests", wait_s(requests, 1, key.requests_per_minute)
        if tokens is not None and key.tokens_per_minute is not None and tokens.level <= 0:
            return "tokens", wait_s(tokens, 1, key.tokens_per_minute)
        return None, 0.0

    def _spent(self, key: Key, now_s: float) -> float:
        [spent] = self._db.execute(
            "SELECT coalesce(sum(cost_usd), 0) FROM usage WHERE day = ? AND key_id = ?",
            (day_of(now_s), key.id),
        ).fetchone()
        elsewhere = self._db.execute(
            "SELECT process, usd FROM running WHERE key_id = ? AND process <> ? AND usd > 0",
            (key.id, self._process),
        ).fetchall()
        return float(spent + sum(usd for process, usd in elsewhere if _runs(process)))

    def _runs_up(self, key: Key, usd: float) -> None:
        if key.usd_per_day is not None:
            row = (key.id, self._process, usd)
            self._db.execute("INSERT OR REPLACE INTO running VALUES (?, ?, ?)", row)

    def _forget(self, process: str) -> None:
        """A process whose answers are open no longer."""
        self._db.execute("DELETE FROM answering WHERE process = ?", (process,))
        self._db.execute("DELETE FROM running WHERE process = ?", (process,))

    def _bucket(self, key: Key, kind: str, per_minute: int | None, now_s: float) -> Bucket | None:
        if per_minute is None:
            return None
        row = self._db.execute(
            "SELECT level, at_s FROM bucket WHERE key_id = ? AND kind = ?", (key.id, kind)
        ).fetchone()
        return refilled(Bucket(*row), per_minute, now_s) if row else full(per_minute, now_s)

    def _keep(self, key: Key, kind: str, bucket: Bucket) -> None:
        self._db.execute("INSERT OR REPLACE INTO bucket VALUES (?, ?, ?, ?)", (key.id, kind, *bucket))

    def _count(self, key: Key, change: int) -> None:
        if key.concurrent is None:
            return
        self._db.execute(
            "INSERT INTO answering VALUES (:key, :process, max(0, :change))"
            " ON CONFLICT DO UPDATE SET count = max(0, count + :change)",
            {"key": key.id, "process": self._process, "change": change},
        )

    def _open(self, key: Key) -> int:
        """Answers of the key that are open; processes are looked at only when there are some."""
        rows = self._db.execute(
            "SELECT process, count FROM answering WHERE key_id = ? AND count > 0", (key.id,)
        ).fetchall()
        dead = [process for process, _ in rows if process != self._process and not _runs(process)]
        for process in dead:
            self._forget(process)
        return sum(count for process, count in rows if process not in dead)


def read_usage(path: Path, since: str) -> list[UsageRow]:
    """What was booked from a day (`2026-11-01`, UTC) on, oldest first; nothing when there is no file.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    if not path.exists():
        return []
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)
    try:
        rows = db.execute(
            "SELECT day, key_name, key_id, tenant, model, requests, input_tokens, cached_tokens, output_tokens,"
            " cost_usd FROM usage WHERE day >= ? ORDER BY day, key_name, model",
            (since,),
        )
        return [UsageRow(*row) for row in rows]
    finally:
        db.close()


def day_of(now_s: float) -> str:
    """The day of a moment, in UTC."""
    return datetime.fromtimestamp(now_s, UTC).date().isoformat()


def own_process() -> str:
    """This process, told from a later one with the same pid."""
    return _process_name(os.getpid()) or str(os.getpid())


def _process_name(pid: int) -> str | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else f"{pid}:{fields[19]}"


def _runs(process: str) -> bool:
    return _process_name(int(process.partition(":")[0])) == process
