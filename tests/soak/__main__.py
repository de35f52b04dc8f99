"""Soak test: millions of random rows on each library and dtype, held against extended precision."""

import json
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from soak_libraries import DTYPES, caller
from soak_oracle import require_extended_precision
from soak_rows import batch_count
from soak_state import State
from soak_summary import first_violation, is_clean, print_summary
from soak_verdict import verdict


class Backend(StrEnum):
    """What `--backend` takes."""

    numpy = "numpy"
    jax = "jax"


class Dtype(StrEnum):
    """What `--dtype` takes."""

    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"
    float64 = "float64"


def soak(
    rows: Annotated[int, typer.Option(min=1, help="At least so many for each library and dtype.")] = 10_000_000,
    seed: Annotated[int, typer.Option(min=0)] = 20,
    backend: Annotated[
        list[Backend] | None, typer.Option(help="Array library; repeatable.", show_default="all")
    ] = None,
    dtype: Annotated[
        list[Dtype] | None, typer.Option(help="Floating-point format; repeatable.", show_default="all")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(dir_okay=False, help="File to keep finished batches in, and to go on from.")
    ] = None,
) -> None:
    """Hold softmax, log_softmax, loss and gradient of random rows against extended precision.

    Exits with 1 if a row broke the accuracy contract or the table of special values.
    """
    require_extended_precision()
    console = Console()
    console.print(f"seed {seed}")
    pairs = [(b, d) for b in backend or Backend for d in DTYPES[b] if not dtype or d in dtype]
    if not pairs:
        raise typer.BadParameter("the chosen libraries have no such dtype", param_hint="--dtype")
    try:
        finished = State(state, seed)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--state") from error
    _try_all(pairs, batch_count(rows), seed, finished, console)
    raise typer.Exit(code=0 if _report(pairs, batch_count(rows), seed, finished) else 1)


def _try_all(pairs, batches, seed, finished, console):
    """Try all batches of which there is no record yet."""
    # The contract promises none.
    warnings.simplefilter("error")
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=console) as bar:
        for backend, dtype in pairs:
            done = len(finished.records(backend, dtype))
            task = bar.add_task(f"{backend} {dtype}", total=batches, completed=min(done, batches))
            call = caller(backend)
            for index in range(done, batches):
                finished.add(backend, dtype, verdict(call, seed, backend, dtype, index))
                bar.advance(task)


def _report(pairs, batches, seed, finished):
    """Print the summary, and return whether all is well."""
    records = {pair: finished.records(*pair)[:batches] for pair in pairs}
    print_summary(records)
    for (backend, dtype), tried in records.items():
        if first := first_violation(tried):
            print(json.dumps({"seed": seed, "backend": backend, "dtype": dtype, **first}))
    return all(map(is_clean, records.values()))


if __name__ == "__main__":
    typer.run(soak)
