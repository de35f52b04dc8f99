"""`python -m benchmarks`: time this library and its peers in one process, in turn."""

import importlib
import json
import os
import platform
from importlib.metadata import version
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.timing import compared

TABLES = ("jax", "torch")


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(TABLES)}; repeatable.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer shapes and rounds.")] = False,
    json_: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
) -> None:
    """Print a table for each library: the ratio of the median times, ours to the peer's, with its quartiles."""
    works = [
        work for name in only or TABLES for work in importlib.import_module(f"benchmarks.{name}_work").works(quick)
    ]
    console = Console()
    rows = []
    for work in track(works, console=Console(stderr=True), transient=True):
        result = compared(work.ours, work.peer, seconds=0.3 if quick else 1.5)
        kept = {name: value for name, value in work._asdict().items() if name not in ("ours", "peer")}
        rows.append(kept | result._asdict())
    console.print(_machine(), end="\n\n", highlight=False)
    for name, group in groupby(rows, key=itemgetter("table")):
        console.print(_table(name, list(group)))
    if json_:
        json_.write_text(json.dumps({"machine": _machine(), "rows": rows}, indent=2) + "\n")


def _machine() -> str:
    packages = ("numpy", "array-api-compat", "jax", "optax", "torch", "scipy", "scikit-learn")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    threads = f"{os.cpu_count()} cores; one thread except under JAX, which takes all cores for both sides"
    return f"{_processor()}, {threads}; Python {platform.python_version()}, {versions}"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _table(name: str, rows: list[dict]) -> Table:
    layout = Table(title=name, title_justify="left")
    for heading in ("operation", "shape", "dtype", "peer"):
        layout.add_column(heading)
    for heading in ("ns/element", "peer's", "ratio", "quartiles", "to reach"):
        layout.add_column(heading, justify="right")
    for row in rows:
        elements = 1
        for length in row["shape"]:
            elements *= length
        style = "green" if row["ratio"] <= row["target"] else "red"
        layout.add_row(
            row["operation"],
            "x".join(map(str, row["shape"])),
            row["dtype"],
            row["peer_name"],
            f"{row['ours'] / elements * 1e9:.2f}",
            f"{row['peer'] / elements * 1e9:.2f}",
            f"[{style}]{row['ratio']:.2f}[/]",
            f"{row['low']:.2f}-{row['high']:.2f}",
            f"{row['target']:.2f}",
        )
    return layout


if __name__ == "__main__":
    typer.run(main)
