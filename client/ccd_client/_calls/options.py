"""What may be asked of a chat, and the parameters on the wire that come of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypedDict, cast

from ccd_client._calls.batch import Batch, Progress
from ccd_client.messages import chat_request

Messages: TypeAlias = str | Sequence[Mapping[str, Any]]
Prompt: TypeAlias = Messages | Mapping[str, Any]


class ChatOptions(TypedDict, total=False):
    """Options of `chat`. What is absent or None is left to the profile and the model.

    Attributes:
        model: alias or full name; `profile/model` names both.
        profile: a profile of the daemon's settings.
        system: stands before the system messages of the list.
        max_tokens, temperature, top_p, top_k, metadata, service_tier: as in the Messages API.
        stop: a stop sequence or several.
        tools: OpenAI's function tools; the caller runs what the model calls (`Answer.tool_calls`).
        tool_choice: none, auto, required, or a named function, as OpenAI's.
        parallel_tool_calls: False allows one call per answer.
        response_format: OpenAI's: json_object, or json_schema with the schema that the answer must fit.
        effort: how much to think: none, minimal, low, medium, high, xhigh or max.
        reasoning_effort: OpenAI's name for `effort`.
        thinking: the Messages API's own field, instead of an effort.
        fallback_model: asked when the model is overloaded or does not exist.
        strict: fail instead of ignoring a parameter (`Answer.ignored` names them otherwise).
        extra: further parameters of `ccd_protocol.methods.ChatParams`, as they are.
        timeout_s: the whole call's deadline in seconds; None is the client's default.
    """

    model: str | None
    profile: str | None
    system: str | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    stop: str | Sequence[str] | None
    metadata: Mapping[str, Any] | None
    service_tier: str | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool | None
    response_format: Mapping[str, Any] | None
    effort: str | None
    reasoning_effort: str | None
    thinking: Mapping[str, Any] | None
    fallback_model: str | None
    strict: bool | None
    extra: Mapping[str, Any] | None
    timeout_s: float | None


#: The options, for the help of the methods that take them.
OPTIONS_HELP = "Options:" + (ChatOptions.__doc__ or "").partition("Attributes:")[2].rstrip().replace(
    "\n    ", "\n"
)
_OPTIONS = frozenset(ChatOptions.__annotations__)


class PreparedChat(NamedTuple):
    """One chat, ready to be called."""

    params: dict[str, Any]
    timeout_s: float | None
    ignored: list[str]

    def told(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        """The daemon's result, with what was left out here."""
        if not self.ignored:
            return result
        return {**result, "ignored": [*(result.get("ignored") or ()), *self.ignored]}


def request_of(messages: Messages, options: ChatOptions) -> PreparedChat:
    """Parameters of a chat call.

    Raises:
        RpcError: BAD_PARAMS naming what is wrong.
        TypeError: there is no such option.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    unknown = sorted(given.keys() - _OPTIONS)
    if unknown:
        raise TypeError(f"chat() has no option {unknown[0]!r}; further wire parameters go into extra={{…}}")
    timeout_s, extra = given.pop("timeout_s", None), given.pop("extra", {})
    if "reasoning_effort" in given:
        given.setdefault("effort", given.pop("reasoning_effort"))
        given.pop("reasoning_effort", None)
    params, ignored, _ = chat_request(messages, **given)
    return PreparedChat({**params, **extra}, timeout_s, ignored)


def batch_of(prompts: Iterable[Prompt], options: ChatOptions, progress: Progress | None) -> Batch:
    """Many chats, with options for all of them."""
    return Batch(prompts, lambda prompt: _request_of_prompt(prompt, options), progress)


def _request_of_prompt(prompt: Prompt, options: ChatOptions) -> PreparedChat:
    if not isinstance(prompt, Mapping):
        return request_of(prompt, options)
    own = dict(prompt)
    return request_of(own.pop("messages", None), cast(ChatOptions, {**options, **own}))
