"""Results on paper: tables, lists, numbers in JSON, and a page of HTML."""

import io
import math
from collections.abc import Iterable
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from stable_softmax.command_line.files import Stored
from stable_softmax.command_line.output import WIDTH

_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>stable-softmax</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ color: CanvasText; background: Canvas; margin: 1rem auto; max-width: 50rem; padding: 0 1rem; }}
pre {{ font: 0.9rem/1.35 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-x: auto; }}
svg {{ width: 100%; height: auto; }}
{stylesheet}
</style>
</head>
<body>
<pre>{code}</pre>
</body>
</html>
"""


def table(title: str, *headings: str) -> Table:
    """Return a table without rows, its columns to the right."""
    columns = (Column(heading, justify="right") for heading in headings)
    return Table(*columns, title=title, title_justify="left", title_style="bold", box=SIMPLE, show_edge=False)


def itemized(title: str, items: Iterable[str]) -> list[RenderableType]:
    """Lay out a list with its title and an empty line, or nothing where there are no items."""
    lines = [Padding(Text(item), (0, 0, 0, 2), expand=False) for item in items]
    return [Text(title, style="bold"), *lines, Text()] if lines else []


def html(title: str, text: RenderableType, drawing: str) -> str:
    """Return a page of its own, with an SVG drawing if there is one."""
    console = Console(width=WIDTH, file=io.StringIO(), record=True)
    console.print(text)
    page = console.export_html(code_format=_TEMPLATE.replace("<title>stable-softmax", f"<title>{title}"))
    return page.replace("</pre>", f"</pre>\n{drawing}", 1)


def number(value: float) -> float | None:
    """Return a number as JSON has it: null where it is not finite."""
    return value if math.isfinite(value) else None


def stored_item(array: Stored) -> dict[str, Any]:
    """Return what a JSON document says of an array in a file."""
    return {"name": array.name, "shape": array.shape, "dtype": array.dtype.name}
