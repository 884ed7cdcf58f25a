"""`model.*`: which models and profiles can be asked for."""

from __future__ import annotations

from ccd_daemon.pool.pool import Pool
from ccd_protocol.events import Called
from ccd_protocol.methods import Model, ModelsResult

#: What the CLI calls its models when it has not been asked yet.
_ALIASES = ("opus", "sonnet", "haiku")


class ModelMethods:
    """The methods over what the CLI says of its models."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def list(self, call: Called) -> ModelsResult:
        """The CLI's own list, each resolved name once, under the first alias that is not `default`."""
        pool = self._pool
        found: dict[str, Model] = {}
        for entry in sorted(pool.models, key=lambda model: model.get("value") == "default"):
            alias = str(entry.get("value") or "")
            name = str(entry.get("resolvedModel") or alias)
            if name and name not in found:
                found[name] = Model(
                    id=name, alias=alias or None, display_name=str(entry.get("displayName") or name)
                )
        if not found:
            found = {alias: Model(id=alias, alias=alias, display_name=alias.title()) for alias in _ALIASES}
        return ModelsResult(models=list(found.values()), profiles=sorted(pool.shelves))
