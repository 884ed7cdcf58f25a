"""Hosts that share a database: who lives, and who may declare another dead."""

from __future__ import annotations

import time

import sqlalchemy as sa

from ccd_tasks.store.schema import host, lease


def clock(connection: sa.Connection) -> float:
    """Now: the database server's clock where there is one, as hosts may disagree and their clocks may jump."""
    if connection.dialect.name != "postgresql":
        return time.time()
    return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar() or 0)


def arrive(connection: sa.Connection, host_id: str, name: str) -> int:
    """A host starts; returns its epoch."""
    row = connection.execute(sa.select(host.c.epoch).where(host.c.id == host_id)).first()
    epoch = 1 if row is None else int(row.epoch) + 1
    values = {"name": name, "epoch": epoch, "beat_at": clock(connection), "dead": 0}
    if row is None:
        connection.execute(host.insert().values(id=host_id, **values))
    else:
        connection.execute(sa.update(host).where(host.c.id == host_id).values(**values))
    return epoch


def beat(connection: sa.Connection, host_id: str, epoch: int) -> bool:
    """A host says that it lives; False when it was declared dead meanwhile, or has a successor."""
    changed = connection.execute(
        sa.update(host)
        .where(host.c.id == host_id, host.c.epoch == epoch, host.c.dead == 0)
        .values(beat_at=clock(connection))
    )
    return bool(changed.rowcount)


def declare_dead(connection: sa.Connection, silent_s: float) -> list[str]:
    """Hosts that have been silent for too long, those declared before included."""
    connection.execute(
        sa.update(host).where(host.c.dead == 0, host.c.beat_at < clock(connection) - silent_s).values(dead=1)
    )
    return [row.id for row in connection.execute(sa.select(host.c.id).where(host.c.dead == 1))]


def hold(connection: sa.Connection, name: str, holder: str, for_s: float) -> bool:
    """Take or keep a lease; False when somebody else holds it."""
    now_s = clock(connection)
    row = connection.execute(sa.select(lease).where(lease.c.name == name).with_for_update()).first()
    if row is None:
        connection.execute(lease.insert().values(name=name, holder=holder, until=now_s + for_s))
        return True
    # A lease that ends further in the future than any is given for is a clock's that jumped.
    if row.holder != holder and now_s <= row.until <= now_s + 10 * for_s:
        return False
    connection.execute(
        sa.update(lease).where(lease.c.name == name).values(holder=holder, until=now_s + for_s)
    )
    return True
