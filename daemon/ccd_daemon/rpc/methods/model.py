"""`model.*`: which models and profiles can be asked for."""

from __future__ import annotations

from collections.abc import Mapping

from ccd_daemon.config import Profile
from ccd_daemon.pool.pool import Pool
from ccd_protocol.chat.choice import DEFAULT_MODEL
from ccd_protocol.events import Called
from ccd_protocol.methods import Model, ModelsResult, ProfileModels

#: What the CLI calls its models when it has not been asked yet.
_ALIASES = ("opus", "sonnet", "haiku")


class ModelMethods:
    """The methods over what the CLI says of its models."""

    def __init__(self, pool: Pool, profiles: Mapping[str, Profile]) -> None:
        self._pool = pool
        self._profiles = profiles

    def list(self, call: Called) -> ModelsResult:
        """Returns the CLI's own list, each resolved name once, under the first alias that is not `default`."""
        found: dict[str, Model] = {}
        default: str | None = None
        for entry in sorted(self._pool.models, key=lambda model: model.get("value") == "default"):
            alias = str(entry.get("value") or "")
            name = str(entry.get("resolvedModel") or alias)
            default = name if alias == DEFAULT_MODEL else default
            if name and name not in found:
                found[name] = Model(
                    id=name, alias=alias or None, display_name=str(entry.get("displayName") or name)
                )
        if not found:
            found = {alias: Model(id=alias, alias=alias, display_name=alias.title()) for alias in _ALIASES}
        of_profiles = {
            name: ProfileModels(model=profile.model, fallback_model=profile.fallback_model)
            for name, profile in self._profiles.items()
        }
        return ModelsResult(
            models=[*found.values()], profiles=sorted(of_profiles), default=default, of_profiles=of_profiles
        )
