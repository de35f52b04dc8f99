"""The ratios of the median times, ours to the peer's, and whether they are worse than those of an earlier run."""

import importlib
import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import typer

from benchmarks.progress import tell
from benchmarks.tables import Row, Section, number, per_element, shape, text
from benchmarks.timing import compared
from benchmarks.work import Work


class TableName(StrEnum):
    """The groups of tables: each is a module here."""

    NUMPY = "numpy"
    SMALL = "small"
    LAYOUT = "layout"
    JAX = "jax"
    TORCH = "torch"
    DIVERGENCES = "divergences"


def _ratio(row: Row) -> str:
    style = "green" if row["ratio"] <= row["target"] else "red"
    return f"[{style}]{row['ratio']:.2f}[/]"


COLUMNS = {
    "operation": text("operation"),
    "shape": shape,
    "dtype": text("dtype"),
    "peer": text("peer_name"),
    "ns/element": per_element("ours"),
    "peer's": per_element("peer"),
    "ratio": _ratio,
    "quartiles": lambda row: f"{row['low']:.2f}-{row['high']:.2f}",
    "to reach": number("target"),
}


KEPT_COLUMNS = {
    "kept": lambda row: f"{row['kept'][0]:.2f}-{row['kept'][1]:.2f}" if row["kept"] else "-",
    "": lambda row: "[red]worse[/]" if row["is_worse"] else "",
}

#: The quartiles of a ratio in an earlier run, by what was compared.
Kept = dict[tuple[object, ...], tuple[float, float]]

# A row that looks worse is timed this many more times: an array may have got unlucky pages of memory.
MORE = 2


def kept_in(file: Path) -> Kept:
    """Return the quartiles that an earlier run wrote to a file."""
    tables = json.loads(file.read_text())["tables"]
    kept = {_key(row): (row["low"], row["high"]) for rows in tables.values() for row in rows if "low" in row}
    if not kept:
        raise typer.BadParameter(f"{file} holds no ratios: write it by --json, without other parts")
    return kept


def sections(names: Iterable[TableName], quick: bool, kept: Kept | None = None) -> Iterator[Section]:
    """Yield the tables, each as soon as it is measured; with kept ratios, each row says whether it is worse."""
    columns = COLUMNS if kept is None else COLUMNS | KEPT_COLUMNS
    for name in names:
        works = importlib.import_module(f"benchmarks.{name}_work").works(quick)
        for title, group in groupby(works, key=attrgetter("table")):
            rows = (_row(work, quick) if kept is None else _checked_row(work, quick, kept) for work in group)
            yield Section(title, columns, list(rows))


def _checked_row(work: Work, quick: bool, kept: Kept) -> Row:
    for _ in range(1 + MORE):
        row = _row(work, quick)
        quartiles = kept.get(_key(row))
        # Both runs measured their own noise: half of all rounds lie between the quartiles.
        is_worse = quartiles is not None and row["low"] > quartiles[1]
        if not is_worse:
            break
    return row | {"kept": quartiles, "is_worse": is_worse}


def _key(row: Row) -> tuple[object, ...]:
    return row["table"], row["operation"], tuple(row["shape"]), row["dtype"], row["peer_name"]


def _row(work: Work, quick: bool) -> Row:
    tell(f"{work.table}: {work.operation} {work.shape} {work.dtype} against {work.peer_name}")
    kept = {name: value for name, value in work._asdict().items() if name not in ("ours", "peer")}
    return kept | compared(work.ours, work.peer, seconds=0.2 if quick else 1.5)._asdict()
