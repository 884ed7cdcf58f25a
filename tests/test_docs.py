"""What the documents promise is there: settings, commands, codes, and README's two commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest

from ccd_cli.root import main
from ccd_gateway.app import create_app
from ccd_gateway.settings import GatewaySettings
from ccd_protocol.errors import Code
from documents import TABLES, documents, written

ROOT = Path(__file__).parents[1]


def test_tables_are_what_they_describe(request: pytest.FixtureRequest) -> None:
    for path in documents():
        text = path.read_text()
        if request.config.getoption("--write-documents"):
            path.write_text(written(text))
        else:
            assert text == written(text), f"{path}: run pytest tests/test_docs.py --write-documents"


def test_every_table_stands_in_a_document() -> None:
    text = "".join(path.read_text() for path in documents())
    assert all(f"<!-- table: {name}," in text for name in TABLES)


def test_every_route_is_documented() -> None:
    """Those that describe themselves; the document may name what stands in a path as it likes."""
    text = "".join(
        path.read_text() for path in (ROOT / "gateway" / "README.md", *(ROOT / "docs").glob("*.md"))
    )
    named = {re.sub(r"\{\w+\}", "{}", path) for path in re.findall(r"/[a-z][\w/{}.-]*|(?<=GET )/(?=`)", text)}
    app: Any = create_app(
        GatewaySettings(usage_file=Path("/nonexistent/u"), keys_file=Path("/nonexistent/k"))
    )
    served = {re.sub(r"\{\w+(:path)?\}", "{}", route.path) for route in app.routes.all if route.description}
    assert served <= named, served - named


def commands(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        return [pair for name, sub in command.commands.items() for pair in commands(sub, f"{path} {name}")]
    return [(path, command)]


@pytest.mark.parametrize(("path", "command"), commands(main, "ccd"), ids=lambda value: str(value))
def test_every_command_explains_itself(path: str, command: click.Command) -> None:
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option)), path


def test_every_error_code_is_in_the_specification() -> None:
    text = (ROOT / "protocol" / "SPEC.md").read_text()
    assert [code.name for code in Code if not re.search(rf"\b{code.name}\b", text)] == []


def test_readme_names_both_commands_and_the_makefile_has_them() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("run", "test"):
        assert f"\n    make {target}\n" in (ROOT / "README.md").read_text()
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_links_in_documents_lead_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *ROOT.glob("*/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_map_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`((?:protocol|client|daemon|gateway|docs|tests|systemd)/[\w./-]*)`", text))
    assert len(named) > 30
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_map_names_every_package_and_every_room_of_the_daemon() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for folder in ("protocol", "client", "daemon", "gateway"):
        for package in (ROOT / folder).glob("ccd_*"):
            assert f"`{folder}/{package.name}`" in text
    rooms = {file.parent.name for file in (ROOT / "daemon" / "ccd_daemon").glob("*/__init__.py")}
    assert [room for room in sorted(rooms) if not re.search(rf"\b{room}\b", text)] == []
