"""The argument list and the environment of a CLI process: all that is fixed for its life.

Nothing of a request is ever here (arguments are world-readable). The environment is an enumerated list: a daemon
started from inside another CLI session would otherwise pass on that session's identity and messaging variables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ccd_daemon.claude.login import LoginKind, Mode

#: The name of the MCP server that has the client's tools.
CLIENT_TOOLS_SERVER = "client"

_LEAN_ARGV = (
    "-p",
    "--input-format",
    "stream-json",
    "--output-format",
    "stream-json",
    "--verbose",
    "--include-partial-messages",
    "--tools",
    "",
    "--setting-sources",
    "",
    "--strict-mcp-config",
    "--no-session-persistence",
)
#: A request is one API call, in which the model may call tools that the CLI knows nothing of.
_ONE_CALL_ARGV = (*_LEAN_ARGV, "--max-turns", "1")
#: The CLI calls the client's tools, an MCP server's, and asks nobody whether it may.
_CLIENT_TOOLS_ARGV = (*_LEAN_ARGV, "--allowedTools", f"mcp__{CLIENT_TOOLS_SERVER}")

#: A session: the CLI with all of its own tools, which asks its host before it uses them. No settings or MCP servers of
#: files that lie about; which settings it may read is said by a setting of ccd's.
_SESSION_ARGV = (
    "-p",
    "--input-format",
    "stream-json",
    "--output-format",
    "stream-json",
    "--verbose",
    "--include-partial-messages",
    "--permission-prompt-tool",
    "stdio",
    "--strict-mcp-config",
    "--no-session-persistence",
    "--setting-sources",
)

#: Passed on from the daemon's own environment, by exact name.
HOST_ENV = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ"),
    *(
        "LANG",
        "LANGUAGE",
        "LC_ALL",
        "LC_CTYPE",
        "LC_COLLATE",
        "LC_MESSAGES",
        "LC_NUMERIC",
        "LC_TIME",
        "LC_MONETARY",
    ),
    *(
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
    ),
    *(
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "NODE_EXTRA_CA_CERTS",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_CACHE_HOME",
    ),
)

#: The CLI's documented login, provider and endpoint variables.
LOGIN_ENV = (
    *("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_CUSTOM_HEADERS"),
    *("ANTHROPIC_MODEL", "ANTHROPIC_SMALL_FAST_MODEL", "ANTHROPIC_DEFAULT_OPUS_MODEL"),
    *("ANTHROPIC_DEFAULT_SONNET_MODEL", "ANTHROPIC_DEFAULT_HAIKU_MODEL"),
    *("CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR"),
    *("CLAUDE_CODE_USE_BEDROCK", "ANTHROPIC_BEDROCK_BASE_URL", "CLAUDE_CODE_SKIP_BEDROCK_AUTH"),
    *(
        "AWS_BEARER_TOKEN_BEDROCK",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
    ),
    *("AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
    *("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    *(
        "CLAUDE_CODE_USE_VERTEX",
        "ANTHROPIC_VERTEX_BASE_URL",
        "ANTHROPIC_VERTEX_PROJECT_ID",
        "CLOUD_ML_REGION",
    ),
    *(
        "CLAUDE_CODE_SKIP_VERTEX_AUTH",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_CLOUD_PROJECT",
        "GCLOUD_PROJECT",
    ),
    *("CLAUDE_CODE_USE_FOUNDRY", "ANTHROPIC_FOUNDRY_RESOURCE", "ANTHROPIC_FOUNDRY_BASE_URL"),
    *("ANTHROPIC_FOUNDRY_API_KEY", "CLAUDE_CODE_SKIP_FOUNDRY_AUTH"),
)

#: What every worker runs with. Compaction is off and its block lifted because a large usage figure would otherwise
#: make hidden API calls, or refuse the next request as too long, on a history that is not even sent.
WORKER_ENV: Mapping[str, str] = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "ENABLE_TOOL_SEARCH": "0",
    "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
    "DISABLE_COMPACT": "1",
    "CLAUDE_CODE_BLOCKING_LIMIT_OVERRIDE": "1000000000",
    "CLAUDE_AGENT_SDK_MCP_NO_PREFIX": "1",  # client tools keep their names
    "MAX_MCP_OUTPUT_TOKENS": "1000000",  # so that their results' tokens are not counted, by a call each
}

_CLI_TMPDIR = "CLAUDE_CODE_TMPDIR"

#: What every session runs with.
SESSION_ENV: Mapping[str, str] = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
}


def worker_argv(mode: Mode) -> tuple[str, ...]:
    """Returns the arguments of a worker's CLI."""
    return _CLIENT_TOOLS_ARGV if mode == Mode.REPLAY else _ONE_CALL_ARGV


def worker_env(
    environ: Mapping[str, str],
    *,
    login: LoginKind,
    extra: Iterable[Mapping[str, str]],
    markers: Mapping[str, str],
    max_retries: int,
    config_dir: str | None,
    temporary: str | None = None,
    tuned: Mapping[str, str] = {},
) -> dict[str, str]:
    """Returns the whole environment of a worker.

    Args:
        environ: the daemon's own; only the listed names are taken from it.
        extra: settings that win over it (`[cli].env`, then the profile's).
        markers: names that let a start-up sweep find the worker should the daemon be killed.
        config_dir: a private configuration directory, or None to use the login in the home directory. With a key it
            is the home directory too, and should be the working directory: in any other directory the CLI runs `git`
            at every turn, which costs each request 3 ms.
        temporary: a directory for temporary files of its own; None: the daemon's.
        tuned: what makes it faster (see `tuning`); settings win over it.
    """
    env = {name: environ[name] for name in (*HOST_ENV, *LOGIN_ENV) if name in environ}
    env.update(_temporary(environ, temporary))
    env.update(WORKER_ENV)
    env.update(tuned)
    env["CLAUDE_CODE_MAX_RETRIES"] = str(max_retries)
    if login.is_key:
        env["CLAUDE_CODE_SIMPLE"] = "1"
        if config_dir is not None:
            env["HOME"] = config_dir
    if config_dir is not None:
        env["CLAUDE_CONFIG_DIR"] = config_dir
    for values in extra:
        env.update(values)
    env.update(markers)
    return env


def _temporary(environ: Mapping[str, str], folder: str | None) -> dict[str, str]:
    """The CLI's own files go where the operator says, if that is said."""
    found = {name: environ[name] for name in ("TMPDIR", _CLI_TMPDIR) if environ.get(name)}
    return found if folder is None else {_CLI_TMPDIR: folder, **found, "TMPDIR": folder}


def session_argv(setting_sources: Iterable[str], *, may_bypass: bool) -> tuple[str, ...]:
    """Returns the arguments of a session's CLI; model, permission mode and tools are set when it runs."""
    bypass = ("--allow-dangerously-skip-permissions",) if may_bypass else ()
    return (*_SESSION_ARGV, ",".join(setting_sources), *bypass)


def session_env(
    environ: Mapping[str, str],
    *,
    extra: Iterable[Mapping[str, str]],
    markers: Mapping[str, str],
    max_retries: int,
    config_dir: str | None,
    temporary: str | None = None,
) -> dict[str, str]:
    """Returns the whole environment of a session's CLI, and so of its tools. For the arguments see `worker_env`.

    The home directory is the user's own: tools such as git look there for their settings.
    """
    env = {name: environ[name] for name in (*HOST_ENV, *LOGIN_ENV) if name in environ}
    env.update(_temporary(environ, temporary))
    env.update(SESSION_ENV)
    env["CLAUDE_CODE_MAX_RETRIES"] = str(max_retries)
    if config_dir is not None:
        env["CLAUDE_CONFIG_DIR"] = config_dir
    for values in extra:
        env.update(values)
    env.update(markers)
    return env
