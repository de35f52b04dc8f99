"""The audit on paper: text, JSON, HTML."""

import io
import json
import math
from itertools import pairwise
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from stable_softmax import __version__
from stable_softmax.audit._files import Stored
from stable_softmax.audit._findings import advice, findings, notes, place
from stable_softmax.audit._tally import COUNTS, LEADS, TOLERANCE, Loss, Tally
from stable_softmax.report._output import WIDTH

_HEADINGS = ("lead", "examples", "loss 0", "loss off", "gradient 0", "gradient off")
_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>stable-softmax audit</title>
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


def text(tally: Tally, exact: list[float]) -> RenderableType:
    """Lay out the audit; `exact` has the losses of the worst examples."""
    parts: list[RenderableType] = [_inputs(tally), _means(tally), Text()]
    if tally.totals["examples"]:
        parts += [_leads(tally), Text()]
    for title, items in (("Findings", findings(tally)), ("Notes", notes(tally))):
        if items:
            parts += [
                Text(title, style="bold"),
                *(Padding(Text(item), (0, 0, 0, 2), expand=False) for item in items),
                Text(),
            ]
    if tally.worst:
        parts += [_worst(tally, exact), Text()]
    return Group(*parts, Text(advice(tally), style="bold"))


def json_text(tally: Tally, exact: list[float]) -> str:
    """Return the audit as a JSON document, with null for what is no finite number."""
    return json.dumps(_document(tally, exact), indent=2, allow_nan=False)


def html(tally: Tally, exact: list[float], drawing: str) -> str:
    """Return the audit as a page of its own, with an SVG drawing if there is one."""
    console = Console(width=WIDTH, file=io.StringIO(), record=True)
    console.print(text(tally, exact))
    page = console.export_html(code_format=_TEMPLATE)
    return page.replace("</pre>", f"</pre>\n{drawing}", 1)


def _inputs(tally: Tally) -> Text:
    examples = tally.examples
    stored = examples.logits.dtype.name
    dtype = stored if stored == examples.dtype else f"{stored}, taken as {examples.dtype}"
    return Text(
        f"{examples.logits.name}: {examples.classes:,} classes, {dtype}\n"
        f"{examples.labels.name}: {examples.count:,} examples, of which {tally.totals['examples']:,} are measured"
    )


def _means(tally: Tally) -> RenderableType:
    usual, ours = tally.mean_losses
    offset = tally.offset
    layout = Table.grid(padding=(0, 2))
    layout.add_row("mean loss, usual form", f"{usual:.7g}")
    layout.add_row("mean loss, stable-softmax", f"{ours:.7g}")
    if offset.rows:
        mean = offset.total / offset.rows
        layout.add_row(
            "largest logit of a row", f"{offset.smallest:.6g} to {offset.largest:.6g}, {mean:.6g} on average"
        )
        layout.add_row("spacing of the dtype there", f"up to {offset.spacing:.2g} ({tally.examples.coarsest_dtype})")
    return layout


def _leads(tally: Tally) -> Table:
    """Lay out the counts by the lead of the label."""
    title = f"The usual form by the lead of the label; off means by more than {TOLERANCE * 100:.0f} %"
    layout = _table(title, *_HEADINGS)
    layout.caption = (
        "Lead: the label's logit less the largest of the others.\n"
        f"Usual form: logsumexp(z) - z_y of shifted logits, in {tally.examples.working_dtype}."
    )
    layout.caption_justify = "left"
    bounds = [f"below {LEADS[0]}", *(f"{low} to {high}" for low, high in pairwise(LEADS))]
    for name, counts in zip([*bounds, f"{LEADS[-1]} and above"], tally.table.tolist(), strict=True):
        layout.add_row(name, *(f"{count:,}" if count else "-" for count in counts))
    return layout


def _worst(tally: Tally, exact: list[float]) -> Table:
    layout = _table("Worst examples", "index", "label", "lead", "usual loss", "exact loss")
    for loss, value in zip(tally.worst, exact, strict=True):
        numbers = (f"{loss.lead:.4g}", f"{loss.usual:.3e}" if loss.usual else "0", f"{value:.3e}")
        layout.add_row(place(tally, loss.example), f"{loss.example.label:,}", *numbers)
    return layout


def _table(title: str, *headings: str) -> Table:
    columns = (Column(heading, justify="right") for heading in headings)
    return Table(*columns, title=title, title_justify="left", title_style="bold", box=SIMPLE, show_edge=False)


def _document(tally: Tally, exact: list[float]) -> dict[str, Any]:
    examples, offset = tally.examples, tally.offset
    usual, ours = map(_number, tally.mean_losses)
    bounds = [None, *LEADS, None]
    return {
        "version": __version__,
        "logits": _stored(examples.logits),
        "labels": _stored(examples.labels),
        "axis": examples.axis,
        "dtype": examples.dtype,
        "ignore_index": tally.ignore_index,
        "examples": examples.count,
        "classes": examples.classes,
        "measured": tally.totals["examples"],
        "mean_loss": {"usual": usual, "stable_softmax": ours},
        "leads": [
            {"from": low, "to": high, **dict(zip(COUNTS, counts, strict=True))}
            for low, high, counts in zip(bounds[:-1], bounds[1:], tally.table.tolist(), strict=True)
        ],
        "found": {
            kind: {
                "count": found.count,
                "first": [{"index": examples.index(at), "label": label} for at, label in found.first],
            }
            for kind, found in tally.found.items()
        },
        "largest_logits": {
            "smallest": _number(offset.smallest),
            "mean": offset.total / offset.rows if offset.rows else None,
            "largest": _number(offset.largest),
            "spacing": offset.spacing,
            "spacing_dtype": examples.coarsest_dtype,
            "coarse_rows": offset.coarse_rows,
        },
        "worst": [_worst_item(tally, loss, value) for loss, value in zip(tally.worst, exact, strict=True)],
        "findings": findings(tally),
        "notes": notes(tally),
        "advice": advice(tally),
    }


def _stored(array: Stored) -> dict[str, Any]:
    return {"name": array.name, "shape": array.shape, "dtype": array.dtype.name}


def _worst_item(tally: Tally, loss: Loss, exact: float) -> dict[str, Any]:
    return {
        "index": tally.examples.index(loss.example.position),
        "label": loss.example.label,
        "lead": _number(loss.lead),
        "usual": _number(loss.usual),
        "exact": exact,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
