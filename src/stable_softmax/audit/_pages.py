"""The audit on paper: text and JSON."""

from itertools import pairwise
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stable_softmax import __version__
from stable_softmax.audit._findings import advice, findings, notes, place
from stable_softmax.audit._tally import COUNTS, LEADS, Loss, Tally
from stable_softmax.command_line.found import TOLERANCE
from stable_softmax.command_line.pages import itemized, number, stored_item, table

_HEADINGS = ("lead", "examples", "loss 0", "loss off", "gradient 0", "gradient off")


def text(tally: Tally, exact: list[float]) -> RenderableType:
    """Lay out the audit; `exact` has the losses of the worst examples."""
    parts: list[RenderableType] = [_inputs(tally), _means(tally), Text()]
    if tally.totals["examples"]:
        parts += [_leads(tally), Text()]
    parts += [*itemized("Findings", findings(tally)), *itemized("Notes", notes(tally))]
    if tally.worst:
        parts += [_worst(tally, exact), Text()]
    return Group(*parts, Text(advice(tally), style="bold"))


def _inputs(tally: Tally) -> Text:
    examples = tally.examples
    logits = examples.logits
    return Text(
        f"{logits.stored.name}: {logits.classes:,} classes, {logits.dtype_in_words()}\n"
        f"{examples.labels.name}: {logits.count:,} examples, of which {tally.totals['examples']:,} are measured"
    )


def _means(tally: Tally) -> RenderableType:
    usual, ours = tally.mean_losses
    offset, dtype = tally.offset, tally.examples.logits.coarsest_dtype
    layout = Table.grid(padding=(0, 2))
    layout.add_row("mean loss, usual form", f"{usual:.7g}")
    layout.add_row("mean loss, stable-softmax", f"{ours:.7g}")
    if tally.totals["loss_off"]:
        layout.add_row("losses that are off", f"have errors of {tally.error_share:.2g} of the mean loss")
    if offset.rows:
        mean = offset.total / offset.rows
        layout.add_row(
            "largest logit of a row", f"{offset.smallest:.6g} to {offset.largest:.6g}, {mean:.6g} on average"
        )
        layout.add_row("spacing of the dtype there", f"up to {offset.spacing:.2g} ({dtype})")
    return layout


def _leads(tally: Tally) -> Table:
    """Lay out the counts by the lead of the label."""
    title = f"The usual form by the lead of the label; off means by more than {TOLERANCE * 100:.0f} %"
    layout = table(title, *_HEADINGS)
    layout.caption = (
        "Lead: the label's logit less the largest of the others.\n"
        f"Usual form: logsumexp(z) - z_y of shifted logits, in {tally.examples.logits.working_dtype}."
    )
    layout.caption_justify = "left"
    bounds = [f"below {LEADS[0]}", *(f"{low} to {high}" for low, high in pairwise(LEADS))]
    for name, counts in zip([*bounds, f"{LEADS[-1]} and above"], tally.table.tolist(), strict=True):
        layout.add_row(name, *(f"{count:,}" if count else "-" for count in counts))
    return layout


def _worst(tally: Tally, exact: list[float]) -> Table:
    layout = table("Worst examples", "index", "label", "lead", "usual loss", "exact loss")
    for loss, value in zip(tally.worst, exact, strict=True):
        numbers = (f"{loss.lead:.4g}", f"{loss.usual:.3e}" if loss.usual else "0", f"{value:.3e}")
        layout.add_row(place(tally, loss.example), f"{loss.example.label:,}", *numbers)
    return layout


def document(tally: Tally, exact: list[float]) -> dict[str, Any]:
    """Return what a JSON document says; `exact` has the losses of the worst examples."""
    logits, labels, offset = tally.examples.logits, tally.examples.labels, tally.offset
    usual, ours = map(number, tally.mean_losses)
    bounds = [None, *LEADS, None]
    return {
        "version": __version__,
        "logits": stored_item(logits.stored),
        "labels": stored_item(labels),
        "axis": logits.axis,
        "dtype": logits.dtype,
        "ignore_index": tally.ignore_index,
        "examples": logits.count,
        "classes": logits.classes,
        "measured": tally.totals["examples"],
        "mean_loss": {"usual": usual, "stable_softmax": ours, "error_share": number(tally.error_share)},
        "leads": [
            {"from": low, "to": high, **dict(zip(COUNTS, counts, strict=True))}
            for low, high, counts in zip(bounds[:-1], bounds[1:], tally.table.tolist(), strict=True)
        ],
        "found": {
            kind: {
                "count": found.count,
                "first": [{"index": logits.index(at), "label": label} for at, label in found.first],
            }
            for kind, found in tally.found.items()
        },
        "largest_logits": {
            "smallest": number(offset.smallest),
            "mean": offset.total / offset.rows if offset.rows else None,
            "largest": number(offset.largest),
            "spacing": offset.spacing,
            "spacing_dtype": logits.coarsest_dtype,
            "coarse_rows": offset.coarse_rows,
        },
        "worst": [_worst_item(tally, loss, value) for loss, value in zip(tally.worst, exact, strict=True)],
        "findings": findings(tally),
        "notes": notes(tally),
        "advice": advice(tally),
    }


def _worst_item(tally: Tally, loss: Loss, exact: float) -> dict[str, Any]:
    return {
        "index": tally.examples.logits.index(loss.example.position),
        "label": loss.example.label,
        "lead": number(loss.lead),
        "usual": number(loss.usual),
        "exact": exact,
    }
