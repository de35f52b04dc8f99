"""What parts of rows come to, and what two such parts do together.

A part is any named tuple with the fields of `Part`, with one entry for each row; the last two may be None. The tail is
the sum of `exp(z - unit)` over all but one of the maximal entries, and `tail_error` what rounding has left out of it.
The unit is the maximum, rounded down to a multiple of 4: parts whose units differ are rescaled, which rounds, but
in a row no oftener than every fourth nat; others are only added. The lag is by how much the label's logit lies below
the maximum, where the part has the label: how often it has is the weight, 1 or 0. Beside it, there may be lags of other
targets: sums of `target * (maximum - z)`, whose weights are the sums of the targets.

Nothing here subtracts what has most digits in common, nor do the derivatives that autodiff finds. That is why the lag
is carried, and not the label's logit: the derivative of the loss with respect to that is -1, and cancels with another.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from stable_softmax._libraries._differentiable import Differentiable
from stable_softmax._libraries._operations import nan_where, without_gradient
from stable_softmax._libraries._reductions import maximum_along
from stable_softmax._maths import _labels, _rows
from stable_softmax._maths._differences import difference
from stable_softmax._maths._products import product
from stable_softmax._maths._sums import sum_of_products

_STEP = 4


class Part(NamedTuple):
    """What some of the classes come to."""

    maximum: Any
    tail: Any
    tail_error: Any
    lag: Any
    weight: Any


def without_label(xp: ModuleType, logits: Any, axes: tuple[int, ...]) -> Part:
    """Return the part that logits are of their rows, whichever the labels are."""
    if logits.shape[axes[0]] == 0:
        nothing = xp.sum(logits, axis=axes, keepdims=True)
        return Part(nothing - xp.inf, nothing, nothing, None, None)
    maximum, others = _rows.maximum_and_others(xp, logits, axes)
    tail = others * xp.exp(_finite(xp, maximum) - _unit(xp, maximum))
    return Part(maximum, tail, xp.zeros_like(tail), None, None)


def statistics(xp: ModuleType, logits: Any, class_ids: Any, axes: tuple[int, ...]) -> tuple[Any, Any, Any, Any]:
    """Return maximum, tail, lag and weight of the part that logits are of their rows."""
    if logits.shape[axes[0]] == 0:
        nothing = xp.zeros_like(class_ids, dtype=logits.dtype)
        return nothing - xp.inf, nothing, nothing, nothing
    return _of_classes(xp, logits, class_ids, axis=axes[0])


def merged(xp: ModuleType, first: Any, second: Any) -> Any:
    """Return what two parts come to."""
    maximum = xp.maximum(first.maximum, second.maximum)
    unit = _unit(xp, maximum)
    # Of the two maximal entries, one joins the tail.
    joining = _weight(xp, xp.minimum(first.maximum, second.maximum), unit)
    tail, error = joining, xp.zeros_like(joining)
    for part in (first, second):
        factor = _rescaling(xp, part, unit)
        tail, lost = _sum_and_error(tail, factor * part.tail)
        error = error + (factor * part.tail_error + lost)
    merged_part = first._replace(maximum=maximum, tail=tail, tail_error=error)
    if first.lag is None:
        return merged_part
    lag = _added(xp, _lag_below(xp, first, maximum), _lag_below(xp, second, maximum))
    return merged_part._replace(lag=lag, weight=first.weight + second.weight)


def merged_over(xp: ModuleType, part: Any, maximum: Callable[[Any], Any], total: Callable[[Any], Any]) -> Any:
    """Return what the parts of all processes come to, by what returns the maximum, and the sum, over them."""
    own = without_gradient(xp, part.maximum)
    peak = maximum(own)
    leads = part.maximum == peak
    unit = _unit(xp, peak)
    tail = _rescaling(xp, part, unit) * (part.tail + part.tail_error)
    joining = xp.where(leads, 0, _weight(xp, part.maximum, unit))
    # 0, but for its derivative, which the maximum over processes may not have.
    slope = xp.where(leads & xp.isfinite(own), part.maximum - _finite(xp, own), 0)
    terms = [tail + joining, xp.astype(leads, own.dtype), slope]
    if part.lag is not None:
        terms += [_lag_below(xp, part, peak), part.weight, xp.where(leads, 0, part.weight)]
    tail, leaders, slope, *label = _unstacked(total(xp.stack(terms)))
    leaders = xp.where(leaders < 1, 1, leaders)  # none, where all is NaN
    slope = slope / leaders
    tail = tail + (leaders - 1) * _weight(xp, peak + slope, unit)
    whole = part._replace(maximum=peak + slope, tail=tail, tail_error=xp.zeros_like(tail))
    if part.lag is None:
        return whole
    lag, weight, below = label
    return whole._replace(lag=lag + below * slope, weight=weight)


def logsumexp(xp: ModuleType, part: Any) -> Any:
    """Return `m + log1p(R)`, and `m` itself where that is infinite."""
    log_total = log_total_of(xp, part)
    return xp.where(xp.isinf(part.maximum), part.maximum, _finite(xp, part.maximum) + log_total)


def crossentropy(xp: ModuleType, part: Any) -> Any:
    """Return `log1p(R) + lag`, and NaN without a label, or without a finite maximum."""
    loss = log_total_of(xp, part) + part.lag
    return nan_where(xp, (part.weight != 1) | ~xp.isfinite(part.maximum), loss)


def log_total_of(xp: ModuleType, part: Any) -> Any:
    """Return `log1p(R)`."""
    return xp.log1p(rest_of(xp, part))


def rest_of(xp: ModuleType, part: Any) -> Any:
    """Return `R`, the sum of `exp(z - m)` over all but one maximal entry."""
    scale = xp.exp(_unit(xp, part.maximum) - _finite(xp, part.maximum))
    return scale * (part.tail + part.tail_error)


def _unit(xp: ModuleType, maximum: Any) -> Any:
    return _STEP * xp.floor(_finite(xp, maximum) / _STEP)


def _weight(xp: ModuleType, logits: Any, unit: Any) -> Any:
    """Return `exp(z - unit)` of maximal logits: at most so much, unless another is infinite."""
    return xp.exp(xp.clip(difference(xp, logits, unit), max=_STEP))


def _finite(xp: ModuleType, values: Any) -> Any:
    """Return the values, with 0 for those that are not finite."""
    return xp.where(xp.isfinite(values), values, 0)


def _rescaling(xp: ModuleType, part: Any, unit: Any) -> Any:
    """Return what a part's tail is multiplied by: exactly 1 where its unit stays."""
    return xp.exp(xp.clip(difference(xp, _unit(xp, part.maximum), unit), max=0))


def _lag_below(xp: ModuleType, part: Any, maximum: Any) -> Any:
    """Return by how much the label's logit lies below the maximum of all parts; 0 where this one has no label."""
    stays = (part.weight == 0) | (part.maximum >= maximum)
    below, above = (xp.where(stays, 0, _finite(xp, values)) for values in (part.maximum, maximum))
    return _added(xp, part.lag, product(xp, part.weight, -difference(xp, below, above)))


def _added(xp: ModuleType, first: Any, second: Any) -> Any:
    """Return the sum of positive values, infinity where it overflows: NumPy would warn."""
    overflows = first / 2 + second / 2 > xp.finfo(first.dtype).max / 2
    return xp.where(overflows, xp.inf, xp.where(overflows, 0, first) + xp.where(overflows, 0, second))


def _sum_and_error(first: Any, second: Any) -> tuple[Any, Any]:
    """Return the rounded sum, and what it lacks (Knuth 1997, The Art of Computer Programming 2, theorem 4.2.2B)."""
    total = first + second
    shared = total - first
    return total, (first - (total - shared)) + (second - shared)


def _unstacked(stacked: Any) -> list[Any]:
    return [stacked[i, ...] for i in range(stacked.shape[0])]


def _statistics(xp: ModuleType, logits: Any, class_ids: Any, axis: int) -> tuple[Any, Any, Any, Any]:
    maximum, tail, *_ = without_label(xp, logits, (axis,))
    has_label = _labels.in_range(class_ids, logits.shape[axis])
    place = _labels.place_of(xp, logits, xp.where(has_label, class_ids, 0), axis)
    label = xp.where(has_label, _labels.entry(xp, logits, place, axis), 0)
    lag = xp.where(has_label, -difference(xp, label, xp.where(has_label, _finite(xp, maximum), 0)), 0)
    return maximum, tail, lag, xp.astype(has_label, logits.dtype)


def _slopes(xp: ModuleType, logits: Any, class_ids: Any, axis: int) -> tuple[Any, Any, Any]:
    """Return the derivatives of maximum, tail and lag."""
    maximum = maximum_along(xp, logits, (axis,))
    leader = _labels.is_entry(xp, logits, xp.argmax(logits, axis=axis, keepdims=True), axis)
    shifted = difference(xp, logits, xp.where(xp.isfinite(maximum), _unit(xp, maximum), 0))
    terms = xp.where(leader, 0, xp.exp(shifted))
    leader = xp.astype(leader & xp.isfinite(maximum), logits.dtype)
    has_label = _labels.in_range(class_ids, logits.shape[axis])
    label = xp.astype(_labels.is_entry(xp, logits, class_ids, axis), logits.dtype)
    return leader, terms, xp.astype(has_label, logits.dtype) * leader - label


def _statistics_jvp(xp: ModuleType, vector: Any, logits: Any, class_ids: Any, axis: int) -> tuple[Any, Any]:
    values = _of_classes(xp, logits, class_ids, axis=axis)
    slopes = [sum_of_products(xp, slope, vector, (axis,)) for slope in _slopes(xp, logits, class_ids, axis)]
    return values, (*slopes, xp.zeros_like(values[3]))


def _statistics_vjp(xp: ModuleType, cotangents: tuple[Any, ...], logits: Any, class_ids: Any, axis: int) -> Any:
    leader, terms, beside_label = _slopes(xp, logits, class_ids, axis)
    of_maximum, of_tail, of_lag, _ = cotangents
    return of_maximum * leader + of_tail * terms + of_lag * beside_label


_of_classes = Differentiable(_statistics, _statistics_jvp, _statistics_vjp)
