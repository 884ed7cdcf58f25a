"""Which profile and model a call is for, and whether its key may use them.

The daemon reads `profile/model` and a bare profile's name out of `model`. A call with a key is resolved here by the
same rule first (`ccd_protocol.chat.choice`) and sent with both named, so that nothing is left to be read differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ccd_gateway.access.keyfile import ANY, Key
from ccd_protocol.chat.choice import DEFAULT_MODEL, chosen
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatParams, ModelsResult, ProfileModels

_DATED = re.compile(r"-\d{8}\Z")
_FAMILIES = frozenset({"claude-opus", "claude-sonnet", "claude-haiku"})
_LONG = "[1m]"  # the CLI's sign for the same model with a longer context
#: Parts of a call's extra body in which `model` is a word of the client's own.
_CLIENTS_OWN = frozenset({"input_schema", "schema", "metadata"})


class Known(NamedTuple):
    """What the daemon offers: the settings of its profiles, and the model that each of its names for models means."""

    profiles: Mapping[str, ProfileModels]
    models: Mapping[str, str]

    @classmethod
    def of(cls, found: ModelsResult) -> Known:
        """From the daemon's list."""
        models: dict[str, str] = {}
        for model in found["models"]:
            # Before the first CLI process has said which models there are, an alias is all that is known.
            means = model["id"] if model["id"] != model["alias"] else f"claude-{model['id']}"
            models.update(dict.fromkeys(filter(None, (model["id"], model["alias"])), means))
        if found["default"]:
            models[DEFAULT_MODEL] = found["default"]
        return cls(found["of_profiles"], models)

    def means(self, name: str) -> str:
        """The model that a name means; the name itself where that is not known."""
        plain = name.removesuffix(_LONG)
        return self.models.get(plain, plain) + name[len(plain) :]

    def names(self, model: str) -> set[str]:
        """Every name of a model that runs."""
        plain = self.means(model).removesuffix(_LONG)
        dated = {plain, _DATED.sub("", plain)}
        others = {name for name, means in self.models.items() if means in dated or _is_of(plain, means)}
        long = _LONG if self.means(model) != plain else ""
        return {model, *(name + long for name in {*dated, *others})}


def may_use(key: Key | None, known: Known, profile: str, model: str | None) -> bool:
    """Whether a caller may use a profile, and in it a model by a name; None is the profile's own model."""
    if key is None:
        return True
    asked = model or DEFAULT_MODEL
    own = known.profiles[profile]["model"] if profile in known.profiles and model is None else None
    names = {asked, own or asked, known.means(own or asked)}
    return key.may_use_profile(profile) and any(map(key.may_use_model, names))


def may_run(key: Key | None, known: Known, model: str) -> bool:
    """Whether a caller may have answers of a model that runs already, by whatever name it was asked for."""
    return key is None or any(map(key.may_use_model, known.names(model or DEFAULT_MODEL)))


def _is_of(model: str, family: str) -> bool:
    """Whether a model is of a family of which no more is known than its name."""
    return family in _FAMILIES and model.startswith(f"{family}-")


def permitted(key: Key, params: ChatParams, known: Known) -> ChatParams:
    """The same call with its profile and tenant spelt out.

    Args:
        key: who calls.
        params: as the surface made them.
        known: what the daemon offers.

    Raises:
        RpcError: BAD_PARAMS, it names two profiles; MODEL_NOT_FOUND, it does not exist or is not for this key.
    """
    profile, model = chosen(params.get("profile"), params.get("model"), known.profiles)
    if not key.may_use_profile(profile):
        raise _not_found("profile" if params.get("profile") else "model", f"profile {profile[:200]!r}")
    for name in (model, *_further(key, params)):
        if not may_use(key, known, profile, name):
            raise _not_found("model", f"model {(name or DEFAULT_MODEL)[:200]!r}")
    asked: ChatParams = {**params, "profile": profile, "tenant": key.tenant}
    if model is None:
        asked.pop("model", None)
    else:
        asked["model"] = model
    own_fallback = known.profiles[profile]["fallback_model"] if profile in known.profiles else None
    if own_fallback and not may_use(key, known, profile, own_fallback):
        asked.setdefault("fallback_model", None)
    return asked


def _further(key: Key, params: ChatParams) -> Iterator[str]:
    """Models that a call names besides its own: for failures, or for tools of the API's, such as an advisor."""
    if not key.bound_to_models:
        return
    if fallback := params.get("fallback_model"):
        yield fallback
    extra = params.get("extra_body") or {}
    fallbacks = extra.get("fallbacks")
    if fallbacks is not None and not _is_list_of_models(fallbacks):
        yield ANY  # nobody knows what the API makes of it, so only a key for all models may send it
    yield from _named_inside(extra)
    yield from _named_inside(params.get("tools", ()))


def _is_list_of_models(fallbacks: object) -> bool:
    return isinstance(fallbacks, list) and all(
        isinstance(item, dict) and isinstance(item.get("model"), str) for item in fallbacks
    )


def _named_inside(value: Any) -> Iterator[str]:
    """Every `model` at any depth, but for what the client has words of its own in."""
    open_values = [value]
    while open_values:
        value = open_values.pop()
        if isinstance(value, Mapping):
            if isinstance(value.get("model"), str):
                yield value["model"]
            open_values += [item for name, item in value.items() if name not in _CLIENTS_OWN]
        elif isinstance(value, (list, tuple)):
            open_values += value


def _not_found(param: str, what: str) -> RpcError:
    message = f"The {what} does not exist, or this API key may not use it."
    return RpcError(Code.MODEL_NOT_FOUND, message, {"param": param})
