"""The tables. A task has items: one for a task, one for each line of a batch or step of a workflow."""

from __future__ import annotations

import sqlalchemy as sa

#: Goes up when a table changes in a way that an older worker cannot live with.
SCHEMA_VERSION = 1

PENDING, RUNNING, COMPLETED, FAILED = "pending", "running", "completed", "failed"
CANCELLED, INTERRUPTED = "cancelled", "interrupted"
OPEN = "open"  # a batch whose lines still come; nothing of it is run
STATUSES = (PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, INTERRUPTED)
FINAL = frozenset({COMPLETED, FAILED, CANCELLED, INTERRUPTED})

metadata = sa.MetaData()
_text, _float, _int = sa.Text, sa.Double, sa.BigInteger

about = sa.Table("ccd_about", metadata, sa.Column("version", _int, primary_key=True))

task = sa.Table(
    "ccd_task",
    metadata,
    sa.Column("id", _text, primary_key=True),
    sa.Column("tenant", _text, nullable=False),
    sa.Column("key_id", _text),
    sa.Column("kind", _text, nullable=False),  # task, batch, workflow
    sa.Column("surface", _text, nullable=False),  # whose API it came by
    sa.Column("status", _text, nullable=False),
    sa.Column("spec", _text, nullable=False),  # JSON: options of the whole
    sa.Column("error", _text),  # JSON: code, message
    sa.Column("priority", _int, nullable=False),
    sa.Column("total", _int, nullable=False),
    sa.Column("generation", _int, nullable=False),  # of its DBOS workflow; writes of an older one are refused
    sa.Column("host", _text),  # who runs it
    sa.Column("cancelling", _int, nullable=False),
    sa.Column("last_seq", _int, nullable=False),  # of its events
    sa.Column("created_at", _float, nullable=False),
    sa.Column("updated_at", _float, nullable=False),
    sa.Column("started_at", _float),
    sa.Column("completed_at", _float),
    sa.Column("expires_at", _float),
    sa.Index("ccd_task_tenant", "tenant", "created_at"),
    sa.Index("ccd_task_status", "status", "updated_at"),
)

key = sa.Table(
    "ccd_idempotency_key",
    metadata,
    sa.Column("tenant", _text, primary_key=True),
    sa.Column("name", _text, primary_key=True),
    sa.Column("digest", _text, nullable=False),
    sa.Column("task_id", _text, nullable=False),
)

item = sa.Table(
    "ccd_item",
    metadata,
    sa.Column("task_id", _text, primary_key=True),
    sa.Column("number", _int, primary_key=True),
    sa.Column("name", _text, nullable=False),
    sa.Column("status", _text, nullable=False),
    sa.Column("params", _text, nullable=False),  # JSON: the step
    sa.Column("result", _text),  # JSON: the answer
    sa.Column("error", _text),  # JSON: code, message
    sa.Column("attempts", _int, nullable=False),
    sa.Column("interruptions", _int, nullable=False),  # attempts that ended without anybody knowing how
    sa.Column("cost_usd", _float, nullable=False),
    sa.Column("input_tokens", _int, nullable=False),
    sa.Column("output_tokens", _int, nullable=False),
    sa.Column("started_at", _float),
    sa.Column("completed_at", _float),
)

event = sa.Table(
    "ccd_event",
    metadata,
    sa.Column("task_id", _text, primary_key=True),
    sa.Column("seq", _int, primary_key=True),
    sa.Column("at", _float, nullable=False),
    sa.Column("type", _text, nullable=False),
    sa.Column("data", _text, nullable=False),  # JSON
)

delivery = sa.Table(
    "ccd_delivery",
    metadata,
    sa.Column("id", _text, primary_key=True),
    sa.Column("task_id", _text, nullable=False),
    sa.Column("tenant", _text, nullable=False),
    sa.Column("url", _text, nullable=False),
    sa.Column("secret", _text, nullable=False),
    sa.Column("payload", _text, nullable=False),
    sa.Column("status", _text, nullable=False),  # pending, delivered, failed
    sa.Column("attempts", _int, nullable=False),
    sa.Column("generation", _int, nullable=False),
    sa.Column("http_status", _int),
    sa.Column("error", _text),
    sa.Column("created_at", _float, nullable=False),
    sa.Column("next_at", _float, nullable=False),
    sa.Index("ccd_delivery_task", "task_id"),
    sa.Index("ccd_delivery_status", "status", "next_at"),
)

file = sa.Table(
    "ccd_file",
    metadata,
    sa.Column("id", _text, primary_key=True),
    sa.Column("tenant", _text, nullable=False),
    sa.Column("filename", _text, nullable=False),
    sa.Column("purpose", _text, nullable=False),
    sa.Column("bytes", _int, nullable=False),
    sa.Column("ready", _int, nullable=False),
    sa.Column("created_at", _float, nullable=False),
    sa.Column("expires_at", _float, nullable=False),
    sa.Index("ccd_file_tenant", "tenant", "created_at"),
)

piece = sa.Table(
    "ccd_file_piece",
    metadata,
    sa.Column("file_id", _text, primary_key=True),
    sa.Column("number", _int, primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

host = sa.Table(
    "ccd_host",
    metadata,
    sa.Column("id", _text, primary_key=True),
    sa.Column("name", _text, nullable=False),
    sa.Column("epoch", _int, nullable=False),  # goes up at every start, and when others declare it dead
    sa.Column("beat_at", _float, nullable=False),
    sa.Column("dead", _int, nullable=False),
)

lease = sa.Table(
    "ccd_lease",
    metadata,
    sa.Column("name", _text, primary_key=True),
    sa.Column("holder", _text, nullable=False),
    sa.Column("until", _float, nullable=False),
)
