#!/usr/bin/env -S python3 -I -S
"""A scripted stand-in for the Claude Code CLI, only for faults that the real one cannot be made to show.

It speaks stream-json with the line shapes of CLI 2.1.330 and answers `fake: TEXT` in word-sized deltas.
Copy it to `DIR/claude` (see `install_fake_cli`). Every start appends its pid to `DIR/claude.pids`.

Faults are the keys of a JSON object, found in
  - `DIR/claude.faults`, for every process; with "starts": N only for the first N processes, and
  - `[[fake: {...}]]` in the last user text (of EXTRA_BODY's messages, else of the user line), for that turn.

 key              value     what happens                                 the real trace that it copies
 ---------------- --------- -------------------------------------------- --------------------------------
 exit             status    ends at start, with a line on stderr         bad flag: "unknown option"
 hang             true      sleeps at start and never reads stdin        time-out of initialize, full pipe
 mute             true      reads, but never answers a control request   spinning process, dead stdio
 start_ms         ms        is that late                                 cold start on a loaded machine
 ignore_term      true      survives SIGTERM, and the end of stdin       only KILL helps
 hang_at_eof      true      goes on when stdin ends                      no exit after `result`
 grandchild       true      leaves a double-forked process in a session  npx and MCP launchers that
                            of its own; it holds stdout, ignores TERM    survive the CLI
 bare_grandchild  true      the same with an empty environment, and     daemons that scrub what they
                            without the pipes                           inherit
 forks            count     that many children, each in a session       fork bombs of build tools
 grow_mb_s        MB        grows by that much a second until it ends   400 MB/min while idle, off-heap
 unread           true      never reads stdin again after `initialize`  prompt written before it is read
 record           true      appends what it reads to `DIR/claude.stdin` (none: to see what it was told)
 stderr_bytes     count     floods stderr, at start or in the turn       debug logging, stack traces
 grow_mb          MB        takes that much memory, at start or in turn  native leak, 0.5 to 15 GB
 control_error    subtype   answers that control request with an error   unsupported_request, old version
 clear            "silent"  /clear is never answered                     lost reset
                  "literal" /clear is answered as a prompt               client_composed, old version
                  "error"   /clear ends in an error result               --disable-slash-commands
 die              true      killed when it has read a turn, before init  killed while idle, told too late
 crash            status    ends in mid-stream; below 0: by that signal  SIGSEGV, OOM kill
 hang_turn        true      silent in mid-stream, interrupt works        stdout stops, session goes on
 deaf             true      silent in mid-stream, interrupt ignored      CPU spin inside a tool
 no_result        true      the turn never gets its `result` line        stdout hung after a tool_result
 error_result     text      the turn ends with `is_error`                API errors, subtype "success"
 not_json         true      a line of plain text between the others      console.log of a plugin
 bad_bytes        true      a line with NUL and invalid UTF-8            multi-byte text cut in two
 huge_line_bytes  count     one `assistant` line of that size            3 MB answer in one line
 half_line        true      half a line, then exit 0                     crash in the middle of a write
 burst            count     that many tiny deltas in one write           400 deltas at once
 split            true      every byte is a write of its own             pipe boundaries anywhere
 ask              tool      asks for permission to use it, and says     `can_use_tool`
                            what the answer was
 withdraw         true      takes that question back at once            an interrupt, another client
 keep_alive       true      a `keep_alive` line between the others      remote transports
 after            count     deltas before the fault (default 1)
 deltas           count     answers w1 w2 … wN instead
 delta_ms         ms        time between deltas
"""

import json
import os
import re
import select
import signal
import sys
import time
import uuid
from pathlib import Path

VERSION = "2.1.330"
DIRECTIVE = re.compile(r"\[\[fake:\s*(\{.*\})\s*\]\]", re.DOTALL)
OWN = Path(sys.argv[0])


def write(data: bytes, split: bool = False) -> None:
    """Write everything to stdout, in one piece or byte by byte."""
    step = 1 if split else len(data)
    for start in range(0, len(data), step or 1):
        piece = data[start : start + step]
        while piece:
            piece = piece[os.write(1, piece) :]


def encode(value: dict) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def start_faults() -> dict:
    """The faults of this process, after noting that it started."""
    pids = OWN.with_name(OWN.name + ".pids")
    with pids.open("a") as file:
        file.write(f"{os.getpid()}\n")
    path = OWN.with_name(OWN.name + ".faults")
    faults = json.loads(path.read_text()) if path.exists() else {}
    if len(pids.read_text().split()) > faults.pop("starts", 10**9):
        return {}
    return faults


def directive(text: str) -> dict:
    found = DIRECTIVE.search(text)
    return json.loads(found[1]) if found else {}


def text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return " ".join(block.get("text", "") for block in blocks if isinstance(block, dict))


def leave_grandchild() -> None:
    """A process that only a search by environment or cgroup finds again: own session, parent gone."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with OWN.with_name(OWN.name + ".pids").open("a") as file:
                file.write(f"{os.getpid()}\n")
            while True:
                time.sleep(60)
        os._exit(0)
    os.wait()


def leave_bare_grandchild() -> None:
    """A process that has nothing left of its parents': neither environment, session, nor open files."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with OWN.with_name(OWN.name + ".pids").open("a") as file:
                file.write(f"{os.getpid()}\n")
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            os.execve("/bin/sleep", ["sleep", "600"], {})
        os._exit(0)
    os.wait()


def fork(count: int) -> None:
    for _ in range(count):
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)


def flood_stderr(count: int) -> None:
    line = b"Error: something about a plugin that nobody reads\n"
    os.write(2, (line * (count // len(line) + 1))[:count])


class Cli:
    """One process: control requests are answered at once, also while a turn is on."""

    def __init__(self, faults: dict) -> None:
        self.faults = faults
        self.session = str(uuid.uuid4())
        self.model = "claude-opus-5-5"
        self.body: dict = {}
        self.turn = None  # the running turn: a generator of seconds to wait
        self.turn_faults: dict = {}
        self.headers = ""
        self.said = ""
        self.message_id = ""
        self.buffer = b""
        self.memory: list = []
        self.answers: list = []
        self.mode = "default"

    def run(self) -> int:
        """Serve until stdin ends; the exit status."""
        due = None
        while True:
            if self.turn is not None and due is None:
                due = self.advance()
            timeout = None if due is None or due < 0 else max(0.0, due - time.monotonic())
            if "grow_mb_s" in self.faults:
                timeout = 0.05
                self.grow(self.faults["grow_mb_s"])
            ready = select.select([0], [], [], timeout)[0]
            if ready and not self.receive():
                return self.finish()
            if self.turn is None or (due is not None and 0 <= due <= time.monotonic()):
                due = None

    def grow(self, mb_s: int) -> None:
        """A twentieth of a second's growth; the pages are touched."""
        self.memory.append(b"x" * ((mb_s << 20) // 20))

    def advance(self):
        """Let the turn go on; when it wants to go on again (-1: never), or None when it is over."""
        wait_s = next(self.turn, None)
        if wait_s is None:
            self.turn = None
            return None
        return -1 if wait_s < 0 else time.monotonic() + wait_s

    def receive(self) -> bool:
        """Read and handle whole lines; False at the end of stdin."""
        data = os.read(0, 1 << 20)
        if self.faults.get("record"):
            with OWN.with_name(OWN.name + ".stdin").open("ab") as file:
                file.write(data)
        self.buffer += data
        *lines, self.buffer = self.buffer.split(b"\n")
        for line in lines:
            self.handle(line)
        return bool(data)

    def finish(self) -> int:
        """Stdin has ended: the running turn is finished first."""
        while self.turn is not None and (due := self.advance()) is not None and due >= 0:
            time.sleep(max(0.0, due - time.monotonic()))
        while self.faults.get("hang_at_eof") or self.faults.get("ignore_term") or self.turn is not None:
            time.sleep(60)
        return 0

    def handle(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            error = f"Error parsing streaming input line (type=unknown, {len(line)} chars): SyntaxError\n"
            os.write(2, error.encode())
            os._exit(1)
        if message.get("type") == "control_request":
            self.control(message["request_id"], message["request"])
        elif message.get("type") == "control_response":
            self.answers.append(message["response"]["response"])
        elif message.get("type") == "user":
            self.user(message)

    def control(self, request_id: str, request: dict) -> None:
        subtype = request.get("subtype")
        faults = {**self.faults, **self.turn_faults}
        if faults.get("mute") or (faults.get("deaf") and self.turn is not None):
            return
        if faults.get("control_error") == subtype:
            self.respond(request_id, error=f"{subtype} failed", error_code="fake")
        elif subtype == "get_binary_version":
            self.respond(request_id, {"version": VERSION, "buildTime": "2026-11-20T17:34:37Z"})
        elif subtype == "initialize":
            models = [{"value": "default", "resolvedModel": self.model, "displayName": "Default"}]
            fields = {"claude_code_version": VERSION, "capabilities": ["fake_v1"]}
            self.respond(request_id, {"commands": [], "models": models, "pid": os.getpid(), **fields})
            while self.faults.get("unread"):
                time.sleep(60)
        elif subtype == "apply_flag_settings":
            self.apply(request.get("settings", {}))
            self.respond(request_id)
        elif subtype == "set_permission_mode":
            self.mode = request["mode"]
            self.respond(request_id, {"mode": self.mode})
        elif subtype == "interrupt":
            self.respond(request_id, {"still_queued": []})
            self.interrupt()
        else:
            error = f"Unsupported control request subtype: {subtype}"
            self.respond(request_id, error=error, error_code="unsupported_request")

    def respond(self, request_id: str, response: dict | None = None, **error: str) -> None:
        body = {"subtype": "error" if error else "success", "request_id": request_id, **error}
        if response is not None:
            body["response"] = response
        self.line({"type": "control_response", "response": body})

    def apply(self, settings: dict) -> None:
        self.model = settings.get("model") or self.model
        self.headers = settings.get("env", {}).get("ANTHROPIC_CUSTOM_HEADERS", self.headers)
        extra = settings.get("env", {}).get("CLAUDE_CODE_EXTRA_BODY")
        if extra is not None:
            try:
                self.body = json.loads(extra) if extra else {}
            except ValueError:
                self.body = {}  # as the real one: ignored, reported as success

    def line(self, value: dict) -> None:
        split = bool(self.faults.get("split") or self.turn_faults.get("split"))
        write(encode({**value, "session_id": self.session, "uuid": str(uuid.uuid4())}), split)

    def user(self, message: dict) -> None:
        text = text_of(message["message"]["content"])
        if message.get("shouldQuery") is False:
            self.result(num_turns=0)
            return
        if text == "/clear" and not message.get("client_composed") and self.clear():
            return
        if not self.headers.isascii():
            self.init()
            self.line({"type": "system", "subtype": "status", "status": "requesting"})
            self.result(is_error=True, result="Invalid ANTHROPIC_CUSTOM_HEADERS", terminal_reason="api_error")
            return
        spoken = [item for item in self.body.get("messages", []) if item.get("role") == "user"]
        if spoken:
            text = text_of(spoken[-1]["content"])
        self.turn_faults = directive(text)
        if "die" in self.faults or "die" in self.turn_faults:
            os.kill(os.getpid(), signal.SIGKILL)
        self.turn = self.answer(DIRECTIVE.sub("", text).strip(), {**self.faults, **self.turn_faults})

    def clear(self) -> bool:
        """Reset as the real one does; False when the text is to be answered as a prompt."""
        how = self.faults.get("clear")
        if how == "literal":
            return False
        if how == "error":
            self.result(subtype="error_during_execution", is_error=True, num_turns=0)
        elif how is None:
            fresh = str(uuid.uuid4())
            self.line({"type": "conversation_reset", "new_conversation_id": fresh, "trigger": "clear"})
            self.line({"type": "system", "subtype": "background_tasks_changed", "tasks": []})
            self.session = fresh
            self.init()
            self.result(num_turns=0, local_command="clear", result="")
        return True

    def init(self) -> None:
        self.line(
            {
                "type": "system",
                "subtype": "init",
                "cwd": str(Path.cwd()),
                "tools": [],
                "mcp_servers": [],
                "model": self.model,
                "permissionMode": self.mode,
                "claude_code_version": VERSION,
            }
        )

    def event(self, kind: str, **fields: object) -> None:
        event = {"type": kind, **fields}
        self.line({"type": "stream_event", "event": event, "parent_tool_use_id": None})

    def delta(self, text: str) -> None:
        self.said += text
        self.event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    def answer(self, text: str, faults: dict):
        """One turn, fault included; yields seconds to wait, negative for ever."""
        words = [f"w{number} " for number in range(1, faults["deltas"] + 1)] if "deltas" in faults else None
        words = words or re.findall(r"\S+\s*", f"fake: {text}")
        self.begin()
        for number, word in enumerate(words):
            if number == min(faults.get("after", 1), len(words) - 1):
                yield from self.strike(faults)
            if number == 0 and "ask" in faults:
                yield from self.ask(faults)
            self.delta(word)
            if faults.get("delta_ms"):
                yield faults["delta_ms"] / 1000
        self.end(faults)
        self.turn_faults = {}

    def ask(self, faults: dict):
        """Wait for the answer to a permission request, and say it."""
        asked = {"subtype": "can_use_tool", "tool_name": faults["ask"], "input": {"command": "touch it"}}
        request_id = str(uuid.uuid4())
        self.answers.clear()
        self.line({"type": "control_request", "request_id": request_id, "request": asked})
        if faults.get("withdraw"):
            self.line({"type": "control_cancel_request", "request_id": request_id})
            return
        while not self.answers:
            yield 0.01
        self.delta(json.dumps(self.answers.pop()) + " ")

    def begin(self) -> None:
        self.said = ""
        self.message_id = f"msg_{uuid.uuid4().hex[:24]}"
        self.init()
        self.line({"type": "system", "subtype": "status", "status": "requesting"})
        message = {"id": self.message_id, "type": "message", "role": "assistant", "model": self.model}
        usage = {"input_tokens": 10, "output_tokens": 1}
        self.event("message_start", message={**message, "content": [], "stop_reason": None, "usage": usage})
        self.event("content_block_start", index=0, content_block={"type": "text", "text": ""})

    def strike(self, faults: dict):
        """The fault in the middle of the stream."""
        if "stderr_bytes" in self.turn_faults:
            flood_stderr(faults["stderr_bytes"])
        if "forks" in self.turn_faults:
            fork(faults["forks"])
        while "grow_mb_s" in self.turn_faults:
            self.grow(faults["grow_mb_s"])
            time.sleep(0.05)
        if "grow_mb" in self.turn_faults:
            self.memory.append(os.urandom(1 << 20) * faults["grow_mb"])
        if faults.get("keep_alive"):
            self.line({"type": "keep_alive"})
        if faults.get("not_json"):
            write(b"Warning: a plugin said this on stdout\n")
        if faults.get("bad_bytes"):
            write(b'{"type":"\x00\xff\xfe\xc3"}\n')
        if "huge_line_bytes" in faults:
            self.assistant("x" * faults["huge_line_bytes"])
        if "burst" in faults:
            event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "."}}
            tiny = {"type": "stream_event", "event": event, "parent_tool_use_id": None}
            write(encode({**tiny, "session_id": self.session}) * faults["burst"])
            self.said += "." * faults["burst"]
        if faults.get("half_line"):
            write(b'{"type":"stream_event","event":{"type":"content_bl')
            os._exit(0)
        if "crash" in faults:
            crash(faults["crash"])
        if faults.get("hang_turn") or faults.get("deaf"):
            while True:
                yield -1

    def assistant(self, text: str, **fields: object) -> None:
        message = {"id": self.message_id, "type": "message", "role": "assistant", "model": self.model}
        content = [{"type": "text", "text": text}]
        self.line({"type": "assistant", "message": {**message, "content": content}, **fields})

    def end(self, faults: dict) -> None:
        self.assistant(self.said)
        self.event("content_block_stop", index=0)
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        self.event("message_delta", delta=delta, usage={"output_tokens": 5})
        self.event("message_stop")
        if faults.get("error_result"):
            fields = {"api_error_status": 500, "terminal_reason": "api_error"}
            self.result(is_error=True, result=faults["error_result"], **fields)
        elif not faults.get("no_result"):
            self.result(result=self.said, stop_reason="end_turn", terminal_reason="completed")

    def interrupt(self) -> None:
        if self.turn is None:
            return
        self.turn = None
        self.turn_faults = {}
        self.assistant(self.said, aborted=True)
        content = [{"type": "text", "text": "[Request interrupted by user]"}]
        self.line({"type": "user", "message": {"role": "user", "content": content}})
        fields = {"is_error": True, "terminal_reason": "aborted_streaming", "errors": ["[ede_diagnostic]"]}
        self.result(subtype="error_during_execution", **fields)

    def result(self, **fields: object) -> None:
        """A result line; as with the real one, `type` is not its first key."""
        usage = {"input_tokens": 10, "output_tokens": 5}
        plain = {"duration_ms": 5, "stop_reason": None, "total_cost_usd": 0.001, "usage": usage}
        kind = {"is_error": False, "num_turns": 1, "subtype": "success", "type": "result"}
        self.line({**plain, **kind, **fields})


def crash(status: int) -> None:
    """End at once, with an exit status or (below 0) by a signal."""
    if status >= 0:
        os._exit(status)
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
    time.sleep(60)


def main() -> int:
    if "--version" in sys.argv[1:]:
        write(f"{VERSION} (Claude Code)\n".encode())
        return 0
    faults = start_faults()
    handler = signal.SIG_IGN if faults.get("ignore_term") else lambda *_: os._exit(143)
    signal.signal(signal.SIGTERM, handler)
    if faults.get("grandchild"):
        leave_grandchild()
    if faults.get("bare_grandchild"):
        leave_bare_grandchild()
    fork(faults.get("forks", 0))
    if "stderr_bytes" in faults:
        flood_stderr(faults["stderr_bytes"])
    memory = os.urandom(1 << 20) * faults.get("grow_mb", 0)
    time.sleep(faults.get("start_ms", 0) / 1000)
    if "exit" in faults:
        os.write(2, b"error: unknown option '--nonsense'\n")
        return faults["exit"]
    while faults.get("hang"):
        time.sleep(60)
    status = Cli(faults).run()
    del memory
    return status


if __name__ == "__main__":
    sys.exit(main())
