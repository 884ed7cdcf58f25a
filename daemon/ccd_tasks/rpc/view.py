"""Tasks, items and files as they are shown: plain values, times in seconds since 1970."""

from __future__ import annotations

import json
from typing import Any

from ccd_tasks.store.schema import FINAL, STATUSES

Row = Any
_NOTHING: dict[str, Any] = {
    "items": {},
    "cost_usd": 0.0,
    "input_tokens": 0,
    "output_tokens": 0,
    "interruptions": 0,
}


def task_view(row: Row, counted: dict[str, Any] | None) -> dict[str, Any]:
    """One task (`ccd_protocol.tasks.TaskInfo`)."""
    counted = counted or _NOTHING
    spec = loads(row.spec) or {}
    return {
        **{"id": row.id, "kind": row.kind, "surface": row.surface, "status": row.status},
        **{"final": row.status in FINAL, "priority": row.priority, "total": row.total},
        "items": {word: counted["items"].get(word, 0) for word in STATUSES},
        "interruptions": counted["interruptions"],
        "usage": {name: counted[name] for name in ("input_tokens", "output_tokens")},
        "cost_usd": round(counted["cost_usd"], 9),
        "error": loads(row.error),
        **{"metadata": spec.get("metadata") or {}, "meta": spec.get("meta") or {}},
        **{"cancelling": bool(row.cancelling), "last_seq": row.last_seq, "expires_at": row.expires_at},
        **{"created_at": row.created_at, "updated_at": row.updated_at},
        **{"started_at": row.started_at, "completed_at": row.completed_at},
    }


def item_view(row: Row) -> dict[str, Any]:
    """One item (`ccd_protocol.tasks.TaskItem`), without what was asked."""
    params = loads(row.params) or {}
    return {
        **{"number": row.number, "name": row.name, "status": row.status},
        **{"result": loads(row.result), "error": loads(row.error), "meta": params.get("meta") or {}},
        **{"attempts": row.attempts, "interruptions": row.interruptions, "cost_usd": row.cost_usd},
        **{"started_at": row.started_at, "completed_at": row.completed_at},
    }


def file_view(row: Row) -> dict[str, Any]:
    """One file (`ccd_protocol.tasks.FileInfo`)."""
    return {
        **{"id": row.id, "filename": row.filename, "purpose": row.purpose, "bytes": row.bytes},
        **{"ready": bool(row.ready), "created_at": row.created_at, "expires_at": row.expires_at},
    }


def delivery_view(row: Row) -> dict[str, Any]:
    """One webhook (`ccd_protocol.tasks.Delivery`), without its secret."""
    return {
        **{"id": row.id, "task_id": row.task_id, "url": row.url, "status": row.status},
        **{"type": (loads(row.payload) or {}).get("type"), "attempts": row.attempts},
        **{"http_status": row.http_status, "error": row.error},
        **{"created_at": row.created_at, "next_at": row.next_at if row.status == "pending" else None},
    }


def loads(text: str | None) -> Any:
    """JSON that was kept; None for what cannot be read any more."""
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return None
