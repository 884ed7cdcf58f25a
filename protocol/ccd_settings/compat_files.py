"""Finds the settings of the two older projects where those kept them: variables, `.env`, `config/*.toml`.

Reads, and decides nothing: what a setting becomes is the matter of `ccd_settings.compat`. Files in the working
directory are read only when a variable says that this is such an installation (`CCD_COMPAT`, a `CLAUDE_CODE__`
variable, or `RUN_MODE`), because they may name a program to run, and `ccd` may be started in a directory that
somebody else has filled.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ccd_settings.paths import is_file
from ccd_settings.settings import MAX_FILE_BYTES, SettingsError

SWITCH = "CCD_COMPAT"
RUST_PREFIX = "CLAUDE_CODE__"
FLASK_NAMES = frozenset(
    {
        "API_HOST",
        "API_PORT",
        "CLAUDE_API_KEY",
        "CLAUDE_DEFAULT_TIMEOUT",
        "CLAUDE_MAX_RETRIES",
        "FLASK_ENV",
        "LOG_FILE",
        "LOG_LEVEL",
        "RATE_LIMIT_PER_MINUTE",
        "SECRET_KEY",
    }
)
#: Variables of the CLI itself that a `.env` may hold; the older projects handed them on.
LOGIN_NAMES = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_OAUTH_TOKEN")
_OTHER_NAMES = frozenset({"RUN_MODE", "RUST_LOG", "CLAUDE_SKIP_PERMISSIONS", *LOGIN_NAMES})
_MODES = ("rust", "flask")
_READABLE = ("toml", "json")
_NOT_READ = ("yaml", "yml", "ini", "ron", "json5")


class Given(NamedTuple):
    """One setting of an older project, as it was found."""

    name: str  # where: the variable, or file and key
    value: Any  # text from a variable, anything from a file


class Found(NamedTuple):
    """Everything that was found.

    Attributes:
        modes: the projects whose settings are read: `rust`, `flask`.
        rust: the Rust project's settings by dotted key in lower case; the last source has won.
        variables: variables without a section, of either project, by name.
        remarks: what a user should know about the files.
    """

    modes: frozenset[str]
    rust: Mapping[str, Given]
    variables: Mapping[str, Given]
    remarks: tuple[str, ...]


def find(environ: Mapping[str, str], folder: Path) -> Found:
    """Look for settings of the older projects in the variables and, where one of those says so, in `folder`.

    Raises:
        SettingsError: `CCD_COMPAT` names another project, or a file cannot be used.
    """
    modes = modes_of(environ)
    if not modes:
        return Found(modes, {}, {}, tuple(_overlooked(folder)))
    dotenv = {name: value for name, value in _dotenv(folder / ".env").items() if name not in environ}
    variables = {name: Given(name, environ[name]) for name in environ if _is_ours(name, modes)}
    variables |= {name: Given(f".env: {name}", dotenv[name]) for name in dotenv if _is_ours(name, modes)}
    rust: dict[str, Given] = {}
    remarks: list[str] = []
    if "rust" in modes:
        mode = str(variables.get("RUN_MODE", Given("", "development")).value)
        for path in _files(folder, mode, remarks):
            rust |= _flat(_parsed(path), path)
        for name in sorted(variables):
            if name.startswith(RUST_PREFIX):
                rust[name.removeprefix(RUST_PREFIX).lower().replace("__", ".")] = variables[name]
    if not rust and "RUN_MODE" in environ and not _listed(environ):
        modes -= {"rust"}  # that variable alone is some other program's
    plain = {name: given for name, given in variables.items() if not name.startswith(RUST_PREFIX)}
    return Found(modes, rust, plain, tuple(remarks))


def modes_of(environ: Mapping[str, str]) -> frozenset[str]:
    """The projects whose settings count: those that `CCD_COMPAT` lists, and `rust` when its variables are there.

    Raises:
        SettingsError: `CCD_COMPAT` lists something else.
    """
    listed = _listed(environ)
    for mode in listed:
        if mode not in _MODES:
            raise SettingsError(
                f"{SWITCH}: expected {' or '.join(_MODES)} (or both, with a comma), got {mode!r}"
            )
    signs = any(name.startswith(RUST_PREFIX) for name in environ) or "RUN_MODE" in environ
    return frozenset([*listed, *(["rust"] if signs else [])])


def _listed(environ: Mapping[str, str]) -> list[str]:
    return [mode.strip().lower() for mode in environ.get(SWITCH, "").split(",") if mode.strip()]


def _is_ours(name: str, modes: frozenset[str]) -> bool:
    if name in _OTHER_NAMES or ("rust" in modes and name.startswith(RUST_PREFIX)):
        return True
    return "flask" in modes and name in FLASK_NAMES


def _overlooked(folder: Path) -> Iterator[str]:
    """Files that look as if somebody expected them to be read."""
    try:
        dotenv = _dotenv(folder / ".env")
    except SettingsError:
        return  # some other program's
    if any(name.startswith(RUST_PREFIX) for name in dotenv):
        yield f"{folder / '.env'} has settings of claude-code-api; set {SWITCH}=rust to use them"
    if any(name.startswith("CLAUDE_") and name in FLASK_NAMES for name in dotenv):
        yield f"{folder / '.env'} has settings of claude_code_api; set {SWITCH}=flask to use them"


# --- files ---


def _files(folder: Path, mode: str, remarks: list[str]) -> Iterator[Path]:
    """`config/<mode>.*`, then `config/local.*`."""
    if not mode.replace("-", "").replace("_", "").isalnum():
        raise SettingsError(f"RUN_MODE: expected a name of letters, digits, - and _, got {mode[:80]!r}")
    for name in (mode, "local"):
        for kind in (*_READABLE, *_NOT_READ):
            path = folder / "config" / f"{name}.{kind}"
            if not is_file(path):
                continue
            if kind in _READABLE:
                yield path
            else:
                remarks.append(f"{path} is not read: ccd reads TOML and JSON; move its settings to a .toml")


def _parsed(path: Path) -> dict[str, Any]:
    text = _text(path)
    try:
        tree = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: is not valid {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(tree, dict):
        raise SettingsError(f"{path}: expected a table of settings")
    return tree


def _flat(tree: Mapping[str, Any], path: Path, above: str = "") -> dict[str, Given]:
    """Dotted keys in lower case; deeper than a section nothing of the older project's is a table."""
    flat: dict[str, Given] = {}
    for key, value in tree.items():
        name = f"{above}{key}".lower()
        if isinstance(value, dict) and not above:
            flat |= _flat(value, path, f"{name}.")
        else:
            flat[name] = Given(f"{path}: {name}", value)
    return flat


def _dotenv(path: Path) -> dict[str, str]:
    """`NAME=value` lines; quotes around a value and `export` before a name are taken off, `#` begins a comment."""
    if not is_file(path):
        return {}
    values: dict[str, str] = {}
    for line in _text(path).splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            values[name.strip()] = _unquoted(value.strip())
    return values


def _unquoted(value: str) -> str:
    if value[:1] in ("'", '"'):
        end = value.find(value[0], 1)
        return value[1:end] if end > 0 else value
    return value.partition(" #")[0].rstrip()


def _text(path: Path) -> str:
    """Returns the file, if it is this user's or root's: a stranger's must not decide which program runs."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid not in (0, os.getuid()) or status.st_mode & stat.S_IWOTH:
                raise SettingsError(f"{path}: is not read, because another user can write it")
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise SettingsError(f"{path}: a settings file may have at most {MAX_FILE_BYTES} bytes")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
