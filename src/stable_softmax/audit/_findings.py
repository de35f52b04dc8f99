"""What the counts come to, in words."""

from enum import StrEnum

from stable_softmax.audit._examples import Example
from stable_softmax.audit._tally import COARSE, Tally
from stable_softmax.command_line.found import TOLERANCE, gaps, probabilities_in_words

_TROUBLE = {
    "nan": "rows with NaN",
    "positive_infinity": "rows with +inf",
    "all_negative_infinity": "rows of nothing but -inf",
    "infinite_loss": "examples with an infinite loss",
}
_NOTES = {
    "ignored": "ignored examples",
    "some_negative_infinity": "rows with some -inf, which are probabilities of 0",
    "loss_below_range": "losses that are too small for the dtype, in any form",
}


def findings(tally: Tally) -> list[str]:
    """Say what is wrong, one item each."""
    return [*_trouble(tally), *_lost(tally), *_coarse(tally)]


class FailOn(StrEnum):
    """The findings that make a command fail."""

    any = "any"
    inputs = "inputs"
    none = "none"


def failing(tally: Tally, fail_on: FailOn) -> list[str]:
    """Return the findings that make the command fail: those of inputs no form of the loss mends."""
    chosen = {FailOn.any: findings, FailOn.inputs: _trouble}
    return chosen[fail_on](tally) if fail_on in chosen else []


def notes(tally: Tally) -> list[str]:
    """Say what is worth knowing, and not wrong."""
    labels = tally.examples.labels
    said = [f"{words}: {tally.found[kind].count:,}" for kind, words in _NOTES.items() if tally.found[kind].count]
    return [*said, *gaps("labels", labels)]


def advice(tally: Tally) -> str:
    """Say in one sentence what to do."""
    if _trouble(tally):
        return "Look first for what is wrong with logits and labels themselves: no form of the loss mends that."
    if _lost(tally) and tally.found["loss_below_range"].count:
        return "Convert the logits to float64 for stable_softmax.softmax_crossentropy_with_logits, which has the range."
    if _lost(tally):
        return "Compute the loss with stable_softmax.softmax_crossentropy_with_logits, which keeps what is lost here."
    if _coarse(tally):
        return "Mend the logits before the loss: no form of it brings back what rounding has taken from them."
    if not tally.totals["examples"]:
        return "There is no loss to measure."
    return "The usual form serves for these logits."


def place(tally: Tally, example: Example) -> str:
    """Return the index of an example as one writes it."""
    return tally.examples.logits.place(example.position)


def _trouble(tally: Tally) -> list[str]:
    """Say which examples have no loss."""
    outside = tally.found["label_out_of_range"]
    logits = tally.examples.logits
    said = gaps("logits", logits.stored)
    said += probabilities_in_words("rows", tally.found["like_probabilities"].count, tally.offset.rows)
    if outside.count:
        several = ", ".join(f"{example.label} at {place(tally, example)}" for example in outside.first[:3])
        said.append(f"labels outside of [0, {logits.classes}): {outside.count:,} ({several}){_hint(tally)}")
    once_rounded = logits.once_rounded()
    for kind, words in _TROUBLE.items():
        if (found := tally.found[kind]).count:
            said.append(f"{words}{once_rounded}: {found.count:,} (first at {place(tally, found.first[0])})")
    return said


def _hint(tally: Tally) -> str:
    """Say what may be meant, if all labels that are out of range are one number."""
    number, *others = {example.label for example in tally.found["label_out_of_range"].first}
    if others:
        return ""
    if number == tally.examples.logits.classes:
        return "; they count from 0: subtract 1 from all that count from 1"
    return "" if tally.ignore_index is not None else f"; if that is padding, --ignore-index {number} leaves it out"


def _lost(tally: Tally) -> list[str]:
    """Say what the usual form loses."""
    totals = tally.totals
    return [
        f"{words} off by more than {TOLERANCE * 100:.0f} %: {totals[f'{name}_off']:,}, "
        f"of which 0: {totals[f'{name}_zero']:,}"
        for name, words in (("loss", "usual loss"), ("gradient", "usual gradient at the label"))
        if totals[f"{name}_off"]
    ]


def _coarse(tally: Tally) -> list[str]:
    """Say whether the dtype is too coarse for the logits."""
    offset, dtype = tally.offset, tally.examples.logits.coarsest_dtype
    if not offset.coarse_rows:
        return []
    return [
        f"rows where {dtype} numbers at the largest logit are more than {COARSE} apart: {offset.coarse_rows:,}; "
        f"compute the last layer in a wider dtype, or subtract the row's largest logit before rounding to {dtype}"
    ]
