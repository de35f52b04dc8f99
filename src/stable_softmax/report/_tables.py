"""The report on paper: ordinary predictions, a summary, the tables behind it, and one case in full."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Any

from rich.box import SIMPLE
from rich.table import Column, Table
from rich.text import Text

from stable_softmax.reference.bounds import PRECISIONS
from stable_softmax.report._cases import TOPICS
from stable_softmax.report._forms import OPERATIONS, OURS, SHIFTED, UNSTABLE
from stable_softmax.report._measurement import LIBRARIES, Cell, Row, title
from stable_softmax.report._ordinary import Prediction

NO_DIGIT = "no digit"
CAPTION = (
    "Largest relative error against exact arithmetic, over the entries that are normal numbers of the dtype; "
    f"- where there are none. {NO_DIGIT}: an error of 1 or more.\n"
    "The unstable form is ahead of ours where a row is spread wide and does not overflow: subtracting a shift rounds, "
    "by up to half a unit for each nat of the spread. The bound allows for it."
)


def ordinary_table(predictions: list[Prediction]) -> Table:
    """Lay out what the usual formulas make of ordinary predictions, beside the exact values."""
    columns = ("usual form", "stable-softmax", "exact")
    options = {"padding": (0, 1, 0, 0), "collapse_padding": True, "show_edge": False}
    layout = _layout("Small results, in float32, by NumPy", 1, columns, no_wrap=True, **options)
    for prediction in predictions:
        figures = (prediction.usual, prediction.ours, prediction.exact)
        layout.add_row(prediction.what, *(f"{value:.4g}" for value in figures))
    return layout


def summary(cells: list[Cell], dtype: str) -> Table:
    """Lay out the largest errors in one dtype: a row for each backend and form, a column for what may go wrong."""
    caption = f"Largest relative error of softmax, loss and gradient in {dtype}"
    layout = _layout(caption, 2, TOPICS, padding=(0, 1, 0, 0), collapse_padding=True, show_edge=False)
    of_dtype = [cell for cell in cells if cell.dtype == dtype]
    for backend, group in _grouped(of_dtype, "backend"):
        for i, form in enumerate(_distinct(group, "form")):
            own = [cell for cell in group if cell.form == form]
            worst = (_worst([cell for cell in own if cell.topic == topic]) for topic in TOPICS)
            layout.add_row("" if i else LIBRARIES[backend], form, *worst)
    return layout


def legend() -> Text:
    """Explain the summary's columns and words."""
    columns = ", ".join(f"{topic} ({meaning})" for topic, meaning in TOPICS.items())
    forms = (
        f"{UNSTABLE}: exp(z) / sum(exp(z)). {SHIFTED}: of z - max(z), the usual form, also of "
        "PyTorch, JAX, SciPy and scikit-learn."
    )
    return Text(f"Logits: {columns}. {forms} {NO_DIGIT}: error of 1 or more.", style="dim")


def table(cells: list[Cell]) -> Table:
    """Lay out the cells of one backend and dtype: a row for each operation and case, a column for each form."""
    caption = f"{title(cells[0].backend)}, {cells[0].dtype}"
    layout = _layout(caption, 1, _distinct(cells, "form"), no_wrap=True, padding=(0, 1, 0, 0))
    for operation in OPERATIONS:
        layout.add_row(Text(operation, style="bold"))
        for case, forms in _grouped([cell for cell in cells if cell.operation == operation], "case"):
            layout.add_row(f"  {case}", *map(_text, forms))
    return layout


def case_table(rows: list[Row], dtype: str) -> Table:
    """Lay out what each form gives for one example, below the exact values."""
    layout = _layout(f"In {dtype}", 2, ("p at the label", "loss", "gradient there"), no_wrap=True)
    for row in rows:
        values = (row.probability, row.loss, row.gradient)
        layout.add_row(row.backend, row.form, *(f"{value:.8g}" for value in values))
    smallest = PRECISIONS[dtype].smallest
    if rows[0].loss < smallest:
        layout.caption = f"{dtype} has no number between 0 and {smallest:.2g}"
    return layout


def verdict(cells: list[Cell]) -> Text:
    """Say in one sentence whether the bound was kept, and in one how often the other forms had no digit right."""
    ours = [cell for cell in cells if cell.form == OURS]
    broken = [cell for cell in ours if not cell.keeps_contract]
    if broken:
        where = "; ".join(f"{cell.operation} of {cell.case}, {title(cell.backend)}, {cell.dtype}" for cell in broken)
        return Text(f"This library broke its accuracy bound: {where}.", style="bold red")
    others = [form for form in _distinct(cells, "form") if form != OURS]
    return Text(
        f"stable-softmax was within its accuracy bound in all {len(ours)} results. No digit right: "
        + ", ".join(_share_without_digit(form, [cell for cell in cells if cell.form == form]) for form in others)
        + ".",
        style="green",
    )


def _layout(title: str, labels: int, headings: Iterable[str], *, no_wrap: bool = False, **options: Any) -> Table:
    """Return an empty table: so many columns without a heading, and then figures."""
    columns = [Column("", no_wrap=True) for _ in range(labels)]
    columns += [Column(heading, justify="right", vertical="bottom", no_wrap=no_wrap) for heading in headings]
    return Table(*columns, title=title, title_justify="left", box=SIMPLE, **options)


def _share_without_digit(form: str, cells: list[Cell]) -> str:
    return f"{form} {sum(cell.has_no_digit for cell in cells)} of {len(cells)}"


def _worst(cells: list[Cell]) -> Text:
    """Show a failure if there is one, the largest error otherwise."""
    if not cells:
        return Text("-")
    return _text(max(cells, key=lambda cell: (cell.has_no_digit, cell.failure or "", cell.relative_error or 0)))


def _text(cell: Cell) -> Text:
    if cell.has_no_digit:
        return Text(cell.failure if cell.failure in ("nan", "inf") else NO_DIGIT, style="red")
    shown = "-" if cell.relative_error is None else f"{cell.relative_error:.0e}" if cell.relative_error else "0"
    return Text(shown, style="" if cell.form != OURS else "green" if cell.keeps_contract else "bold red")


def _grouped(cells: list[Cell], field: str) -> Iterator[tuple[Any, list[Cell]]]:
    return ((key, list(group)) for key, group in groupby(cells, key=attrgetter(field)))


def _distinct(cells: list[Cell], field: str) -> list[str]:
    return list(dict.fromkeys(getattr(cell, field) for cell in cells))
