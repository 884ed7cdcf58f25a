from __future__ import annotations

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clients import environments


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    folder = tmp_path / "requirements"
    folder.mkdir()
    (folder / "none.txt").write_text("# nothing at all\n")
    (folder / "wrong.txt").write_text("./there-is-no-such-folder\n")
    return folder


def test_it_is_made_once_and_kept(
    requirements: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(requirements))  # of the code under test; clients must not see it
    python = environments.python("none", requirements, tmp_path)
    shown = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True)
    assert shown.stdout.strip() == str(environments.folder("none", requirements, tmp_path))
    monkeypatch.setattr(environments, "_build", lambda *_: pytest.fail("it was made again"))
    assert environments.python("none", requirements, tmp_path) == python


def test_another_list_is_another_environment(requirements: Path, tmp_path: Path) -> None:
    before = environments.folder("none", requirements, tmp_path)
    (requirements / "none.txt").write_text("# something else\n")
    assert environments.folder("none", requirements, tmp_path) != before


def test_a_failed_build_says_what_failed(requirements: Path, tmp_path: Path) -> None:
    with pytest.raises(environments.BuildError, match="there-is-no-such-folder"):
        environments.python("wrong", requirements, tmp_path)
    assert not (environments.folder("wrong", requirements, tmp_path) / ".complete").exists()


def test_two_runs_at_once_make_it_once(
    requirements: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Path] = []
    begun, go_on = threading.Event(), threading.Event()

    def build(place: Path, _: Path) -> None:
        begun.set()
        go_on.wait(30)
        place.mkdir(parents=True)
        built.append(place)

    monkeypatch.setattr(environments, "_build", build)
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(environments.python, "none", requirements, tmp_path) for _ in range(4)]
        assert begun.wait(30)
        go_on.set()
        assert len({run.result(30) for run in runs}) == 1
    assert len(built) == 1


def test_what_a_killed_run_has_left_is_made_anew(requirements: Path, tmp_path: Path) -> None:
    place = environments.folder("none", requirements, tmp_path)
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").write_text("half a file")
    python = environments.python("none", requirements, tmp_path)
    assert subprocess.run([python, "-c", ""], check=False).returncode == 0
