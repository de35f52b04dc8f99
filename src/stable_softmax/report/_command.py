"""The command line of the report."""

import json
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from stable_softmax import __version__
from stable_softmax.command_line.output import (
    check_destination,
    console,
    one_line_errors,
    picture_suffixes,
    progress,
    write,
)
from stable_softmax.reference.bounds import Dtype
from stable_softmax.report._cases import cases
from stable_softmax.report._forms import OURS
from stable_softmax.report._measurement import (
    Backend,
    Cell,
    cell_count,
    dtypes_of,
    installed_backends,
    measured,
    rows_of,
    title,
)
from stable_softmax.report._ordinary import ordinary_predictions
from stable_softmax.report._tables import CAPTION, case_table, legend, ordinary_table, summary, table, verdict

MORE = "More: --all, --case 'label leads by 20', --plot errors.png, --help."


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"stable-softmax {__version__}")
        raise typer.Exit


def report(
    context: typer.Context,
    backend: Annotated[
        list[Backend] | None, typer.Option(help="Array library; repeatable.", show_default="all installed")
    ] = None,
    dtype: Annotated[
        list[Dtype] | None,
        typer.Option(help="Floating-point format; repeatable.", show_default="float32 for the summary, else all"),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Print the tables behind the summary.")] = False,
    case: Annotated[str | None, typer.Option(help="Print one case of the tables in full.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document of all measurements.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the errors of loss and gradient against the label's lead into this file.")
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Compare softmax, its cross-entropy and their gradient with exact arithmetic, on this machine.

    First come ordinary predictions that the usual formulas get wrong. Measured then are the unstable formulas, the
    shifted ones, which SciPy, Optax, PyTorch and scikit-learn use, what users of the array library write, and this
    library. Exits with 1 if this library broke its accuracy bound.
    """
    ways = {"--case": case is not None, "--plot": plot is not None, "--json": json_, "--all": all_}
    chosen = [name for name, given in ways.items() if given]
    if len(chosen) > 1 or (chosen and context.invoked_subcommand):
        message = f"choose one of {', '.join(ways)}, and none with another command"
        raise typer.BadParameter(message, param_hint=chosen[0])
    if context.invoked_subcommand:
        return
    if plot and dtype:
        raise typer.BadParameter("goes without --plot, which draws float32 and float64", param_hint="--dtype")
    with one_line_errors("stable-softmax"):
        plan = _plan(backend, dtype or (None if all_ or json_ or case else [Dtype.float32]))
        if case is not None:
            _print_case(case, plan)
            return
        if plot is not None:
            _draw(plot, list(dict.fromkeys(name for name, _ in plan)))
            return
        cells = _measured(plan)
        if json_:
            print(json.dumps(_document(cells), indent=2))
        else:
            _print(cells, all_)
    kept = all(cell.keeps_contract for cell in cells if cell.form == OURS)
    raise typer.Exit(code=0 if kept else 1)


def _plan(backends: list[Backend] | None, dtypes: list[Dtype] | None) -> list[tuple[str, str]]:
    """Return the pairs of backend and dtype to measure."""
    chosen = list(dict.fromkeys(map(str, backends or []))) or installed_backends()
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
    with progress() as bar:
        task = bar.add_task("Measuring", total=sum(cell_count(*pair) for pair in plan))
        cells = []
        for backend, dtype in plan:
            bar.update(task, description=f"{backend} {dtype}")
            for cell in measured(backend, dtype):
                cells.append(cell)
                bar.advance(task)
    return cells


def _print(cells: list[Cell], all_: bool) -> None:
    out = console()
    if all_:
        for _, group in groupby(cells, key=attrgetter("backend", "dtype")):
            out.print(table(list(group)))
        out.print(CAPTION, end="\n\n")
    else:
        out.print(ordinary_table(ordinary_predictions()), "")
        for dtype in Dtype:
            if any(cell.dtype == dtype for cell in cells):
                out.print(summary(cells, dtype), "")
        out.print(legend())
    out.print(verdict(cells))
    if not all_:
        out.print(Text(MORE, style="dim"))


def _print_case(name: str, plan: list[tuple[str, str]]) -> None:
    dtypes = list(dict.fromkeys(dtype for _, dtype in plan))
    named = {dtype: [case for case in cases(dtype) if case.name == name] for dtype in dtypes}
    if not any(named.values()):
        known = dict.fromkeys(case.name for dtype in dtypes for case in cases(dtype))
        raise typer.BadParameter(f"{name!r} is none of {', '.join(map(repr, known))}", param_hint="--case")
    out = console()
    for dtype, (case,) in ((dtype, found) for dtype, found in named.items() if found):
        logits, label = case.logits[0], int(case.class_ids[0])
        shown = ", ".join(f"{logit:.9g}" for logit in logits[:10])
        more = f", ... ({len(logits):,} in all)" if len(logits) > 10 else ""
        out.print(f"The first of {len(case.logits)} examples: label {label}, logits {shown}{more}")
        out.print(case_table(rows_of(case, [backend for backend, own in plan if own == dtype], dtype), dtype))


def _draw(file: Path, backends: list[str]) -> None:
    check_destination(file, picture_suffixes())
    from stable_softmax.report._plot import drawn

    write(file, drawn(backends, file.suffix[1:].lower()))
    console().print(f"Wrote {file}: the largest errors of loss and gradient, in float32 and float64.")


def _document(cells: list[Cell]) -> dict[str, Any]:
    backends = {cell.backend: title(cell.backend) for cell in cells}
    predictions = [prediction._asdict() for prediction in ordinary_predictions()]
    return {
        "ordinary": predictions,
        "backends": backends,
        "cells": [cell._asdict() | {"kept": cell.keeps_contract} for cell in cells],
    }
