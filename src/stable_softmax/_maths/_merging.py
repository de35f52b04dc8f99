"""What parts of rows come to, and what two such parts do together.

A part is any named tuple with the first five fields of `Part`, with one entry for each row; lag and weight may be None.
The tail is
the sum of `exp(z - unit)` over all but one of the maximal entries, and `tail_error` what rounding has left out of it.
The unit is the maximum, rounded down to a multiple of 4: parts whose units differ are rescaled, which rounds, but
in a row no oftener than every fourth nat; others are only added. The lag is by how much the label's logit lies below
the maximum, where the part has the label: how often it has is the weight, 1 or 0. Beside it, there may be lags of other
targets: sums of `target * (maximum - z)`, whose weights are the sums of the targets.

Nothing here subtracts what has most digits in common, nor do the derivatives that autodiff finds. That is why the lag
is carried, and not the label's logit: the derivative of the loss with respect to that is -1, and cancels with another.

One of two parts leads, also where their maxima are equal. The results do not depend on which one. Derivatives are right
as long as everything here has that of the same maximum: `xp.maximum` would give each of two equal ones half of its
derivative, and second derivatives would be wrong.
"""

from types import ModuleType
from typing import Any, NamedTuple

from stable_softmax._libraries._differentiable import Differentiable
from stable_softmax._libraries._operations import nan_where, without_gradient
from stable_softmax._libraries._reductions import maximum_along
from stable_softmax._maths import _labels, _rows
from stable_softmax._maths._derivatives import leaders_of
from stable_softmax._maths._differences import difference
from stable_softmax._maths._sums import sum_of_products

_STEP = 4


class Part(NamedTuple):
    """What some of the classes come to."""

    maximum: Any
    tail: Any
    tail_error: Any
    lag: Any
    weight: Any
    #: Of the weights that smoothing gives to the classes, the largest, and the sum of all others; None without it.
    largest_weight: Any = None
    other_weights: Any = None


def without_label(xp: ModuleType, logits: Any, axes: tuple[int, ...]) -> Part:
    """Return the part that logits are of their rows, whichever the labels are. There is some class."""
    maximum, others = _rows.maximum_and_others(xp, logits, axes)
    tail = others * xp.exp(_finite(xp, maximum) - _unit(xp, maximum))
    return Part(maximum, tail, xp.zeros_like(tail), None, None)


def statistics(xp: ModuleType, logits: Any, class_ids: Any, axes: tuple[int, ...]) -> tuple[Any, Any, Any, Any]:
    """Return maximum, tail, lag and weight of the part that logits are of their rows."""
    if logits.shape[axes[0]] == 0:
        nothing = xp.zeros_like(class_ids, dtype=logits.dtype)
        return nothing - xp.inf, nothing, nothing, nothing
    return _of_classes(xp, logits, class_ids, axis=axes[0])


def merged(xp: ModuleType, first: Any, second: Any, lag_unit: float = 1.0) -> Any:
    """Return what two parts come to; lags may be numbers of `lag_unit` nats."""
    first_leads = (first.maximum >= second.maximum) | xp.isnan(first.maximum)
    maximum = xp.where(first_leads, first.maximum, second.maximum)
    unit = _unit(xp, maximum)
    # Of the two maximal entries, one joins the tail.
    joining = _weight(xp, xp.where(first_leads, second.maximum, first.maximum), maximum)
    tail, error = joining, xp.zeros_like(joining)
    for part in (first, second):
        factor = _rescaling(xp, part, unit)
        tail, lost = _sum_and_error(tail, factor * part.tail)
        error = error + (factor * part.tail_error + lost)
    merged_part = first._replace(maximum=maximum, tail=tail, tail_error=error)
    if first.lag is None:
        return merged_part
    lags = [
        part.lag + part.weight * (_rise(xp, part, maximum, leads | (part.weight == 0)) / lag_unit)
        for part, leads in ((first, first_leads), (second, ~first_leads))
    ]
    return merged_part._replace(lag=lags[0] + lags[1], weight=first.weight + second.weight)


class Peak(NamedTuple):
    """The largest of the maxima of all processes, without a derivative."""

    maximum: Any


class Shares(NamedTuple):
    """What a process adds to the sums over all processes; the last four are None without labels.

    The maximum over processes may have no derivative. So each process that leads adds a slope: a number that is 0, but
    has the derivative of its own maximum. The mean of the slopes has the derivative of the whole maximum. Where several
    processes lead, tail and lag depend on each one's own maximum, too: these slopes are added up apart. Where one
    leads, they would cancel with the mean, and a confident label's derivative would lose all its digits: they are left
    out.
    """

    tail: Any
    leads: Any
    slope: Any
    slope_of_tail: Any
    lag: Any = None
    weight: Any = None
    #: The weight of a label that lies where another process leads.
    behind: Any = None
    slope_of_lag: Any = None


def shares(xp: ModuleType, part: Any, peak: Peak) -> Shares:
    """Return what the part of one process adds to sums over all of them."""
    leads, own = part.maximum == peak.maximum, without_gradient(xp, part.maximum)
    slope = xp.where(leads & xp.isfinite(own), part.maximum - _finite(xp, own), 0)
    weight = _weight(xp, part.maximum, peak.maximum)
    tail = _rescaling(xp, part, _unit(xp, peak.maximum)) * (part.tail + part.tail_error)
    own_shares = Shares(
        tail + xp.where(leads, 0, weight),
        xp.astype(leads, own.dtype),
        slope,
        xp.where(leads, weight - without_gradient(xp, weight), 0),
    )
    if part.lag is None:
        return own_shares
    return own_shares._replace(
        lag=part.lag + part.weight * _rise(xp, part, peak.maximum, leads | (part.weight == 0)),
        weight=part.weight,
        behind=xp.where(leads, 0, part.weight),
        slope_of_lag=part.weight * slope,
    )


def whole(xp: ModuleType, part: Any, peak: Peak, total: Shares) -> Any:
    """Return what the parts of all processes come to, as the kind of part that one of them has."""
    several, leaders = total.leads > 1, xp.where(total.leads < 1, 1, total.leads)  # none, where all is NaN
    slope = total.slope / leaders
    weight = _weight(xp, peak.maximum + slope, peak.maximum)
    constant = without_gradient(xp, weight)
    slope_of_tail = xp.where(several, total.slope_of_tail - (weight - constant), 0)
    tail = total.tail + (leaders - 1) * constant + slope_of_tail
    of_all = part._replace(maximum=peak.maximum + slope, tail=tail, tail_error=xp.zeros_like(tail))
    if part.lag is None:
        return of_all
    ahead = xp.where(several, (total.weight - total.behind) * slope - total.slope_of_lag, 0)
    return of_all._replace(lag=total.lag + total.behind * slope + ahead, weight=total.weight)


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


def _weight(xp: ModuleType, logits: Any, maximum: Any) -> Any:
    """Return `exp(z - unit)` of logits that are at most the maximum; 0 where that is not finite."""
    exponents = difference(xp, xp.where(xp.isfinite(maximum), logits, -xp.inf), _unit(xp, maximum))
    return xp.exp(exponents)


def _finite(xp: ModuleType, values: Any) -> Any:
    """Return the values, with 0 for those that are not finite."""
    return xp.where(xp.isfinite(values), values, 0)


def _rescaling(xp: ModuleType, part: Any, unit: Any) -> Any:
    """Return what a part's tail is multiplied by: exactly 1 where its unit stays."""
    return xp.exp(xp.clip(difference(xp, _unit(xp, part.maximum), unit), None, 0.0))


def _rise(xp: ModuleType, part: Any, maximum: Any, stays: Any) -> Any:
    """Return by how much the maximum of all parts lies above that of a part; 0 where the lag is to stay as it is.

    It is 0, too, where one of them is not finite: the lag is infinite then, or the row is lost.
    """
    moves = xp.isfinite(maximum) & ~stays
    below = xp.where(moves & xp.isfinite(part.maximum), part.maximum, 0)
    return -difference(xp, below, xp.where(moves, maximum, 0))


def _sum_and_error(first: Any, second: Any) -> tuple[Any, Any]:
    """Return the rounded sum, and what it lacks (Knuth 1997, The Art of Computer Programming 2, theorem 4.2.2B)."""
    total = first + second
    shared = total - first
    return total, (first - (total - shared)) + (second - shared)


def _statistics(xp: ModuleType, logits: Any, class_ids: Any, axis: int) -> tuple[Any, Any, Any, Any]:
    maximum, tail, *_ = without_label(xp, logits, (axis,))
    has_label = _labels.in_range(class_ids, logits.shape[axis])
    place = _labels.place_of(xp, logits, xp.where(has_label, class_ids, 0), axis)
    label = xp.where(has_label, _labels.entry(xp, logits, place, axis), 0)
    lag = xp.where(has_label, -difference(xp, label, xp.where(has_label, _finite(xp, maximum), 0)), 0)
    return maximum, tail, lag, xp.astype(has_label, logits.dtype)


def _slopes(xp: ModuleType, logits: Any, class_ids: Any, axis: int) -> tuple[Any, Any, Any]:
    """Return the derivatives of maximum, tail and lag.

    Equal maxima share that of the maximum, as the libraries have it: where JAX differentiates a scan twice, it forgets
    the first derivative's rule, and differentiates the maximum itself.
    """
    maximum = maximum_along(xp, logits, (axis,))
    is_finite = xp.isfinite(maximum)
    leaders = xp.where(is_finite, leaders_of(xp, logits, (axis,)), 0)
    unit = _unit(xp, maximum)
    terms = xp.exp(difference(xp, logits, unit)) - leaders * xp.exp(
        difference(xp, xp.where(is_finite, maximum, 0), unit)
    )
    has_label = _labels.in_range(class_ids, logits.shape[axis])
    label = xp.astype(_labels.is_entry(xp, logits, class_ids, axis), logits.dtype)
    # What leads alone is not part of the tail. The difference would be 0, but its derivative only nearly.
    return leaders, xp.where(leaders == 1, 0, terms), xp.astype(has_label, logits.dtype) * leaders - label


def _statistics_jvp(xp: ModuleType, vector: Any, logits: Any, class_ids: Any, axis: int) -> tuple[Any, Any]:
    values = _of_classes(xp, logits, class_ids, axis=axis)
    slopes = [sum_of_products(xp, slope, vector, (axis,)) for slope in _slopes(xp, logits, class_ids, axis)]
    return values, (*slopes, xp.zeros_like(values[3]))


def _statistics_vjp(xp: ModuleType, cotangents: tuple[Any, ...], logits: Any, class_ids: Any, axis: int) -> Any:
    leader, terms, beside_label = _slopes(xp, logits, class_ids, axis)
    of_maximum, of_tail, of_lag, _ = cotangents
    return of_maximum * leader + of_tail * terms + of_lag * beside_label


_of_classes = Differentiable(_statistics, _statistics_jvp, _statistics_vjp)
