"""`python -m benchmarks`: time this library and its peers in one process, in turn."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import comparisons, growth, instructions, linear, memory, workers
from benchmarks.comparisons import TableName
from benchmarks.machine import machine, one_thread
from benchmarks.progress import STATUS
from benchmarks.tables import Section, layout

# Where the output is no terminal: more than the widest table takes.
WIDTH = 140


def main(
    only: Annotated[list[TableName] | None, typer.Option(help="These comparisons alone; repeatable.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer shapes and rounds.")] = False,
    check: Annotated[
        Path | None,
        typer.Option(help="Exit with 1 if a ratio is worse than in this file of --json by more than both runs' noise."),
    ] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Also write all figures to this file.")] = None,
    picture: Annotated[
        Path | None, typer.Option("--plot", help="Draw the time by classes, ours and the peers'.")
    ] = None,
    grow: Annotated[bool, typer.Option("--growth", help="Time by elements and by classes.")] = False,
    large: Annotated[bool, typer.Option("--large", help="With --growth: up to 10^9 elements.")] = False,
    peak: Annotated[bool, typer.Option("--memory", help="Peak memory beyond the result.")] = False,
    scale: Annotated[bool, typer.Option("--workers", help="Two workers against one.")] = False,
    count: Annotated[bool, typer.Option("--instructions", help="Instructions, by Valgrind.")] = False,
    project: Annotated[bool, typer.Option("--linear", help="Loss of projected features: time, peak memory.")] = False,
) -> None:
    """Print the ratios of the median times, ours to the peers', with quartiles; or what the options ask for instead."""
    asked: list[Iterator[Section]] = []
    if only or check or not (grow or peak or scale or count or project or picture):
        asked.append(comparisons.sections(only or TableName, quick, check and comparisons.kept_in(check)))
    if grow:
        asked.append(growth.sections(quick, large))
    if peak:
        asked.append(memory.sections(quick))
    if scale:
        asked.append(workers.sections(quick))
    if count:
        asked.append(instructions.sections(quick))
    if project:
        asked.append(linear.sections(quick))
    if picture:
        # Here, so that nothing else needs matplotlib.
        from benchmarks import plot

        asked.append(plot.sections(picture, quick))
    with one_thread():
        figures = _print(asked)
    if json_:
        json_.write_text(json.dumps(figures, indent=2) + "\n")
    if any(row.get("is_worse") for rows in figures["tables"].values() for row in rows):
        raise typer.Exit(1)


def _print(asked: Iterable[Iterator[Section]]) -> dict[str, Any]:
    """Print the machine and each table as soon as it is measured, and return all of it."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    about = machine()
    for name, fact in about.items():
        console.print(f"{name}: {fact}", highlight=False)
    tables = {}
    with STATUS:
        for sections in asked:
            for section in sections:
                console.print()
                console.print(layout(section))
                tables[section.title] = section.rows
    return {"machine": about, "tables": tables}


if __name__ == "__main__":
    typer.run(main)
