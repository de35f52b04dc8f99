"""Tables of what was measured, for the terminal and for JSON."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from rich.table import Table

Row = dict[str, Any]
TEXT = ("operation", "shape", "dtype", "peer", "library", "form")


class Section(NamedTuple):
    """A titled table: the text of each column's cells by heading, and the rows that the cells are made of."""

    title: str
    columns: dict[str, Callable[[Row], str]]
    rows: list[Row]


def layout(section: Section) -> Table:
    """Return the table to print."""
    table = Table(title=section.title, title_justify="left")
    for heading in section.columns:
        table.add_column(heading, justify="left" if heading in TEXT else "right")
    for row in section.rows:
        table.add_row(*(cell(row) for cell in section.columns.values()))
    return table


def text(key: str) -> Callable[[Row], str]:
    """Write the value as it is."""
    return lambda row: str(row[key])


def number(key: str, form: str = ".2f") -> Callable[[Row], str]:
    """Write the value in a format, and a dash if it is missing."""
    return lambda row: format(row[key], form) if key in row else "-"


def shape(row: Row) -> str:
    """Write the lengths of the axes."""
    return "x".join(map(str, row["shape"]))


def per_element(key: str) -> Callable[[Row], str]:
    """Write seconds for the whole array as nanoseconds for each element."""
    return lambda row: f"{row[key] / math.prod(row['shape']) * 1e9:.2f}"
