"""`file.*`: files of the Files API, taken and given in pieces."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

from ccd_daemon.rpc.call import Call, Handler
from ccd_daemon.rpc.tenancy import check_kept, tenant_of
from ccd_tasks.rpc import params as p
from ccd_tasks.rpc.view import file_view
from ccd_tasks.settings import TasksSettings
from ccd_tasks.spec import bad, convert
from ccd_tasks.store import files
from ccd_tasks.store.journal import Journal


class FileMethods:
    """The methods over one database."""

    def __init__(
        self, journal: Journal, settings: TasksSettings, may_name_tenants: Callable[[Call], bool]
    ) -> None:
        self._journal = journal
        self._settings = settings
        self._may_name = may_name_tenants

    def handlers(self) -> dict[str, Handler]:
        """By name."""
        return {
            "file.create": Handler(self.create),
            "file.append": Handler(self.append),
            "file.finish": Handler(self.finish),
            "file.get": Handler(self.get),
            "file.list": Handler(self.list),
            "file.read": Handler(self.read),
            "file.delete": Handler(self.delete),
        }

    async def create(self, call: Call) -> dict[str, Any]:
        """A new, empty file."""
        asked = convert(call.params, p.FileNew)
        if not asked.filename.isprintable():
            raise bad("filename", "has characters that cannot be printed")
        values = {
            **{"id": f"file-{secrets.token_hex(16)}", "tenant": self._tenant(call, asked.tenant)},
            **{"filename": asked.filename, "purpose": asked.purpose},
            "expires_at": time.time() + (self._settings.retention_s),
        }
        await self._journal.write(lambda c: files.create(c, values))
        return {"id": values["id"]}

    async def append(self, call: Call) -> dict[str, Any]:
        """Add a piece."""
        asked, row = await self._row(call, p.FileAppend)
        limits = (self._settings.max_file_bytes, self._settings.max_files_bytes)
        return {"bytes": await self._journal.write(lambda c: files.append(c, row, asked.data, *limits))}

    async def finish(self, call: Call) -> dict[str, Any]:
        """All of it is there."""
        asked, row = await self._row(call, p.FileFinish)
        await self._journal.write(lambda c: files.finish(c, row, asked.expires_s))
        return file_view(await self._journal.read(lambda c: files.find(c, row.id, row.tenant)))

    async def get(self, call: Call) -> dict[str, Any]:
        """One file, without its content."""
        return file_view((await self._row(call, p.FileWhich))[1])

    async def list(self, call: Call) -> dict[str, Any]:
        """Files of the caller."""
        asked = convert(call.params, p.FileList)
        tenant = self._tenant(call, asked.tenant)
        rows = await self._journal.read(
            lambda c: files.listed(
                c,
                tenant,
                purpose=asked.purpose,
                after=asked.after,
                limit=asked.limit + 1,
                descending=asked.order == "desc",
            )
        )
        shown = [file_view(row) for row in rows[: asked.limit]]
        return {"files": shown, "has_more": len(rows) > asked.limit}

    async def read(self, call: Call) -> dict[str, Any]:
        """One piece of a file; `data` is None after the last."""
        asked, row = await self._row(call, p.FileRead)
        return {"data": await self._journal.read(lambda c: files.read(c, row, asked.number))}

    async def delete(self, call: Call) -> dict[str, Any]:
        """Forget a file."""
        _, row = await self._row(call, p.FileWhich)
        await self._journal.write(lambda c: files.delete(c, row.id))
        return {}

    def _tenant(self, call: Call, named: str | None) -> str:
        check_kept(call, "file")
        return tenant_of(call, named, may_name=self._may_name(call))

    async def _row(self, call: Call, kind: type[Any]) -> tuple[Any, Any]:
        asked = convert(call.params, kind)
        tenant = self._tenant(call, asked.tenant)
        return asked, await self._journal.read(lambda c: files.find(c, asked.file_id, tenant))
