"""The figures as a table for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from bench.measure import Figure


def show(machine: dict[str, Any], figures: list[Figure], took_s: dict[str, float]) -> None:
    """Print everything; each figure beside its target where it has one."""
    table = Table(
        title="ccd benchmarks: medians; ratios are to a floor of the same run", title_justify="left"
    )
    table.add_column("what", overflow="fold")
    table.add_column("median", justify="right", no_wrap=True)
    table.add_column("p10 to p90", justify="right", no_wrap=True)
    table.add_column("ratio", justify="right", overflow="fold")
    table.add_column("target", overflow="fold")
    table.add_column("note", overflow="fold", style="dim")
    group = ""
    for figure in figures:
        if figure.group != group:
            group = figure.group
            table.add_section()
            table.add_row(f"[bold]({group[0]}){group[1:]}[/bold]")
        table.add_row(*_cells(figure))
    console = Console(width=None if Console().is_terminal else 150)
    console.print(table)
    facts = ", ".join(f"{key} {value}" for key, value in machine.items())
    console.print(f"{facts}; {sum(took_s.values()):.0f} s", style="dim")


def _cells(figure: Figure) -> tuple[str, ...]:
    spread = f"{_number(figure.p10)} to {_number(figure.p90)}" if figure.count > 1 else ""
    ratio = f"{figure.ratio:.2f}× {figure.floor}" if figure.ratio is not None else ""
    return (
        f" {figure.name}",
        f"{_number(figure.median)} {figure.unit}",
        spread,
        ratio,
        figure.target,
        figure.note,
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
