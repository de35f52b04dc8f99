"""The ratios of the median times, ours to the peer's."""

import importlib
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import groupby
from operator import attrgetter

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


def sections(names: Iterable[TableName], quick: bool) -> Iterator[Section]:
    """Yield the tables, each as soon as it is measured."""
    for name in names:
        works = importlib.import_module(f"benchmarks.{name}_work").works(quick)
        for title, group in groupby(works, key=attrgetter("table")):
            yield Section(title, COLUMNS, [_row(work, quick) for work in group])


def _row(work: Work, quick: bool) -> Row:
    tell(f"{work.table}: {work.operation} {work.shape} {work.dtype} against {work.peer_name}")
    kept = {name: value for name, value in work._asdict().items() if name not in ("ours", "peer")}
    return kept | compared(work.ours, work.peer, seconds=0.2 if quick else 1.5)._asdict()
