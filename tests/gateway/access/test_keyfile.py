"""The keys file: what is stored, who may read it, how it is replaced, and that comparing tells nothing."""

from __future__ import annotations

import json
import os
import re
import statistics
import threading
import time
from pathlib import Path

import pytest

from ccd_gateway.access import keyfile
from ccd_gateway.access.keyfile import Key, KeyFileError, changing, digest_of, find, make, read, renewed


def saved(path: Path, *names: str, **limits: object) -> dict[str, str]:
    """Make keys in a file; their tokens by name."""
    tokens = {}
    with changing(path) as keys:
        for name in names:
            key, tokens[name] = make(name, **limits)
            keys[key.id] = key
    return tokens


def test_only_the_hash_is_at_rest(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys.json"
    token = saved(path, "app")["app"]
    assert re.fullmatch(r"ccd_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", token)
    text = path.read_text()
    assert digest_of(token) in text
    assert token not in text and token.split("_", 2)[2] not in text
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_secrets_are_not_alike() -> None:
    tokens = {make("a")[1] for _ in range(200)}
    assert len(tokens) == 200 and len({token.split("_", 2)[2] for token in tokens}) == 200


def test_a_key_is_found_by_its_whole_token_only() -> None:
    key, token = make("app")
    keys = {key.id: key}
    assert find(keys, token, 0) is key
    other = make("other")[1]
    wrong = [
        "",
        "ccd_",
        token[:-1],
        token + "A",
        token.upper(),
        other,
        f" {token}",
        token.replace("ccd_", "sk_"),
    ]
    wrong += [f"ccd_{key.id}_{other.split('_', 2)[2]}", "é" * 40]
    for text in wrong:
        assert find(keys, text, 0) is None, text


def test_expiry() -> None:
    key, token = make("app", expires=100)
    assert find({key.id: key}, token, 99.9) is key
    assert find({key.id: key}, token, 100) is None


def test_rotation_keeps_everything_but_the_secret() -> None:
    key, token = make("app", usd_per_day=3.0, tenant="team")
    new, new_token = renewed(key)
    assert (new.id, new.name, new.tenant, new.usd_per_day) == (key.id, "app", "team", 3.0)
    assert find({new.id: new}, token, 0) is None
    assert find({new.id: new}, new_token, 0) is new


@pytest.mark.parametrize(
    "limits",
    [
        {"requests_per_minute": 0},
        {"tokens_per_minute": -1},
        {"concurrent": 1.5},
        {"usd_per_day": 0.0},
        {"usd_per_day": float("nan")},
        {"scopes": ("everything",)},
        {"scopes": ()},
        {"tenant": "local"},
        {"tenant": "a b"},
        {"models": ("",)},
    ],
)
def test_values_that_a_key_cannot_have(limits: dict[str, object]) -> None:
    with pytest.raises(KeyFileError):
        make("app", **limits)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a\n", "x" * 65, "é"])
def test_names_that_a_key_cannot_have(name: str) -> None:
    with pytest.raises(KeyFileError):
        make(name)


def test_a_missing_file_has_no_keys(tmp_path: Path) -> None:
    assert read(tmp_path / "keys.json") == {}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_may_read(tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    saved(path, "app")
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read(path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    if mode & 0o007:
        with pytest.raises(KeyFileError):
            read(path)
    else:
        assert len(read(path)) == 1


@pytest.mark.parametrize("what", ["fifo", "folder", "damaged", "twice", "version", "unknown", "huge"])
def test_files_that_are_no_keys_file(tmp_path: Path, what: str) -> None:
    path = tmp_path / "keys.json"
    key, _ = make("app")
    row = json.loads(keyfile.msgspec.json.encode(key))
    contents = {
        "damaged": '{"version": 1, "keys": [',
        "twice": json.dumps({"version": 1, "keys": [row, row]}),
        "version": json.dumps({"version": 2, "keys": []}),
        "unknown": json.dumps({"version": 1, "keys": [{**row, "limitless": True}]}),
        "huge": " " * (9 << 20),
    }
    if what == "fifo":
        os.mkfifo(path, 0o600)
    elif what == "folder":
        path.mkdir()
    else:
        path.touch(0o600)
        path.write_text(contents[what])
    with pytest.raises(KeyFileError, match=re.escape(str(path))):
        read(path)


def test_a_failed_change_leaves_the_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    saved(path, "app")
    before = path.read_bytes()
    with pytest.raises(RuntimeError), changing(path) as keys:
        keys.clear()
        raise RuntimeError
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["keys.json"]


def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    threads = [threading.Thread(target=saved, args=(path, f"app-{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in read(path).values()} == {f"app-{n}" for n in range(8)}


def test_patterns() -> None:
    key, _ = make("app", models=("claude-haiku-*", "sonnet"), profiles=("chat", "team-?"))
    assert key.may_use_model("claude-haiku-4-5") and key.may_use_model("sonnet")
    assert (
        not key.may_use_model("opus") and not key.may_use_model("sonnet2") and not key.may_use_model("Sonnet")
    )
    assert key.may_use_profile("team-a") and not key.may_use_profile("agent")


def test_the_time_of_a_comparison_does_not_tell_how_much_is_right() -> None:
    """Welch's t between secrets that differ in the first and in the last character, and unknown ids."""
    key, token = make("app")
    keys: dict[str, Key] = {key.id: key}
    swap = "A" if token[-1] != "A" else "B"
    kinds = {
        "last": token[:-1] + swap,
        "first": token[: len("ccd_") + 13] + swap + token[len("ccd_") + 14 :],
        "unknown": make("other")[1],
    }
    times: dict[str, list[int]] = {kind: [] for kind in kinds}
    for _ in range(20_000):
        for kind, text in kinds.items():
            started = time.perf_counter_ns()
            find(keys, text, 0)
            times[kind].append(time.perf_counter_ns() - started)
    trimmed = {kind: sorted(values)[: int(len(values) * 0.8)] for kind, values in times.items()}
    # In absolute terms: a difference below 5 % of a microsecond's work cannot be seen through HTTP.
    means = [statistics.fmean(values) for values in trimmed.values()]
    assert abs(means[0] - means[1]) < 0.05 * means[0] + 20
    assert abs(means[0] - means[2]) < 0.15 * means[0] + 50
