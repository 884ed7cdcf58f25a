"""What a worker asks of its CLI beside the turns themselves: control requests, and what is still to be confirmed.

Pure: every method returns the lines to write.
"""

from __future__ import annotations

from collections.abc import Mapping

from ccd_daemon.claude import control
from ccd_daemon.claude.login import Mode
from ccd_daemon.request import body

#: The CLI itself refuses a header value that is not ASCII, after it has done everything else that a request takes.
_REFUSED_BY_CLI = {"ANTHROPIC_CUSTOM_HEADERS": "x-ccd-rehearsal: \u2205", "CLAUDE_CODE_MAX_RETRIES": "0"}
#: What a rehearsal changes. Should a version send it all the same, the API refuses the empty request.
_REHEARSAL = {**_REFUSED_BY_CLI, "CLAUDE_CODE_EXTRA_BODY": control.GUARD_BODY}


class Controller:
    """The control requests of one CLI process. `env` is the environment that it was started with."""

    def __init__(self, prefix: str, mode: Mode) -> None:
        self.env: Mapping[str, str] = {}
        self._prefix = prefix
        self._mode = mode
        self._requests = 0
        self._warming_id = ""
        self.reset_seen = False  # the CLI says that it has begun a new conversation
        self._changed: dict[str, str] = {}  # by a rehearsal, and what it was before

    def next_id(self) -> str:
        """Returns an id for a control request, unique in this process."""
        self._requests += 1
        return f"{self._prefix}-{self._requests}"

    def warm_up(self, binding: str | None) -> bytes:
        """Returns the first lines. Where binding needs no `initialize` any more, spares initialise while they warm."""
        self._warming_id = self.next_id()
        if binding is not None:
            return body.initialize(self._warming_id, binding)
        return control.request(
            self._warming_id, "initialize" if self._mode == Mode.FULL else "get_binary_version"
        )

    def is_warm_reply(self, reply: control.ControlReply) -> bool:
        """Returns whether this is the answer to `warm_up`; true once."""
        matches = reply.request_id == self._warming_id
        self._warming_id = "" if matches else self._warming_id
        return matches

    def rehearse(self) -> bytes:
        """Returns a turn that the CLI itself refuses, before any request: a first turn takes twice the time."""
        self._changed = {name: self.env.get(name, "") for name in _REHEARSAL}
        return control.flags(self.next_id(), env=_REHEARSAL) + control.user_line(".")

    @staticmethod
    def rehearsed(line: control.ResultLine) -> bool:
        """Returns whether a rehearsal ended as it should: refused, and not by the API."""
        return line.is_error and line.api_error_status is None

    def interrupt(self) -> bytes:
        """End the turn."""
        return control.request(self.next_id(), "interrupt")

    def guard(self) -> bytes:
        """From now on another API call of this turn would be refused before it costs anything."""
        if self._mode == Mode.REPLAY:
            return control.flags(self.next_id(), env=_REFUSED_BY_CLI)
        return control.flags(self.next_id(), env={"CLAUDE_CODE_EXTRA_BODY": control.GUARD_BODY})

    def unguard(self) -> bytes:
        """Take back what `guard` has changed in mode `replay`; in the others the next turn's body replaces it."""
        env = {name: self.env.get(name, "") for name in _REFUSED_BY_CLI}
        return control.flags(self.next_id(), env=env)

    def reset(self) -> bytes:
        """Forget the conversation; only now may the request body be emptied, as nothing can be asked in between."""
        self.reset_seen = False
        env, self._changed = {**self._changed, "CLAUDE_CODE_EXTRA_BODY": ""}, {}
        return control.flags(self.next_id(), env=env) + control.clear_line()

    def reset_confirmed(self, line: control.ResultLine) -> bool:
        """Returns whether this is the end of a reset that was carried out."""
        return self.reset_seen and line.local_command == "clear" and not line.is_error
