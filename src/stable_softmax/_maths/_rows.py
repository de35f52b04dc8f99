"""The mathematics: one row of logits `z` at a time, for all rows at once.

With `m = max z`, `d = z - m` and `e = exp(d)`, every formula below is built from sums of non-negative terms, so
nothing cancels. The trick throughout is to leave an entry that is exactly 1 out of a sum, because adding 1 to a
tiny sum rounds the sum away: the maximum's entry for the logarithm of the sum, the label's entry for the loss.

The functions take logits of a real floating dtype, of at least single precision, and keep each reduced axis with
length 1. A row with a NaN or without a finite maximum gives NaN throughout, except from `logsumexp`.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from stable_softmax._libraries import is_eager
from stable_softmax._maths import _labels
from stable_softmax._maths._differences import difference
from stable_softmax._maths._sums import accurate_sum, sum_without_maximum


def softmax(xp: ModuleType, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return `e / sum(e)`."""
    exponentials = xp.exp(_shifted(xp, logits, axes))
    return _quotient(xp, exponentials, accurate_sum(xp, exponentials, axes))


def log_softmax(xp: ModuleType, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return `d - log(sum(e))`."""
    shifted = _shifted(xp, logits, axes)
    log_total = _log_total(xp, shifted, axes)
    if not is_eager(xp, shifted):
        return shifted - log_total
    shifted -= log_total
    return shifted


def logsumexp(xp: ModuleType, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return `m + log(sum(e))`, and `m` itself where that is infinite."""
    maximum = xp.max(logits, axis=axes, keepdims=True)
    infinite = xp.isinf(maximum)
    if is_eager(xp, logits):
        shifted = difference(xp, logits, maximum)
    else:  # where debuggers report a NaN that is left out in the end
        shifted = xp.clip(difference(xp, logits, xp.where(infinite, 0, maximum)), max=0)
    return xp.where(infinite, maximum, maximum + _log_total(xp, shifted, axes))


def crossentropy(xp: ModuleType, logits: Any, class_ids: Any, axis: int) -> Any:
    """Return `log(sum(e)) - d_y` as `log1p(rest + (e_y - 1)) - d_y`, of which no term is negative."""
    _, rest, label_shifted, _ = _split_at_label(xp, logits, class_ids, axis)
    return _loss(xp, rest, label_shifted, axis)


def crossentropy_gradient(xp: ModuleType, logits: Any, class_ids: Any, axis: int, divisor: int = 1) -> Any:
    """Return the gradient of the loss, divided by `divisor`: `e_j / sum(e)`, and at the label `-rest / sum(e)`."""
    others, rest, label_shifted, place = _split_at_label(xp, logits, class_ids, axis)
    return _gradient(xp, others, rest, label_shifted, place, axis, divisor)


def crossentropy_and_gradient(
    xp: ModuleType, logits: Any, class_ids: Any, axis: int, divisor: int = 1
) -> tuple[Any, Any]:
    """Return both from one evaluation of the exponentials."""
    others, rest, label_shifted, place = _split_at_label(xp, logits, class_ids, axis)
    return _loss(xp, rest, label_shifted, axis), _gradient(xp, others, rest, label_shifted, place, axis, divisor)


def _loss(xp: ModuleType, rest: Any, label_shifted: Any, axis: int) -> Any:
    def loss(rest: Any, label_shifted: Any) -> Any:
        return xp.log1p(rest + xp.expm1(label_shifted)) - label_shifted

    return _for_each_row(xp, loss, rest, label_shifted, axes=(axis,))


def _gradient(
    xp: ModuleType, others: Any, rest: Any, label_shifted: Any, place: _labels.Place, axis: int, divisor: int
) -> Any:
    def denominator(rest: Any, label_shifted: Any) -> Any:
        return (rest + xp.exp(label_shifted)) * divisor

    numerators = _labels.with_entry(xp, others, place, axis, -rest)
    return _quotient(xp, numerators, _for_each_row(xp, denominator, rest, label_shifted, axes=(axis,)))


def _quotient(xp: ModuleType, numerators: Any, denominators: Any) -> Any:
    """Return the quotient, in the place of the numerators where nothing but this code has them."""
    if not is_eager(xp, numerators):
        return numerators / denominators
    numerators /= denominators
    return numerators


def _shifted(xp: ModuleType, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return `d`: at most 0, and exactly 0 at the maximum."""
    return difference(xp, logits, xp.max(logits, axis=axes, keepdims=True))


def _log_total(xp: ModuleType, shifted: Any, axes: tuple[int, ...]) -> Any:
    """Return `log(sum(e))`, accurate also where all but one entry are tiny."""
    return _for_each_row(xp, xp.log1p, sum_without_maximum(xp, xp.exp(shifted), axes), axes=axes)


def _for_each_row(xp: ModuleType, function: Callable[..., Any], *values: Any, axes: tuple[int, ...]) -> Any:
    """Return the function of values that have one entry for each row."""
    if is_eager(xp, values[0]):
        return function(*values)
    # Compilers vectorize along the last axis, which has length 1 here.
    result = function(*(xp.squeeze(value, axis=axes) for value in values))
    return xp.reshape(result, values[0].shape)


def _split_at_label(xp: ModuleType, logits: Any, class_ids: Any, axis: int) -> tuple[Any, Any, Any, _labels.Place]:
    """Return `e` with 0 at the label, the sum of that, `d` at the label, and the label's place."""
    place = _labels.place_of(xp, logits, class_ids, axis)
    shifted = _shifted(xp, logits, (axis,))
    others = _labels.with_entry(xp, xp.exp(shifted), place, axis, 0)
    return others, accurate_sum(xp, others, (axis,)), _labels.entry(xp, shifted, place, axis), place
