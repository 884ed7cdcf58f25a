"""Files of the Files API, in pieces: they belong to a tenant, and are never a path on a disk."""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa

from ccd_protocol.errors import Code, RpcError
from ccd_tasks.store.schema import file, piece

Row = Any


def find(connection: sa.Connection, file_id: str, tenant: str) -> Row:
    """One file of a tenant.

    Raises:
        RpcError: NOT_FOUND.
    """
    row = connection.execute(sa.select(file).where(file.c.id == file_id, file.c.tenant == tenant)).first()
    if row is None:
        raise RpcError(Code.NOT_FOUND, f"There is no file {file_id[:80]!r}.", {"param": "file_id"})
    return row


def create(connection: sa.Connection, values: dict[str, Any]) -> None:
    """An empty file, which is not there until it is `finish`ed."""
    connection.execute(file.insert().values(bytes=0, ready=0, created_at=time.time(), **values))


def append(connection: sa.Connection, row: Row, data: bytes, max_bytes: int, max_tenant_bytes: int) -> int:
    """Add a piece; returns the size so far.

    Raises:
        RpcError: CONFLICT, it is finished; TOO_LARGE, it or all of the tenant's would be too large.
    """
    row = find(connection, row.id, row.tenant)
    if row.ready:
        raise RpcError(Code.CONFLICT, "This file is complete.")
    size = row.bytes + len(data)
    if size > max_bytes:
        raise RpcError(Code.TOO_LARGE, f"A file has at most {max_bytes} bytes (tasks.max_file_bytes).")
    held = connection.execute(
        sa.select(sa.func.sum(file.c.bytes)).where(file.c.tenant == row.tenant)
    ).scalar()
    if int(held or 0) + len(data) > max_tenant_bytes:
        raise RpcError(
            Code.TOO_LARGE,
            f"All files together have at most {max_tenant_bytes} bytes (tasks.max_files_bytes); delete some.",
        )
    number = connection.execute(
        sa.select(sa.func.count()).select_from(piece).where(piece.c.file_id == row.id)
    ).scalar()
    connection.execute(piece.insert().values(file_id=row.id, number=number, data=data))
    connection.execute(sa.update(file).where(file.c.id == row.id).values(bytes=size))
    return int(size)


def finish(connection: sa.Connection, row: Row, expires_s: float | None) -> None:
    """All of it is there; it is forgotten so long after it was begun, or by default after `tasks.retention_s`."""
    values: dict[str, Any] = {"ready": 1}
    if expires_s is not None:
        values["expires_at"] = row.created_at + expires_s
    connection.execute(sa.update(file).where(file.c.id == row.id).values(**values))


def read(connection: sa.Connection, row: Row, number: int) -> bytes | None:
    """One piece; None after the last."""
    found = connection.execute(
        sa.select(piece.c.data).where(piece.c.file_id == row.id, piece.c.number == number)
    ).first()
    return None if found is None else bytes(found.data)


def listed(
    connection: sa.Connection,
    tenant: str,
    *,
    purpose: str | None,
    after: str | None,
    limit: int,
    descending: bool,
) -> list[Row]:
    """Complete files of a tenant.

    Raises:
        RpcError: NOT_FOUND, `after` is no file.
    """
    where = [file.c.tenant == tenant, file.c.ready == 1]
    if purpose is not None:
        where.append(file.c.purpose == purpose)
    order = (file.c.created_at.desc(), file.c.id.desc()) if descending else (file.c.created_at, file.c.id)
    if after is not None:
        last = find(connection, after, tenant)
        at, name = file.c.created_at, file.c.id
        further = at < last.created_at if descending else at > last.created_at
        beside = name < last.id if descending else name > last.id
        where.append(further | ((at == last.created_at) & beside))
    return list(connection.execute(sa.select(file).where(*where).order_by(*order).limit(limit)))


def delete(connection: sa.Connection, file_id: str) -> None:
    """Forget one."""
    connection.execute(sa.delete(piece).where(piece.c.file_id == file_id))
    connection.execute(sa.delete(file).where(file.c.id == file_id))


def forget_expired(connection: sa.Connection, now_s: float) -> None:
    """Forget those whose time is over, and those that were never finished."""
    old = sa.or_(file.c.expires_at < now_s, (file.c.ready == 0) & (file.c.created_at < now_s - 3600))
    for row in connection.execute(sa.select(file.c.id).where(old).limit(1000)).all():
        delete(connection, row.id)
