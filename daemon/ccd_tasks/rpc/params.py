"""Parameters of the methods other than `task.submit`: checked shapes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Id = Annotated[str, Meta(min_length=1, max_length=80)]
Words = Annotated[list[Annotated[str, Meta(max_length=20)]], Meta(max_length=20)]


class Which(Struct, forbid_unknown_fields=True, kw_only=True):
    """Methods that say nothing but which task."""

    task_id: Id
    tenant: str | None = None


class Wait(Which, kw_only=True, forbid_unknown_fields=True):
    """`task.wait`."""

    timeout_s: Annotated[float, Meta(ge=0, le=3600)] = 30.0


class Events(Which, kw_only=True, forbid_unknown_fields=True):
    """`task.events`."""

    after: Annotated[int, Meta(ge=0)] = 0


class Items(Which, kw_only=True, forbid_unknown_fields=True):
    """`task.items`."""

    after: Annotated[int, Meta(ge=-1)] = -1
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


class Append(Which, kw_only=True, forbid_unknown_fields=True):
    """`task.append`."""

    steps: Annotated[list[Any], Meta(min_length=1)]
    at: Annotated[int, Meta(ge=0)] | None = None  # how many there must be before: nothing is added twice


class Resend(Which, kw_only=True, forbid_unknown_fields=True):
    """`task.resend`."""

    webhook_ids: list[str] = []


class Listed(Struct, forbid_unknown_fields=True, kw_only=True):
    """`task.list`."""

    statuses: Words = []
    kinds: Words = []
    surfaces: Words = []
    after: Id | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 20
    offset: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0
    tenant: str | None = None


class Cleanup(Struct, forbid_unknown_fields=True, kw_only=True):
    """`task.cleanup`."""

    older_than_s: Annotated[float, Meta(ge=0, le=1e10)]
    tenant: str | None = None


class FileNew(Struct, forbid_unknown_fields=True, kw_only=True):
    """`file.create`."""

    filename: Annotated[str, Meta(min_length=1, max_length=255)]
    purpose: Literal["batch"]
    tenant: str | None = None


class FileWhich(Struct, forbid_unknown_fields=True, kw_only=True):
    """Methods that say nothing but which file."""

    file_id: Id
    tenant: str | None = None


class FileFinish(FileWhich, kw_only=True, forbid_unknown_fields=True):
    """`file.finish`."""

    expires_s: Annotated[float, Meta(ge=3600, le=365 * 86400)] | None = None


class FileAppend(FileWhich, kw_only=True, forbid_unknown_fields=True):
    """`file.append`."""

    data: Annotated[bytes, Meta(min_length=1)]


class FileRead(FileWhich, kw_only=True, forbid_unknown_fields=True):
    """`file.read`."""

    number: Annotated[int, Meta(ge=0)] = 0


class FileList(Struct, forbid_unknown_fields=True, kw_only=True):
    """`file.list`."""

    purpose: str | None = None
    after: Id | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100
    order: Literal["asc", "desc"] = "desc"
    tenant: str | None = None
