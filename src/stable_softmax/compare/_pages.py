"""The comparison on paper: text and JSON."""

import math
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stable_softmax import __version__
from stable_softmax.command_line.found import TOLERANCE
from stable_softmax.command_line.pages import itemized, number, stored_item, table
from stable_softmax.compare._check import Checked
from stable_softmax.compare._findings import advice, findings, notes
from stable_softmax.compare._tally import Difference, Prediction, Summary, Tally, summary

_NAMES = ("examples", "mean", "median", "90th percentile", "99th percentile", "99.9th percentile", "largest")


def text(tally: Tally, check: Checked) -> RenderableType:
    """Lay out the comparison."""
    parts: list[RenderableType] = [_inputs(tally), Text()]
    if tally.compared:
        parts += [_divergences(tally), Text(), _same_class(tally), *_check(check), Text()]
    parts += [*itemized("Findings", findings(tally)), *itemized("Notes", notes(tally))]
    if tally.compared:
        parts += [_worst(tally), Text()]
    return Group(*parts, Text(advice(tally), style="bold"))


def document(tally: Tally, check: Checked) -> dict[str, Any]:
    """Return what a JSON document says."""
    pair = tally.pair
    return {
        "version": __version__,
        "logits": stored_item(pair.logits.stored),
        "reference_logits": stored_item(pair.reference.stored),
        "where": stored_item(pair.where) if pair.where else None,
        "axis": pair.logits.axis,
        "dtype": pair.logits.dtype,
        "working_dtype": pair.working_dtype,
        "examples": pair.logits.count,
        "classes": pair.logits.classes,
        "compared": tally.compared,
        "kl": _summary_item(summary(tally.kl)),
        "js": _summary_item(summary(tally.js)),
        "usual_kl": _summary_item(summary(tally.usual)) | {"negative": tally.usual_negative, "off": tally.usual_off},
        "same_class": {"count": tally.same_class, "share": number(_share(tally))},
        "found": {
            kind: {"count": found.count, "first": [pair.logits.index(at) for at in found.first]}
            for kind, found in tally.found.items()
        },
        "worst": [_worst_item(tally, one) for one in tally.worst],
        "checked": {
            "examples": check.examples,
            "largest_relative_error": {"stable_softmax": number(check.ours), "usual": number(check.usual)},
        },
        "findings": findings(tally),
        "notes": notes(tally),
        "advice": advice(tally),
    }


def _inputs(tally: Tally) -> Text:
    pair = tally.pair
    return Text(
        f"{pair.logits.stored.name}: logits, {pair.logits.dtype_in_words()}\n"
        f"{pair.reference.stored.name}: reference logits, {pair.reference.dtype_in_words()}\n"
        f"{pair.logits.classes:,} classes, {pair.logits.count:,} examples, of which {tally.compared:,} are compared"
    )


def _divergences(tally: Tally) -> Table:
    """Lay out means, percentiles and what is wrong with the usual form."""
    layout = table(
        f"Divergences in nats, computed in {tally.pair.working_dtype}",
        *("", "KL(reference || logits)", "JS", "usual form of KL"),
    )
    layout.columns[0].justify = "left"
    columns = [summary(values) for values in (tally.kl, tally.js, tally.usual)]
    layout.add_row(_NAMES[0], *(f"{column.examples:,}" for column in columns))
    for name, *values in zip(_NAMES[1:], *(column[1:] for column in columns), strict=True):
        layout.add_row(name, *map(_figure, values))
    layout.add_row("negative", "", "", f"{tally.usual_negative:,}")
    layout.add_row(f"off by more than {TOLERANCE * 100:.0f} %", "", "", f"{tally.usual_off:,}")
    layout.caption = "Usual form: sum(q * (log q - log p)), q of the reference, p of the logits."
    layout.caption_justify = "left"
    return layout


def _same_class(tally: Tally) -> Text:
    share = math.floor(_share(tally) * 1e4) / 100  # 100 % is all of them
    return Text(f"Most probable class: the same in {tally.same_class:,} of {tally.compared:,} examples, {share:.2f} %")


def _check(check: Checked) -> list[RenderableType]:
    if not check.examples:
        return []
    several = f"{check.examples} examples from the smallest KL to the largest"
    where = several if check.examples > 1 else "the example with the smallest KL above 0"
    errors = f"at most {check.ours:.2g}, and {check.usual:.2g} in the usual form"
    return [Text(f"Relative error of KL by exact arithmetic, in {where}: {errors}")]


def _worst(tally: Tally) -> Table:
    layout = table("Most different examples", "index", "KL", "JS", "reference", "prob.", "logits", "prob.")
    layout.caption = "Most probable classes and their probabilities."
    layout.caption_justify = "left"
    for one in tally.worst:
        place = tally.pair.logits.place(one.position)
        layout.add_row(place, _figure(one.kl), _figure(one.js), *_guess(one.reference), *_guess(one.prediction))
    return layout


def _guess(prediction: Prediction) -> tuple[str, str]:
    return f"{prediction.class_id:,}", f"{prediction.probability:.4f}"


def _figure(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.4e}" if value else "0"


def _share(tally: Tally) -> float:
    return tally.same_class / tally.compared if tally.compared else math.nan


def _summary_item(values: Summary) -> dict[str, Any]:
    return {name: number(value) for name, value in values._asdict().items()}


def _worst_item(tally: Tally, one: Difference) -> dict[str, Any]:
    return {
        "index": tally.pair.logits.index(one.position),
        "kl": number(one.kl),
        "js": one.js,
        "logits": {"class": one.prediction.class_id, "probability": one.prediction.probability},
        "reference_logits": {"class": one.reference.class_id, "probability": one.reference.probability},
    }
