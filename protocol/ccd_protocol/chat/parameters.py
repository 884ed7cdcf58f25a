"""The parameters of a chat, each in one place: its type, its range, what becomes of it, and what each API calls it.

`ChatParams` is the wire form, and what stands beside a key's type is all that anybody needs to know of it: the daemon
takes from here what goes into the model API's request and what a mode ignores or refuses, the gateway's surfaces take
their names, and docs/parameters.md is written from it. A new parameter is a key here, and a field with its type in each
request that may hold it; nothing else lists parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import (
    Annotated,
    Any,
    Final,
    NamedTuple,
    Required,
    TypedDict,
    get_args,
    get_origin,
    get_type_hints,
)


class Fate(StrEnum):
    """What becomes of a parameter in a mode."""

    BODY = "sent"  # under its own name, in the model API's request
    FITTED = "fitted"  # becomes something else in the request, as the model and the mode can
    KNOB = "by the CLI"  # through a documented way of the CLI's
    TOLD = "told"  # to the model in words, and named in `ignored`, for it may disregard them; strict calls are refused
    HERE = "here"  # ccd acts on it; the model API never sees it
    IGNORED = "ignored"  # without effect, and named in `ignored`; strict calls are refused
    REFUSED = "refused"


class Api(StrEnum):
    """An API that a chat may be asked in."""

    CHAT = "chat"
    RESPONSES = "responses"
    MESSAGES = "messages"
    CLIENT = "client"  # the options of `ccd_client`'s chat()


class Fates(NamedTuple):
    """What becomes of a parameter in each mode; None: as in `full`."""

    full: Fate
    keep_system: Fate | None = None
    replay: Fate | None = None


class Names(NamedTuple):
    """What each API calls a parameter; True: as the wire does; None: it has no such thing. Dots lead into objects."""

    chat: str | bool | None = None
    responses: str | bool | None = None
    messages: str | bool | None = None
    client: str | bool | None = None


class Parameter(NamedTuple):
    """What is known of one parameter.

    Attributes:
        about: for the documents.
        fates: what becomes of it.
        names: what it is called.
        low: the smallest value that a number may have.
        high: the largest one.
        one_of: all values that a text may have.
        needs: it means nothing without this parameter.
        excludes: parameters that cannot be given together with it.
        name: its key in `ChatParams`; filled in by `PARAMETERS`.
    """

    about: str
    fates: Fates
    names: Names = Names()
    low: float | None = None
    high: float | None = None
    one_of: tuple[str, ...] = ()
    needs: str | None = None
    excludes: tuple[str, ...] = ()
    name: str = ""

    def fate(self, mode: str) -> Fate:
        """Returns what becomes of it in `full`, `keep_system` or `replay`."""
        own: Fate | None = getattr(self.fates, mode)
        return self.fates.full if own is None else own

    def called(self, surface: str) -> str | None:
        """Its name in an API, or None where that has no such thing."""
        name: str | bool | None = getattr(self.names, surface)
        return (self.name if name else None) if isinstance(name, bool) else name

    def wrong(self, value: Any) -> str | None:
        """Returns what is wrong with a value of the right type; None if nothing is."""
        if self.one_of:
            return None if value in self.one_of else f"{self.name} is one of {', '.join(self.one_of)}"
        if (self.low is None or value >= self.low) and (self.high is None or value <= self.high):
            return None
        if self.high is not None:
            return f"{self.name} must be from {self.low:g} to {self.high:g}"
        return (
            f"{self.name} must not be negative"
            if not self.low
            else f"{self.name} must be at least {self.low:g}"
        )


SENT_OR_TYPED = Fates(Fate.BODY, None, Fate.KNOB)
SENT_OR_IGNORED = Fates(Fate.BODY, None, Fate.IGNORED)
ACTED_ON = Fates(Fate.HERE)
EVERYWHERE = Names(chat=True, responses=True, messages=True, client=True)
NOT_IN_RESPONSES = Names(chat=True, messages=True, client=True)
IN_CLIENT = Names(client=True)
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


class Message(TypedDict):
    """One turn of a conversation: role `user` or `assistant`; content is text or content blocks."""

    role: str
    content: str | list[dict[str, Any]]


class CacheUse(TypedDict, total=False):
    """How `chat.complete` may use the cache of answers, where the daemon has one (`cache.enabled`)."""

    # what else the answer depends on, as the caller sees it; all other parameters count anyway
    key: Required[str]
    max_age_s: float  # an older answer will not do; 0 asks the model in any case
    store: bool  # False does not keep the answer


class ChatParams(TypedDict, total=False):
    """Parameters of `chat.stream` and `chat.complete`. Absent keys mean the profile's or model's default."""

    messages: Required[
        Annotated[
            list[Message],
            Parameter(
                "the conversation, the user's message last",
                SENT_OR_TYPED,
                Names(chat=True, responses="input", messages=True),
            ),
        ]
    ]
    profile: Annotated[
        str, Parameter("a profile of the daemon's settings; over HTTP `X-CCD-Profile`", ACTED_ON, IN_CLIENT)
    ]
    model: Annotated[
        str, Parameter("a model or alias; `profile/model` names both", Fates(Fate.KNOB), EVERYWHERE)
    ]
    system: Annotated[
        str | list[dict[str, Any]],
        Parameter(
            "the system prompt",
            Fates(Fate.BODY, Fate.KNOB, Fate.KNOB),
            Names(responses="instructions", messages=True, client=True),
        ),
    ]
    max_tokens: Annotated[
        int,
        Parameter(
            "the longest answer",
            SENT_OR_TYPED,
            Names(chat=True, responses="max_output_tokens", messages=True, client=True),
            low=1,
        ),
    ]
    temperature: Annotated[
        float,
        Parameter(
            "how much chance there is; the newest models take none",
            SENT_OR_IGNORED,
            EVERYWHERE,
            low=0,
            high=1,
        ),
    ]
    top_p: Annotated[
        float,
        Parameter(
            "the likeliest tokens that are this likely together", SENT_OR_IGNORED, EVERYWHERE, low=0, high=1
        ),
    ]
    top_k: Annotated[
        int,
        Parameter("how many of the likeliest tokens may be chosen", SENT_OR_IGNORED, NOT_IN_RESPONSES, low=0),
    ]
    stop_sequences: Annotated[
        list[str],
        Parameter(
            "texts that end the answer", SENT_OR_IGNORED, Names(chat="stop", messages=True, client="stop")
        ),
    ]
    metadata: Annotated[
        dict[str, Any],
        Parameter(
            "`user_id`: who the end user is, for the model API; no tenant",
            SENT_OR_IGNORED,
            Names(chat="user", responses="user", messages=True, client=True),
        ),
    ]
    service_tier: Annotated[str, Parameter("the model API's own", SENT_OR_IGNORED, NOT_IN_RESPONSES)]
    tools: Annotated[
        list[dict[str, Any]],
        Parameter("name, description, input_schema; the caller runs them", SENT_OR_TYPED, EVERYWHERE),
    ]
    tool_choice: Annotated[
        dict[str, Any],
        Parameter(
            "type auto, any, tool (with name) or none; disable_parallel_tool_use",
            Fates(Fate.BODY, Fate.BODY, Fate.TOLD),
            EVERYWHERE,
            needs="tools",
        ),
    ]
    effort: Annotated[
        str,
        Parameter(
            "how much to think, whatever the model calls it",
            Fates(Fate.FITTED, Fate.FITTED, Fate.KNOB),
            Names(chat="reasoning_effort", responses="reasoning.effort", client=True),
            one_of=_EFFORTS,
            excludes=("thinking",),
        ),
    ]
    thinking: Annotated[
        dict[str, Any],
        Parameter(
            "the Messages API's own field, instead of an effort",
            SENT_OR_TYPED,
            NOT_IN_RESPONSES,
            excludes=("effort",),
        ),
    ]
    format: Annotated[
        dict[str, Any],
        Parameter(
            '`{"type": "json_schema", "schema": {…}}` or `{"type": "json_object"}`; checked, repaired once',
            Fates(Fate.FITTED),
            Names(chat="response_format", responses="text.format", client="response_format"),
        ),
    ]
    fallback_model: Annotated[
        str | None,
        Parameter(
            "asked when the model is overloaded or does not exist; null: not even the profile's",
            ACTED_ON,
            IN_CLIENT,
        ),
    ]
    exact: Annotated[
        bool,
        Parameter(
            "the model API's own form: nothing is added or fitted, system notes may stand among the messages",
            ACTED_ON,
        ),
    ]
    extra_body: Annotated[
        dict[str, Any],
        Parameter(
            "further keys of the model API's request; in mode `replay` the effort alone, the others are named",
            Fates(Fate.FITTED),
            needs="exact",
        ),
    ]
    betas: Annotated[
        list[str],
        Parameter(
            "the `anthropic-beta` header", Fates(Fate.FITTED, Fate.IGNORED, Fate.IGNORED), needs="exact"
        ),
    ]
    strict: Annotated[
        bool,
        Parameter(
            "refuse the call instead of ignoring a parameter; over HTTP `X-CCD-Strict`", ACTED_ON, IN_CLIENT
        ),
    ]
    conversation_id: Annotated[
        str, Parameter("continue this stored conversation; created at first use", ACTED_ON, Names(chat=True))
    ]
    tenant: Annotated[
        str, Parameter("only peers that may speak for others (the gateway) can set it", ACTED_ON)
    ]
    cache: Annotated[
        CacheUse,
        Parameter(
            "chat.complete only; without it an answer is neither taken from the cache nor kept", ACTED_ON
        ),
    ]


def _parameters() -> Mapping[str, Parameter]:
    found = {}
    for name, kind in get_type_hints(ChatParams, include_extras=True).items():
        if get_origin(kind) is Required:
            [kind] = get_args(kind)  # noqa: PLW2901
        found[name] = kind.__metadata__[0]._replace(name=name)
    return found


#: Every parameter, in the order in which it stands in a request.
PARAMETERS: Final = _parameters()


def with_fate(fate: Fate, mode: str) -> tuple[str, ...]:
    """Returns the names of the parameters that have this fate in a mode."""
    return tuple(name for name, parameter in PARAMETERS.items() if parameter.fate(mode) == fate)


def names_in(surface: str) -> dict[str, str]:
    """Returns what an API calls the parameters that it has: its name by ours."""
    called = {name: parameter.called(surface) for name, parameter in PARAMETERS.items()}
    return {name: theirs for name, theirs in called.items() if theirs is not None}
