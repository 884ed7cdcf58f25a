"""Typed settings from four sources: defaults < TOML file < `CCD_<SECTION>__<KEY>` variables < flags.

A section is a frozen dataclass; its annotations are the only description of what may be set. Every source
is read into a tree of tables by the same code, the trees are laid over each other, and the dataclasses are
made from what is left, so a default is written once and a mistake is reported under the name that its
author used: the file and the dotted key, the variable, or the flag.

Field types: `bool`, `int`, `float`, `str`, `Path`, `Literal[...]`, `list[X]`, `tuple[X, ...]`, `dict[str,
X]`, `X | None`, another dataclass, and `dict[str, SomeDataclass]` for tables with names of the user's
choice (`[profiles.NAME]`). Field metadata: `min` and `max` for numbers, `help`, and `secret` for values
that no message may show. In variables a list is a JSON array or comma-separated, a table is a JSON object,
and an empty text is "none" where none is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from ccd_settings.paths import is_file, socket_path
from ccd_settings.toml_lines import lines_of
from ccd_settings.values import PREFIX, RawText, SettingsError, Where, convert, from_json, shown

__all__ = [
    "MAX_FILE_BYTES",
    "PREFIX",
    "SPECIAL",
    "SettingsError",
    "config_path",
    "load",
    "setting",
    "socket_in_force",
]

# Variables that belong to no section: where the socket is, and where the settings file is.
SPECIAL = frozenset({"CCD_SOCKET", "CCD_CONFIG"})
MAX_FILE_BYTES = 1 << 20


class Problems:
    """Collects what is wrong, so that one look at the settings finds all of it. Each `with` block may fail once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, SettingsError):
            return False
        self.found += error.problems
        return True

    def check(self) -> None:
        """Raises SettingsError when something was found."""
        if self.found:
            raise SettingsError(*self.found)


class _Table(dict[str, Any]):
    """A table of settings, not a setting whose value is a dict: tables of two sources are merged."""


def config_path(environ: Mapping[str, str]) -> Path | None:
    """Returns the settings file when no flag names one: `$CCD_CONFIG`, else the user's, else the system's, else none.

    A file named by `$CCD_CONFIG` is returned whether or not it exists, so that a typing mistake is an error.
    """
    named = environ.get("CCD_CONFIG")
    if named:
        return Path(named)
    home = environ.get("XDG_CONFIG_HOME") or (f"{environ['HOME']}/.config" if environ.get("HOME") else None)
    places = [Path(home) / "ccd" / "ccd.toml"] if home else []
    return next((place for place in (*places, Path("/etc/ccd/ccd.toml")) if is_file(place)), None)


def socket_in_force(environ: Mapping[str, str], toml_path: Path | None, *, serving: bool = False) -> Path:
    """The daemon's socket for a program that no flag tells: the variables, else the file, else the usual places.

    Nothing but `server.socket` is looked at: the rest of that section is the daemon's business.

    Raises:
        SettingsError: the file cannot be read, or the key is wrong.
    """
    named: object = RawText(environ.get(f"{PREFIX}SERVER__SOCKET", ""))
    where = Where("env", ("server", "socket"))
    if not named and not environ.get("CCD_SOCKET") and toml_path is not None:
        server = _parse_file(toml_path).get("server")
        named = server.get("socket") if isinstance(server, dict) else None
        where = Where(str(toml_path), where.path)
    return Path(convert(Path, named, where, {})) if named else socket_path(environ, serving=serving)


def setting(default: Any, help: str, **bounds: Any) -> Any:
    """Returns a field of a section: its default, a help text for the documents, and `min`, `max` or `secret`."""
    metadata = {"help": help, **bounds}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def load(
    sections: Mapping[str, Any],
    *,
    toml_path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
    others_allowed: bool = False,
    below: Iterable[tuple[str, str, object]] = (),
) -> dict[str, Any]:
    """Read every section; the result has one instance (or one dict of instances) per key of `sections`.

    Args:
        sections: section name to a frozen dataclass, or to `dict[str, SomeDataclass]`.
        toml_path: the file to read, or None for none. It must exist.
        environ: variables; those without the `CCD_` prefix and those in `SPECIAL` are not looked at.
        overrides: flags, as `"section.key"` to a value; text is parsed like a variable, None is "not given".
        others_allowed: leave sections alone that are not in `sections`, for a program that shares its
            settings with others and describes only its own part.
        below: source, `section.key` and value of settings that lie under all others, just above the defaults.

    Raises:
        SettingsError: with everything that is wrong, each under the name that its author used.
    """
    merged, problems = _Table(), Problems()
    for where, tree in (
        *_below_trees(below),
        *_file_trees(toml_path),
        *_env_trees(environ or {}, sections),
        *_flag_trees(overrides or {}),
    ):
        with problems:
            _merge(merged, _read_sections(sections, tree, where, others_allowed))
    problems.check()
    return {name: _make(kind, merged.get(name), (name,)) for name, kind in sections.items()}


def sources(
    sections: Mapping[str, Any],
    *,
    toml_path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    below: Iterable[tuple[str, str, object]] = (),
) -> dict[str, str]:
    """Returns where each setting that is not a default comes from: `section.key` to the place, as messages name it."""
    found: dict[str, str] = {}
    for where, tree in (
        *_below_trees(below),
        *_file_trees(toml_path),
        *_env_trees(environ or {}, sections),
    ):
        found |= dict(_named(tree, where))
    return found


def _named(tree: Mapping[str, Any], where: Where) -> Iterable[tuple[str, str]]:
    for name, value in tree.items():
        here = where.child(name)
        yield ".".join(here.path), str(here).removesuffix(f": {'.'.join(here.path)}")
        if isinstance(value, dict):
            yield from _named(value, here)


# --- the sources, each as trees of plain values ---


def _below_trees(below: Iterable[tuple[str, str, object]]) -> Iterable[tuple[Where, dict[str, Any]]]:
    for source, key, value in below:
        yield Where(source, ()), _dotted(key, value)


def _file_trees(path: Path | None) -> Iterable[tuple[Where, dict[str, Any]]]:
    if path is not None:
        yield _file_tree(path)
        for file in drop_ins(path):
            where, tree = _file_tree(file)
            for name in tree.keys() - {"profiles"}:
                raise SettingsError(f"{where.child(name)}: only [profiles.NAME] may stand in profiles.d")
            yield where, tree


def _file_tree(path: Path) -> tuple[Where, dict[str, Any]]:
    text = _read_text(path)
    return Where(str(path), (), lines_of(text)), _parsed(text, path)


def drop_ins(path: Path) -> list[Path]:
    """Returns the files in `profiles.d/*.toml` beside a settings file, in the order in which they are laid over it.

    One file for each profile, put there by a package or a tool; nothing but profiles may be set in them.
    """
    return sorted(file for file in (path.parent / "profiles.d").glob("*.toml") if is_file(file))


def _parse_file(path: Path) -> dict[str, Any]:
    return _parsed(_read_text(path), path)


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise SettingsError(f"{path}: a settings file may have at most {MAX_FILE_BYTES} bytes")
        return data.decode()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not valid TOML: {error}") from error


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        line = re.search(r"at line (\d+)", str(error))
        raise SettingsError(f"{path}{':' + line[1] if line else ''}: is not valid TOML: {error}") from error


def _env_trees(
    environ: Mapping[str, str], sections: Mapping[str, Any]
) -> Iterable[tuple[Where, dict[str, Any]]]:
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in SPECIAL:
            continue
        path = name.removeprefix(PREFIX).lower().split("__")
        if len(path) > 1:
            yield Where("env", ()), _nest(path, RawText(environ[name]))
        else:
            _refuse_single_underscore(name, sections)


def _refuse_single_underscore(name: str, sections: Mapping[str, Any]) -> None:
    """`CCD_POOL_SPARES` would be silently without effect; other such names are other programs' matter."""
    for section in sections:
        start = f"{PREFIX}{section.upper()}_"
        if name.startswith(start):
            wanted = f"{start}_{name.removeprefix(start)}"
            raise SettingsError(f"{name}: not a setting; did you mean {wanted} (two underscores)?")


def _flag_trees(overrides: Mapping[str, object]) -> Iterable[tuple[Where, dict[str, Any]]]:
    for key, value in overrides.items():
        if value is not None:
            yield Where("flag", ()), _dotted(key, value)


def _dotted(key: str, value: object) -> dict[str, Any]:
    return _nest(key.split("."), RawText(value) if isinstance(value, str) else value)


def _nest(path: list[str], value: object) -> dict[str, Any]:
    return {path[0]: _nest(path[1:], value) if len(path) > 1 else value}


# --- plain values to checked tables ---


def _read_sections(
    sections: Mapping[str, Any], tree: Mapping[str, Any], where: Where, others_allowed: bool
) -> _Table:
    table, problems = _Table(), Problems()
    for name, value in tree.items():
        with problems:
            if name in sections:
                table[name] = _read(sections[name], value, where.child(name), {})
            elif not others_allowed:
                raise SettingsError(f"{where.child(name)}: {_unknown('section', name, sections, where)}")
    problems.check()
    return table


def _read(kind: Any, value: Any, where: Where, meta: Mapping[str, Any]) -> Any:
    if dataclasses.is_dataclass(kind):
        return _read_table(kind, value, where)
    entry = _entry_dataclass(kind)
    if entry is None:
        return convert(kind, value, where, meta)
    table, problems = _Table(), Problems()
    for name, item in _as_dict(value, where).items():
        with problems:
            table[name] = _read_table(entry, item, where.child(name))
    problems.check()
    return table


def _read_table(kind: Any, value: Any, where: Where) -> _Table:
    hints, fields = get_type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}
    table, problems = _Table(), Problems()
    for name, item in _as_dict(value, where).items():
        with problems:
            if name not in fields:
                raise SettingsError(f"{where.child(name)}: {_unknown('setting', name, fields, where)}")
            table[name] = _read(hints[name], item, where.child(name), fields[name].metadata)
    problems.check()
    return table


def _as_dict(value: Any, where: Where) -> Mapping[str, Any]:
    if isinstance(value, RawText):
        value = from_json(value)
    if not isinstance(value, dict):
        raise SettingsError(f"{where}: expected a table of settings, got {shown(value)}")
    return value


def _unknown(what: str, name: str, known: Iterable[str], where: Where) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if not close:
        return f"unknown {what}"
    wanted = where.child(close[0])
    return f"unknown {what}; did you mean {wanted if where.source == 'env' else '.'.join(wanted.path)}?"


def _entry_dataclass(kind: Any) -> Any:
    """Returns the dataclass of a `dict[str, SomeDataclass]`, or None for every other type."""
    if get_origin(kind) is dict and dataclasses.is_dataclass(get_args(kind)[1]):
        return get_args(kind)[1]
    return None


# --- checked tables to dataclasses ---


def _merge(below: _Table, above: _Table) -> None:
    for name, value in above.items():
        if isinstance(value, _Table) and isinstance(below.get(name), _Table):
            _merge(below[name], value)
        else:
            below[name] = value


def _make(kind: Any, table: Any, path: tuple[str, ...]) -> Any:
    entry = _entry_dataclass(kind)
    if entry is not None:
        return {name: _make(entry, item, (*path, name)) for name, item in (table or {}).items()}
    if not dataclasses.is_dataclass(kind):
        return table
    hints, values = get_type_hints(kind), dict(table or {})
    for field in dataclasses.fields(kind):
        nested = dataclasses.is_dataclass(hints[field.name]) or _entry_dataclass(hints[field.name])
        if field.name in values or (nested and not _has_default(field)):
            values[field.name] = _make(hints[field.name], values.get(field.name), (*path, field.name))
        elif not _has_default(field):
            raise SettingsError(f"{'.'.join((*path, field.name))}: must be set, and has no default")
    try:
        return kind(**values)  # type: ignore[operator]
    except ValueError as error:  # a check of the section's own, in __post_init__
        raise SettingsError(f"{'.'.join(path)}: {error}") from error


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
