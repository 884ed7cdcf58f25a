from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from ccd_settings.paths import SYSTEM_SOCKET
from ccd_settings.settings import MAX_FILE_BYTES, SettingsError, config_path, load, socket_in_force

SECONDS = "expected a number of at least 0 (or text like 30s or 5m)"


@dataclass(frozen=True)
class Pool:
    spares: int = field(default=2, metadata={"min": 0, "max": 64})
    grace_s: float = field(default=1.5, metadata={"min": 0})
    eager: bool = False
    body: Literal["auto", "full", "replay"] = "auto"
    command: Path | None = None
    label: str = ""
    roots: list[str] = field(default_factory=list)
    uids: tuple[int, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    token: str = field(default="", metadata={"secret": True})
    code: int | None = field(default=None, metadata={"max": 9, "secret": True})


@dataclass(frozen=True)
class Profile:
    model: str
    spares: int = 1


SECTIONS: dict[str, Any] = {"pool": Pool, "profiles": dict[str, Profile]}


def from_env(**variables: str) -> Pool:
    return load(SECTIONS, environ=variables)["pool"]


def refused(**arguments: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load(SECTIONS, **arguments)
    return str(caught.value)


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ccd.toml"
    path.write_text(text)
    return path


def test_defaults() -> None:
    assert load(SECTIONS) == {"pool": Pool(), "profiles": {}}


def test_order_of_the_sources(tmp_path: Path) -> None:
    path = toml(tmp_path, "[pool]\nspares = 3\ngrace_s = 3\nlabel = 'file'\n")
    got = load(
        SECTIONS,
        toml_path=path,
        environ={"CCD_POOL__SPARES": "4", "CCD_POOL__GRACE_S": "4"},
        overrides={"pool.spares": 5, "pool.label": None},
    )["pool"]
    assert (got.spares, got.grace_s, got.label) == (5, 4.0, "file")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("SPARES", "64", 64),
        ("GRACE_S", "0.25", 0.25),
        ("EAGER", "On", True),
        ("EAGER", "0", False),
        ("BODY", "full", "full"),
        ("COMMAND", "/bin/true", Path("/bin/true")),
        ("COMMAND", "", None),
        ("LABEL", "", ""),
        ("LABEL", "12", "12"),
        ("ROOTS", "a, b", ["a", "b"]),
        ("ROOTS", '["a,b"]', ["a,b"]),
        ("ROOTS", "", []),
        ("UIDS", "0,1000", (0, 1000)),
        ("ENV", '{"A":"b"}', {"A": "b"}),
    ],
)
def test_text_of_a_variable(name: str, text: str, value: object) -> None:
    got = getattr(from_env(**{f"CCD_POOL__{name}": text}), name.lower())
    assert got == value
    assert type(got) is type(value) or isinstance(got, Path)


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert from_env(CCD_POOL__COMMAND="~/bin/claude").command == Path("/home/someone/bin/claude")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("SPARES", "two", "CCD_POOL__SPARES: expected a whole number from 0 to 64, got 'two'"),
        ("SPARES", "65", "CCD_POOL__SPARES: expected a whole number from 0 to 64, got '65'"),
        ("SPARES", "-1", "CCD_POOL__SPARES: expected a whole number from 0 to 64, got '-1'"),
        ("SPARES", "1.5", "CCD_POOL__SPARES: expected a whole number from 0 to 64, got '1.5'"),
        ("SPARES", "", "CCD_POOL__SPARES: expected a whole number from 0 to 64, got ''"),
        (
            "SPARES",
            "9" * 5000,
            "CCD_POOL__SPARES: expected a whole number from 0 to 64, got '" + "9" * 76 + "…",
        ),
        (
            "GRACE_S",
            "nan",
            f"CCD_POOL__GRACE_S: {SECONDS}, got 'nan'",
        ),
        (
            "GRACE_S",
            "1e999",
            f"CCD_POOL__GRACE_S: {SECONDS}, got '1e999'",
        ),
        ("EAGER", "maybe", "CCD_POOL__EAGER: expected true or false, got 'maybe'"),
        ("BODY", "none", "CCD_POOL__BODY: expected one of auto, full, replay, got 'none'"),
        ("UIDS", "1,x", "CCD_POOL__UIDS: expected a list, each item a whole number, got '1,x'"),
        ("ROOTS", "[1]", "CCD_POOL__ROOTS: expected a list, each item text, got '[1]'"),
        ("ENV", "A=b", "CCD_POOL__ENV: expected a table, got 'A=b'"),
        ("ENV", '{"A":1}', "CCD_POOL__ENV: expected a table, got '{\"A\":1}'"),
        ("CODE", "10", "CCD_POOL__CODE: expected a whole number of at most 9"),
        ("COMMAND", "a\0b", "CCD_POOL__COMMAND: expected a path, got 'a\\x00b'"),
        ("SPARE", "1", "CCD_POOL__SPARE: unknown setting; did you mean CCD_POOL__SPARES?"),
        ("ZZZ", "1", "CCD_POOL__ZZZ: unknown setting"),
    ],
)
def test_wrong_variable(name: str, text: str, message: str) -> None:
    assert refused(environ={f"CCD_POOL__{name}": text}) == message


def test_unknown_section_and_single_underscore() -> None:
    assert refused(environ={"CCD_POOLS__X": "1"}) == "CCD_POOLS: unknown section; did you mean CCD_POOL?"
    message = "CCD_POOL_SPARES: not a setting; did you mean CCD_POOL__SPARES (two underscores)?"
    assert refused(environ={"CCD_POOL_SPARES": "1"}) == message


def test_special_and_foreign_variables_are_left_alone() -> None:
    foreign = {"CCD_SOCKET": "/x", "CCD_CONFIG": "/y", "CCD_WORKER": "3", "HOME": "/", "XCCD_POOL__A": "1"}
    assert load(SECTIONS, environ=foreign) == load(SECTIONS)


def test_tables_with_names_of_the_users_choice(tmp_path: Path) -> None:
    path = toml(tmp_path, "[profiles.fast]\nmodel = 'haiku'\n[profiles.deep]\nmodel = 'opus'\nspares = 0\n")
    got = load(SECTIONS, toml_path=path, environ={"CCD_PROFILES__FAST__SPARES": "7"})["profiles"]
    assert got == {"fast": Profile("haiku", 7), "deep": Profile("opus", 0)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[pool]\nspares = '2'\n", "{}:2: pool.spares: expected a whole number from 0 to 64, got '2'"),
        ("[pool]\nspares = true\n", "{}:2: pool.spares: expected a whole number from 0 to 64, got True"),
        ("[pool]\ngrace_s = inf\n", "{}:2: pool.grace_s: " + SECONDS + ", got inf"),
        ("[pool]\ncommand = 3\n", "{}:2: pool.command: expected a path, got 3"),
        ("[pool]\nlabel = 3\n", "{}:2: pool.label: expected text, got 3"),
        ("[pool]\neager = 1\n", "{}:2: pool.eager: expected true or false, got 1"),
        ("[pool]\ntoken = 3\n", "{}:2: pool.token: expected text"),
        ("[pool]\nspars = 2\n", "{}:2: pool.spars: unknown setting; did you mean pool.spares?"),
        ("pool = 3\n", "{}:1: pool: expected a table of settings, got 3"),
        ("[profiles]\nfast = 3\n", "{}:2: profiles.fast: expected a table of settings, got 3"),
        ("[profiles.x]\nmodle = ''", "{}:2: profiles.x.modle: unknown setting; did you mean profiles.x.model?"),
        ("[profiles.fast]\n", "profiles.fast.model: must be set, and has no default"),
        ("[other]\n", "{}:1: other: unknown section"),
    ],
)  # fmt: skip
def test_wrong_file(tmp_path: Path, text: str, message: str) -> None:
    path = toml(tmp_path, text)
    assert refused(toml_path=path) == message.replace("{}", str(path))


def test_file_that_cannot_be_parsed(tmp_path: Path) -> None:
    path = toml(tmp_path, "[pool\n")
    assert refused(toml_path=path).startswith(f"{path}:1: is not valid TOML: ")
    path.write_bytes(b"\xff\xfe")
    assert refused(toml_path=path).startswith(f"{path}: is not valid TOML: ")
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    assert refused(toml_path=path) == f"{path}: a settings file may have at most {MAX_FILE_BYTES} bytes"
    path.unlink()
    assert refused(toml_path=path) == f"{path}: cannot be read: No such file or directory"


def test_flags() -> None:
    assert load(SECTIONS, overrides={"pool.spares": "3", "pool.eager": True})["pool"] == Pool(
        spares=3, eager=True
    )
    message = "the flag for pool.spares: expected a whole number from 0 to 64, got -3"
    assert refused(overrides={"pool.spares": -3}) == message


def test_other_programs_sections(tmp_path: Path) -> None:
    path = toml(tmp_path, "[daemon]\nx = 1\n[pool]\nspares = 9\n")
    got = load(SECTIONS, toml_path=path, environ={"CCD_DAEMON__Y": "1"}, others_allowed=True)
    assert got["pool"].spares == 9


def test_a_sections_own_check_and_nested_sections() -> None:
    @dataclass(frozen=True)
    class Memory:
        soft_bytes: int = 1
        hard_bytes: int = 2

        def __post_init__(self) -> None:
            if self.soft_bytes > self.hard_bytes:
                raise ValueError("soft_bytes may not be above hard_bytes")

    globals()["Memory"] = Memory

    @dataclass(frozen=True)
    class Outer:
        memory: Memory

    assert load({"outer": Outer})["outer"].memory == Memory()
    assert (
        load({"outer": Outer}, environ={"CCD_OUTER__MEMORY__SOFT_BYTES": "2"})["outer"].memory.soft_bytes == 2
    )
    with pytest.raises(SettingsError, match=r"^outer.memory: soft_bytes may not be above hard_bytes$"):
        load({"outer": Outer}, environ={"CCD_OUTER__MEMORY__SOFT_BYTES": "3"})


def test_config_path(tmp_path: Path) -> None:
    assert config_path({"CCD_CONFIG": "/nowhere/x.toml", "HOME": str(tmp_path)}) == Path("/nowhere/x.toml")
    mine = tmp_path / ".config" / "ccd" / "ccd.toml"
    assert config_path({"HOME": str(tmp_path)}) != mine
    mine.parent.mkdir(parents=True)
    mine.touch()
    assert config_path({"HOME": str(tmp_path)}) == mine
    assert config_path({"HOME": "/nowhere", "XDG_CONFIG_HOME": str(tmp_path / ".config")}) == mine


# --- the socket ---


def test_the_socket_is_found_in_the_same_order_by_every_program(tmp_path: Path) -> None:
    file = tmp_path / "ccd.toml"
    file.write_text('[server]\nsocket = "/of/the/file"\nunknown_to_others = 1\n[pool]\nspares = "wrong"\n')
    environ = {"XDG_RUNTIME_DIR": "/run/user/7"}
    if not SYSTEM_SOCKET.exists():
        assert socket_in_force(environ, None) == Path("/run/user/7/ccd/ccd.sock")
    assert socket_in_force(environ, file) == Path("/of/the/file")
    environ["CCD_SOCKET"] = "/of/the/variable"
    assert socket_in_force(environ, file) == Path("/of/the/variable")
    environ["CCD_SERVER__SOCKET"] = "/of/the/setting"
    assert socket_in_force(environ, file) == Path("/of/the/setting")


def test_a_socket_that_is_no_path_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ccd.toml"
    file.write_text("[server]\nsocket = 5\n")
    with pytest.raises(SettingsError, match=r"ccd\.toml.*server\.socket"):
        socket_in_force({}, file)


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = toml(tmp_path, "[pool]\nspares = -1\n\nspars = 2\n[profiles.x]\nmodle = 1\n")
    with pytest.raises(SettingsError) as refused_with:
        load(SECTIONS, toml_path=path, environ={"CCD_POOL__SPARS": "1"})
    assert [problem.partition(": ")[0] for problem in refused_with.value.problems] == [
        f"{path}:2",
        f"{path}:4",
        f"{path}:6",
        "CCD_POOL__SPARS",
    ]
    assert str(refused_with.value).count("\n") == 3


def test_a_file_for_each_profile(tmp_path: Path) -> None:
    path = toml(tmp_path, "[profiles.a]\nmodel = 'one'\n")
    folder = tmp_path / "profiles.d"
    folder.mkdir()
    (folder / "b.toml").write_text("[profiles.b]\nmodel = 'two'\n")
    (folder / "c.toml").write_text("[profiles.a]\nmodel = 'three'\n")
    (folder / "ignored.txt").write_text("not a settings file")
    profiles = load(SECTIONS, toml_path=path, environ={})["profiles"]
    assert {name: profile.model for name, profile in profiles.items()} == {"a": "three", "b": "two"}
    (folder / "d.toml").write_text("\n[pool]\nspares = 1\n")
    assert (
        refused(toml_path=path)
        == f"{folder / 'd.toml'}:2: pool: only [profiles.NAME] may stand in profiles.d"
    )
