"""The mathematics: one row of logits `z` at a time, for all rows at once.

With `m = max z`, `d = z - m` and `e = exp(d)`, every formula below is built from sums of non-negative terms, so
nothing cancels. The trick throughout is to leave one entry out of a sum, because adding it to a tiny rest rounds the
rest away: the maximum's entry for the logarithm of the sum, the label's entry for the loss.

Softmax, loss and gradient need no more than numbers `w` in proportion to the probabilities.

The functions take logits of a real floating dtype, of at least single precision, and keep each reduced axis with
length 1. A row with a NaN or without a finite maximum gives NaN throughout, except from `logsumexp`.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from stable_softmax._libraries import is_eager
from stable_softmax._libraries._operations import computed, computed_in_place, is_any, limit, nan_where
from stable_softmax._libraries._reductions import maximum_along, softmax_of
from stable_softmax._maths import _labels
from stable_softmax._maths._differences import difference, least_shift
from stable_softmax._maths._sums import accurate_sum, sum_without_maximum


def softmax(xp: ModuleType, logits: Any, axes: tuple[int, ...], into: Any = None) -> Any:
    """Return `w / sum(w)`."""
    weights = _weights(xp, logits, axes, into)
    return _quotient(xp, weights.values, accurate_sum(xp, weights.values, axes), weights.shift)


def log_softmax(xp: ModuleType, logits: Any, axes: tuple[int, ...], into: Any = None) -> Any:
    """Return `d - log(sum(e))`."""
    shifted = difference(xp, logits, maximum_along(xp, logits, axes), into)
    exponentials = _fused_exponentials(xp, logits, axes)
    log_total = _log_total(xp, xp.exp(shifted) if exponentials is None else exponentials, axes)
    if not is_eager(xp, shifted):
        return shifted - log_total
    shifted -= log_total
    return shifted


def logsumexp(xp: ModuleType, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return `m + log(sum(e))`, and `m` itself where that is infinite."""
    maximum = maximum_along(xp, logits, axes)
    # The logarithm is added to the maximum: only beside a small one do all its digits count.
    small = xp.abs(maximum) < 1
    others = sum_without_maximum(xp, _exponentials_below(xp, logits, maximum, axes), axes, small)
    return xp.where(xp.isinf(maximum), maximum, maximum + _for_each_row(xp, xp.log1p, others, axes=axes))


def maximum_and_others(xp: ModuleType, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Return `m` and the sum of `e` without that of one maximum; 0 for a row of nothing but -inf."""
    maximum = maximum_along(xp, logits, axes)
    others = sum_without_maximum(xp, _exponentials_below(xp, logits, maximum, axes), axes)
    return maximum, nan_where(xp, maximum == xp.inf, xp.where(maximum == -xp.inf, 0, others))


def crossentropy(xp: ModuleType, logits: Any, class_ids: Any, axis: int) -> Any:
    """Return `log(sum(w) / w_y)` as `log1p(rest / w_y)`, where `rest` is the sum without the label."""
    return _loss(xp, _split_at_label(xp, logits, class_ids, axis), axis)


def crossentropy_gradient(
    xp: ModuleType, logits: Any, class_ids: Any, axis: int, divisor: int = 1, into: Any = None
) -> Any:
    """Return the gradient of the loss, divided by `divisor`: `w_j / sum(w)`, and at the label `-rest / sum(w)`."""
    return _gradient(xp, _split_at_label(xp, logits, class_ids, axis, into), axis, divisor)


def crossentropy_and_gradient(
    xp: ModuleType, logits: Any, class_ids: Any, axis: int, divisor: int = 1, into: Any = None
) -> tuple[Any, Any]:
    """Return both from one evaluation of the exponentials."""
    split = _split_at_label(xp, logits, class_ids, axis, into)
    loss = _loss(xp, split, axis)  # before the gradient takes the weights' place
    return loss, _gradient(xp, split, axis, divisor)


def variance(xp: ModuleType, logits: Any, axes: tuple[int, ...], into: Any = None) -> Any:
    """Return `p * (1 - p)`, where `1 - p` of the largest entry is the sum of the others."""
    (axis,) = axes
    leaders = xp.argmax(logits, axis=axis, keepdims=True)
    split = _split_at_label(xp, logits, leaders, axis, into)
    sides = xp.abs(_gradient(xp, split, axis, 1))  # `1 - p` at the leader, and `p` elsewhere
    largest = _quotient(xp, split.weight, split.rest + split.weight, split.shift)
    return sides * _labels.with_entry(xp, 1 - sides, split.place, axis, largest)


class _Weights(NamedTuple):
    """Numbers in proportion to the probabilities of each row."""

    values: Any
    #: `z - log(w)`; None where the library itself gives the probabilities, whose sum is 1 but for rounding.
    shift: Any


class _Split(NamedTuple):
    """The weights of rows, with the label's apart."""

    #: With 0 at the label.
    others: Any
    #: Their sum.
    rest: Any
    #: The label's.
    weight: Any
    #: Its logarithm, where it is asked for.
    log_weight: Callable[[], Any]
    place: _labels.Place
    #: As that of the weights.
    shift: Any


def _weights(xp: ModuleType, logits: Any, axes: tuple[int, ...], into: Any = None) -> _Weights:
    """Return what takes the least time: the library's own probabilities in one pass, or else exponentials.

    These need no shift, and so no pass for it, where values can be read and fit.
    """
    probabilities = softmax_of(xp, logits, axes, into)
    if probabilities is not None:
        return _Weights(probabilities, None)
    shift = maximum_along(xp, logits, axes)
    if not is_eager(xp, logits):
        return _Weights(xp.exp(difference(xp, logits, shift)), shift)
    shift = least_shift(xp, shift)
    if is_any(xp, shift):
        return _Weights(computed_in_place(xp, xp.exp, difference(xp, logits, shift, into)), shift)
    return _Weights(computed(xp.exp, logits, into=into), shift)


def _split_at_label(xp: ModuleType, logits: Any, class_ids: Any, axis: int, into: Any = None) -> _Split:
    place = _labels.place_of(xp, logits, class_ids, axis)
    weights = _weights(xp, logits, (axis,), into)

    def log_weight() -> Any:
        # Asked for where the label's weight is next to nothing, so that the largest is among the others.
        shift = weights.shift
        if shift is None:
            shift = maximum_along(xp, logits, (axis,)) - xp.log(maximum_along(xp, others, (axis,)))
        return difference(xp, _labels.entry(xp, logits, place, axis), shift)

    # Compilers pick an entry of the logits, which are there, more easily than of their exponentials.
    is_there = is_eager(xp, logits) or weights.shift is None
    weight = _labels.entry(xp, weights.values, place, axis) if is_there else xp.exp(log_weight())
    others = _labels.with_entry(xp, weights.values, place, axis, 0)
    return _Split(others, accurate_sum(xp, others, (axis,)), weight, log_weight, place, weights.shift)


def _loss(xp: ModuleType, split: _Split, axis: int) -> Any:
    tiny = 4 * limit(xp, split.weight.dtype, "smallest_normal")
    if is_eager(xp, split.weight) and not is_any(xp, split.weight < tiny * (split.rest + split.weight)):
        return xp.log1p(split.rest / split.weight)

    def loss(rest: Any, weight: Any, log_weight: Any) -> Any:
        total = rest + weight
        is_tiny = weight < tiny * total
        ratio = xp.where(is_tiny, total - 1, rest / xp.where(is_tiny, 1, weight))
        return xp.log1p(ratio) - xp.where(is_tiny, log_weight, 0)

    return _for_each_row(xp, loss, split.rest, split.weight, split.log_weight(), axes=(axis,))


def _gradient(xp: ModuleType, split: _Split, axis: int, divisor: int) -> Any:
    numerators = _labels.with_entry(xp, split.others, split.place, axis, -split.rest)
    return _quotient(xp, numerators, split.rest + split.weight, split.shift, divisor)


def _quotient(xp: ModuleType, numerators: Any, total: Any, shift: Any, divisor: int = 1) -> Any:
    """Return what the numerators are of `divisor` times the sum of the weights, which are shifted like this."""
    if shift is None:
        # The library's own sum may add one term after another, and is then off by much for all terms of a row.
        total = xp.where(xp.abs(total - 1) <= 8 * limit(xp, total.dtype, "eps"), 1, total)
        if divisor == 1 and is_eager(xp, total) and not is_any(xp, total != 1):
            return numerators
    return _over(xp, numerators, total if divisor == 1 else total * divisor)


def _over(xp: ModuleType, numerators: Any, denominators: Any) -> Any:
    """Return the quotient, in the place of the numerators where nothing but this code has them."""
    if not is_eager(xp, numerators):
        return numerators / denominators
    numerators /= denominators
    return numerators


def _fused_exponentials(xp: ModuleType, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return `e` from the library's own probabilities, if it has them in one pass."""
    probabilities = softmax_of(xp, logits, axes)
    return None if probabilities is None else _over(xp, probabilities, maximum_along(xp, probabilities, axes))


def _exponentials_below(xp: ModuleType, logits: Any, maximum: Any, axes: tuple[int, ...]) -> Any:
    """Return `e`; any numbers in rows whose maximum is infinite, since what is made of them is left out in the end."""
    exponentials = _fused_exponentials(xp, logits, axes)
    if exponentials is not None:
        return exponentials
    if is_eager(xp, logits):
        return computed_in_place(xp, xp.exp, difference(xp, logits, maximum))
    # Debuggers report a NaN that is left out. No exponent of a finite maximum is at the bound, where `clip` halves
    # derivatives.
    return xp.exp(xp.clip(difference(xp, logits, xp.where(xp.isinf(maximum), 0, maximum)), None, 1.0))


def _log_total(xp: ModuleType, exponentials: Any, axes: tuple[int, ...], small: Any = True) -> Any:
    """Return `log(sum(e))`, accurate also where all but one entry are tiny, if small results are to be."""
    return _for_each_row(xp, xp.log1p, sum_without_maximum(xp, exponentials, axes, small), axes=axes)


def _for_each_row(xp: ModuleType, function: Callable[..., Any], *values: Any, axes: tuple[int, ...]) -> Any:
    """Return the function of values that have one entry for each row."""
    if is_eager(xp, values[0]):
        return function(*values)
    # Compilers vectorize along the last axis, which has length 1 here.
    result = function(*(xp.squeeze(value, axis=axes) for value in values))
    return xp.reshape(result, values[0].shape)
