"""The command line of the report."""

import json
from enum import StrEnum
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from stable_softmax import __version__
from stable_softmax.audit._command import audit
from stable_softmax.report._measurement import (
    OURS,
    Cell,
    cell_count,
    dtypes_of,
    installed_backends,
    measured,
    title,
)
from stable_softmax.report._tables import CAPTION, sentence, table

app = typer.Typer(add_completion=False)


class Backend(StrEnum):
    """What `--backend` takes."""

    numpy = "numpy"
    jax = "jax"
    torch = "torch"


class Dtype(StrEnum):
    """What `--dtype` takes."""

    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"
    float64 = "float64"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"stable-softmax {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def report(
    context: typer.Context,
    backend: Annotated[
        list[Backend] | None, typer.Option(help="Array library; repeatable.", show_default="all installed")
    ] = None,
    dtype: Annotated[
        list[Dtype] | None, typer.Option(help="Floating-point format; repeatable.", show_default="all")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Compare softmax, its cross-entropy and their gradient with exact arithmetic, on this machine.

    Three forms of each are measured: the unstable and the shifted one of the textbook, and that of this library.
    Exits with 1 if this library broke its accuracy contract.
    """
    if context.invoked_subcommand:
        return
    plan = _plan(backend, dtype)
    cells = _measured(plan)
    if json_:
        print(json.dumps(_document(cells), indent=2))
    else:
        _print(cells)
    kept = all(cell.keeps_contract for cell in cells if cell.form == OURS)
    raise typer.Exit(code=0 if kept else 1)


app.command()(audit)


def _plan(backends: list[Backend] | None, dtypes: list[Dtype] | None) -> list[tuple[str, str]]:
    """Return the pairs of backend and dtype to measure."""
    chosen = [str(name) for name in backends or []] or installed_backends()
    for missing in set(chosen) - set(installed_backends()):
        message = f'{missing} is not installed: python -m pip install "stable-softmax[{missing}]"'
        raise typer.BadParameter(message, param_hint="--backend")
    plan = [(name, dtype) for name in chosen for dtype in dtypes_of(name) if not dtypes or dtype in dtypes]
    if not plan:
        message = f"{' and '.join(chosen)} has no {' or '.join(dtypes or [])}"
        raise typer.BadParameter(message, param_hint="--dtype")
    return plan


def _measured(plan: list[tuple[str, str]]) -> list[Cell]:
    """Measure, with a progress bar where somebody may watch."""
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("Measuring", total=sum(cell_count(dtype) for _, dtype in plan))
        cells = []
        for backend, dtype in plan:
            progress.update(task, description=f"{backend} {dtype}")
            for cell in measured(backend, dtype):
                cells.append(cell)
                progress.advance(task)
    return cells


def _print(cells: list[Cell]) -> None:
    console = Console()
    for _, group in groupby(cells, key=attrgetter("backend", "dtype")):
        console.print(table(list(group)))
    console.print(CAPTION, end="\n\n", highlight=False)
    for backend, group in groupby(cells, key=attrgetter("backend")):
        console.print(sentence(backend, list(group)))


def _document(cells: list[Cell]) -> dict[str, Any]:
    backends = {cell.backend: title(cell.backend) for cell in cells}
    return {"backends": backends, "cells": [cell._asdict() | {"kept": cell.keeps_contract} for cell in cells]}
