"""The report on paper: a table for each backend and dtype, and a sentence for each backend."""

from itertools import groupby
from operator import attrgetter

from rich.box import SIMPLE
from rich.table import Column, Table
from rich.text import Text

from stable_softmax.report._measurement import FORMS, OPERATIONS, OURS, Cell, title

CAPTION = (
    "Largest relative error against exact arithmetic, over the entries that are normal numbers of the dtype; "
    "- where there are none."
)


def table(cells: list[Cell]) -> Table:
    """Lay out the cells of one backend and dtype: a row for each operation and case, a column for each form."""
    layout = Table(
        Column("", no_wrap=True),
        *(Column(form, justify="right", no_wrap=True) for form in FORMS),
        title=f"{title(cells[0].backend)}, {cells[0].dtype}",
        title_justify="left",
        box=SIMPLE,
    )
    for operation in OPERATIONS:
        layout.add_row(Text(operation, style="bold"))
        rows = groupby((cell for cell in cells if cell.operation == operation), key=attrgetter("case"))
        for case, forms in rows:
            layout.add_row(f"  {case}", *map(_text, forms))
    return layout


def sentence(backend: str, cells: list[Cell]) -> Text:
    """Say in one sentence how the forms did on a backend."""
    ours = [cell for cell in cells if cell.form == OURS]
    broken = [cell for cell in ours if not cell.keeps_contract]
    if broken:
        where = "; ".join(f"{cell.operation} of {cell.case} in {cell.dtype}" for cell in broken)
        return Text(f"{title(backend)}: this library broke its accuracy contract: {where}.", style="bold red")
    unstable, shifted = (sum(bool(cell.failure) for cell in cells if cell.form == form) for form in FORMS[:2])
    return Text(
        f"{title(backend)}: this library kept its accuracy contract in all {len(ours)} measurements; of the textbook's "
        f"forms, the unstable one gave nan, inf or a false 0 in {unstable}, and the shifted one in {shifted}.",
        style="green",
    )


def _text(cell: Cell) -> Text:
    if cell.failure:
        return Text(cell.failure, style="red")
    shown = "-" if cell.relative_error is None else f"{cell.relative_error:.1e}" if cell.relative_error else "0"
    return Text(shown, style="" if cell.form != OURS else "green" if cell.keeps_contract else "bold red")
