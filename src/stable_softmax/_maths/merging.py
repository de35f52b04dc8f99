"""Parts of rows: the logsumexp and loss over some of the classes, and how parts merge.

A part is any named tuple with fields of `Part`, which have one entry for each row. All but the first three may be None.

- The tail is the sum of `exp(z - unit)` over all but one of the maximal entries; `tail_error` is its rounding error.
  The unit is the maximum, rounded down to a multiple of 4. Parts with different units are rescaled, which rounds, but
  at most once for every 4 nats that the maximum of a row rises. Parts with the same unit are only added.
- The lag is the distance of the label's logit below the maximum, and 0 if the part does not have the label. The weight
  is 1 if the part has the label, else 0. The lags of other targets are sums of `target * (maximum - z)`, whose weights
  are the sums of the targets.

No difference of nearly equal numbers is taken here, nor in the derivatives by autodiff. Therefore a part carries the
lag and not the label's logit: the derivative of the loss with respect to the logit is -1, and would cancel.

One of two parts leads, even if their maxima are equal; the results do not depend on which. Derivatives are right as
long as all terms use the derivative of the same maximum: `lib.xp.maximum` would give half of it to each of two equal
maxima, and second derivatives would be wrong.
"""

from typing import Any, NamedTuple

from stable_softmax._core import trees
from stable_softmax._libraries.differentiable import differentiable, differentiable_in
from stable_softmax._libraries.standard import Library
from stable_softmax._maths.exponentials import difference
from stable_softmax._maths.labels import entry, in_range, place_of
from stable_softmax._maths.normalization import leaders_of, maximum_and_others
from stable_softmax._maths.sums import accurate_sum, sum_and_error, sum_of_products
from stable_softmax._maths.targets import zero_untargeted

_STEP = 4
#: Sums of distances are in this many nats, so that they stay in the range of the dtype.
_SUM_UNIT = 2.0**20


class Part(NamedTuple):
    """The partial logsumexp and loss over some of the classes."""

    maximum: Any
    tail: Any
    tail_error: Any
    lag: Any = None
    weight: Any = None
    #: The class weight of the label, 0 if the part does not have the label.
    class_weight: Any = None
    #: The lag and the sum of the class weights, for label smoothing, and the number of classes.
    smoothing_lag: Any = None
    smoothing_weight: Any = None
    classes: Any = None
    #: The lag and the sum of target probabilities.
    targets_lag: Any = None
    targets_weight: Any = None
    #: The largest class weight in label smoothing, and the sum of the other weights.
    largest_weight: Any = None
    other_weights: Any = None


#: The fields that are lags, those of their weights, and the unit of the lags in nats.
_LAGS = (
    ("lag", "weight", 1.0),
    ("smoothing_lag", "smoothing_weight", _SUM_UNIT),
    ("targets_lag", "targets_weight", _SUM_UNIT),
)
#: The fields that are added up as they are.
_SUMS = ("weight", "class_weight", "smoothing_weight", "classes", "targets_weight")


def without_label(lib: Library, logits: Any, axes: tuple[int, ...]) -> Part:
    """Return the part of logits with at least one class, without lag and weight."""
    maximum, others = maximum_and_others(lib, logits, axes)
    tail = others * lib.xp.exp(_finite(lib, maximum) - _unit(lib, maximum))
    return Part(maximum, tail, lib.xp.zeros_like(tail), None, None)


@differentiable
def statistics(lib: Library, logits: Any, class_ids: Any, axis: int) -> tuple[Any, Any, Any, Any]:
    """Return maximum, tail, lag and weight of the part that logits with at least one class form."""
    xp = lib.xp
    maximum, tail, *_ = without_label(lib, logits, (axis,))
    has_label = in_range(class_ids, logits.shape[axis])
    place = place_of(lib, logits, xp.where(has_label, class_ids, 0), axis)
    label = xp.where(has_label, entry(lib, logits, place), 0)
    lag = xp.where(has_label, -difference(lib, label, xp.where(has_label, _finite(lib, maximum), 0)), 0)
    return maximum, tail, lag, xp.astype(has_label, logits.dtype)


@statistics.has_jvp
def _(lib: Library, vector: Any, logits: Any, class_ids: Any, axis: int) -> tuple[Any, Any]:
    values = statistics(lib, logits, class_ids, axis=axis)
    slopes = [sum_of_products(lib, slope, vector, (axis,)) for slope in _slopes(lib, logits, class_ids, axis)]
    return values, (*slopes, lib.xp.zeros_like(values[3]))


@statistics.has_vjp
def _(lib: Library, cotangents: tuple[Any, ...], logits: Any, class_ids: Any, axis: int) -> Any:
    leader, terms, beside_label = _slopes(lib, logits, class_ids, axis)
    of_maximum, of_tail, of_lag, _ = cotangents
    return of_maximum * leader + of_tail * terms + of_lag * beside_label


@differentiable_in(2)
def lag_of_targets(lib: Library, logits: Any, targets: Any, axis: int) -> Any:
    """Return the sum of the targets times the distances below the maximum, in units of `_SUM_UNIT` nats."""
    return sum_of_products(lib, targets, _distances(lib, logits, targets, axis), (axis,))


@lag_of_targets.has_jvp
def _(lib: Library, vector: Any, of_targets: Any, logits: Any, targets: Any, axis: int) -> tuple[Any, Any]:
    slopes, distances = _slopes_of_lag(lib, logits, targets, axis) / _SUM_UNIT, _distances(lib, logits, targets, axis)
    pairs = ((slopes, vector), (distances, of_targets))
    slope = sum(sum_of_products(lib, factor, given, (axis,)) for factor, given in pairs if given is not None)
    return lag_of_targets(lib, logits, targets, axis=axis), slope


@lag_of_targets.has_vjp
def _(
    lib: Library, cotangent: Any, logits: Any, targets: Any, axis: int, wanted: tuple[bool, ...] = (True, True)
) -> tuple[Any, Any]:
    of_logits = (cotangent / _SUM_UNIT) * _slopes_of_lag(lib, logits, targets, axis) if wanted[0] else None
    return of_logits, cotangent * _distances(lib, logits, targets, axis) if wanted[1] else None


def merged(lib: Library, first: Any, second: Any) -> Any:
    """Return the part that two parts form together."""
    first_leads = (first.maximum >= second.maximum) | lib.xp.isnan(first.maximum)
    maximum = lib.xp.where(first_leads, first.maximum, second.maximum)
    unit = _unit(lib, maximum)
    # Each tail leaves one maximal entry out; the smaller of these two joins the merged tail.
    joining = _weight(lib, lib.xp.where(first_leads, second.maximum, first.maximum), maximum)
    tail, error = joining, lib.xp.zeros_like(joining)
    for part in (first, second):
        factor = _rescaling(lib, part, unit)
        tail, lost = sum_and_error(tail, factor * part.tail)
        error = error + (factor * part.tail_error + lost)
    sums = {name: getattr(first, name) + getattr(second, name) for name in _given(first, _SUMS)}
    for name, of_weight, nats in _lags_of(first):
        lags = [
            _moved_lag(lib, part, name, of_weight, nats, maximum, leads)
            for part, leads in ((first, first_leads), (second, ~first_leads))
        ]
        sums[name] = lags[0] + lags[1]
    return first._replace(maximum=maximum, tail=tail, tail_error=error, **sums)


class Peak(NamedTuple):
    """The largest of the maxima of all processes, without a derivative."""

    maximum: Any


class LagShares(NamedTuple):
    """The terms of a lag that one process adds to the sums over all processes."""

    lag: Any
    #: Weight of the targets, if the process does not lead.
    behind: Any
    slope: Any


class Shares(NamedTuple):
    """The terms that one process adds to the sums over all processes.

    The maximum over processes may have no derivative. Therefore each process that leads adds a slope: a number that is
    0, but has the derivative of its own maximum. The mean of the slopes has the derivative of the overall maximum. If
    several processes lead, tail and lags also depend on the maximum of each: those slopes are summed separately. If one
    leads, they would cancel with the mean, and the derivative of a confident label would lose all its digits: they are
    left out.
    """

    tail: Any
    leads: Any
    slope: Any
    slope_of_tail: Any
    #: Those of the part's fields that are added up as they are.
    sums: tuple[Any, ...]
    lags: tuple[LagShares, ...]


def form_of_shares(part: Any) -> Shares:
    """Return shares of a part, whose arrays have the right shapes and arbitrary values."""
    array = part.maximum
    sums = (array,) * len(_given(part, _SUMS))
    return Shares(*(array,) * 4, sums=sums, lags=(LagShares(*(array,) * 3),) * len(_lags_of(part)))


def shares(lib: Library, part: Any, peak: Peak) -> Shares:
    """Return the terms that the part of one process adds to the sums over all processes."""
    leads, own = part.maximum == peak.maximum, lib.without_gradient(part.maximum)
    slope = lib.xp.where(leads & lib.xp.isfinite(own), part.maximum - _finite(lib, own), 0)
    weight = _weight(lib, part.maximum, peak.maximum)
    tail = _rescaling(lib, part, _unit(lib, peak.maximum)) * (part.tail + part.tail_error)

    def of_lag(name: str, of_weight: str, nats: float) -> LagShares:
        own_weight = getattr(part, of_weight)
        return LagShares(
            _moved_lag(lib, part, name, of_weight, nats, peak.maximum, leads),
            behind=lib.xp.where(leads, 0, own_weight),
            slope=own_weight * (slope / nats),
        )

    return Shares(
        tail + lib.xp.where(leads, 0, weight),
        lib.xp.astype(leads, own.dtype),
        slope,
        lib.xp.where(leads, weight - lib.without_gradient(weight), 0),
        sums=tuple([getattr(part, name) for name in _given(part, _SUMS)]),
        lags=tuple([of_lag(*names) for names in _lags_of(part)]),
    )


def part_of_all(lib: Library, part: Any, peak: Peak, totals: list[Any]) -> Any:
    """Return the part that those of all processes form together, of the same type as that of one process.

    The totals are the sums over all processes of the arrays of `shares`, in their order.
    """
    total = trees.rebuilt(trees.without_arrays(form_of_shares(part)), totals)
    several, leaders = total.leads > 1, lib.xp.where(total.leads < 1, 1, total.leads)  # none leads if all are NaN
    slope = total.slope / leaders
    weight = _weight(lib, peak.maximum + slope, peak.maximum)
    constant = lib.without_gradient(weight)
    slope_of_tail = lib.xp.where(several, total.slope_of_tail - (weight - constant), 0)
    tail = total.tail + (leaders - 1) * constant + slope_of_tail
    sums = dict(zip(_given(part, _SUMS), total.sums, strict=True))
    for (name, of_weight, nats), own in zip(_lags_of(part), total.lags, strict=True):
        ahead = lib.xp.where(several, (sums[of_weight] - own.behind) * (slope / nats) - own.slope, 0)
        sums[name] = own.lag + own.behind * (slope / nats) + ahead
    return part._replace(maximum=peak.maximum + slope, tail=tail, tail_error=lib.xp.zeros_like(tail), **sums)


def logsumexp(lib: Library, part: Any) -> Any:
    """Return `m + log1p(R)`, or `m` itself where it is infinite."""
    log_total = log_total_of(lib, part)
    return lib.xp.where(lib.xp.isinf(part.maximum), part.maximum, _finite(lib, part.maximum) + log_total)


def crossentropy(lib: Library, part: Any, counted: Any = None) -> Any:
    """Return `log1p(R) + lag`, or NaN without exactly one label or without a finite maximum, if the example counts."""
    is_bad = (part.weight != 1) | ~lib.xp.isfinite(part.maximum)
    return lib.nan_where(is_bad if counted is None else is_bad & counted, log_total_of(lib, part) + part.lag)


def crossentropy_of_targets(lib: Library, part: Any, lag: Any, weight: Any, scale: Any) -> Any:
    """Return the loss of targets, from their lag and the sum of them: both times the scale."""
    return scale * weight * log_total_of(lib, part) + scale * zero_untargeted(lib, scale, lag) * _SUM_UNIT


def log_total_of(lib: Library, part: Any) -> Any:
    """Return `log1p(R)`."""
    return lib.xp.log1p(rest_of(lib, part))


def rest_of(lib: Library, part: Any) -> Any:
    """Return `R`, the sum of `exp(z - m)` over all but one maximal entry."""
    scale = lib.xp.exp(_unit(lib, part.maximum) - _finite(lib, part.maximum))
    return scale * (part.tail + part.tail_error)


def _given(part: Any, names: tuple[str, ...]) -> list[str]:
    """Return those names of fields that the part has."""
    return [name for name in names if getattr(part, name, None) is not None]


def _lags_of(part: Any) -> list[tuple[str, str, float]]:
    """Return those of `_LAGS` that the part has."""
    return [names for names in _LAGS if getattr(part, names[0], None) is not None]


def _unit(lib: Library, maximum: Any) -> Any:
    return _STEP * lib.xp.floor(_finite(lib, maximum) / _STEP)


def _weight(lib: Library, logits: Any, maximum: Any) -> Any:
    """Return `exp(z - unit)` of logits that are at most the maximum; 0 where the maximum is not finite."""
    exponents = difference(lib, lib.xp.where(lib.xp.isfinite(maximum), logits, -lib.xp.inf), _unit(lib, maximum))
    return lib.xp.exp(exponents)


def _finite(lib: Library, values: Any) -> Any:
    """Return the values, with 0 for those that are not finite."""
    return lib.xp.where(lib.xp.isfinite(values), values, 0)


def _rescaling(lib: Library, part: Any, unit: Any) -> Any:
    """Return the factor that rescales a part's tail to a unit: exactly 1 if the unit stays the same."""
    return lib.xp.exp(lib.clip(difference(lib, _unit(lib, part.maximum), unit), None, 0.0))


def _moved_lag(lib: Library, part: Any, name: str, of_weight: str, nats: float, maximum: Any, leads: Any) -> Any:
    """Return a lag of a part below the maximum of all parts."""
    weight, rise = getattr(part, of_weight), _rise(lib, part, maximum, leads) / nats
    is_void = (weight == 0) & (lib.xp.isinf(rise) | ~lib.xp.isfinite(part.maximum))
    return getattr(part, name) + weight * lib.xp.where(is_void, 0, rise)


def _rise(lib: Library, part: Any, maximum: Any, leads: Any) -> Any:
    """Return the distance of a part's maximum below that of all parts.

    If only the former is infinite, so is the lag of its targets, and only the derivative of the rise matters. If the
    latter is, the row becomes NaN.
    """
    moves = lib.xp.isfinite(maximum) & ~leads
    below = lib.xp.where(moves & lib.xp.isfinite(part.maximum), part.maximum, 0)
    return -difference(lib, below, lib.xp.where(moves, maximum, 0))


def _slopes(lib: Library, logits: Any, class_ids: Any, axis: int) -> tuple[Any, Any, Any]:
    """Return the derivatives of maximum, tail and lag.

    Equal maxima share the derivative, as in the libraries themselves: if JAX differentiates a scan twice, it forgets
    the rule of the first derivative, and differentiates the maximum itself.
    """
    maximum = lib.maximum(logits, (axis,))
    is_finite = lib.xp.isfinite(maximum)
    leaders = lib.xp.where(is_finite, leaders_of(lib, logits, (axis,)), 0)
    unit = _unit(lib, maximum)
    terms = lib.xp.exp(difference(lib, logits, unit)) - leaders * lib.xp.exp(
        difference(lib, lib.xp.where(is_finite, maximum, 0), unit)
    )
    has_label = in_range(class_ids, logits.shape[axis])
    label = lib.xp.astype(lib.is_at(logits, class_ids, axis), logits.dtype)
    # A single leader is not in the tail. The difference would be 0, but its derivative only nearly 0.
    return leaders, lib.xp.where(leaders == 1, 0, terms), lib.xp.astype(has_label, logits.dtype) * leaders - label


def _distances(lib: Library, logits: Any, targets: Any, axis: int) -> Any:
    """Return the distances below the maximum; 0 where they are infinite and the target is 0, or the row becomes NaN."""
    maximum = lib.maximum(logits, (axis,))
    distances = -difference(lib, logits, _finite(lib, maximum)) / _SUM_UNIT
    return lib.xp.where(maximum < lib.xp.inf, zero_untargeted(lib, targets, distances), 0)


def _slopes_of_lag(lib: Library, logits: Any, targets: Any, axis: int) -> Any:
    """Return the derivatives of the lag of targets, in nats: at a single maximum the sum of all other targets."""
    maximum = lib.maximum(logits, (axis,))
    leaders = lib.xp.where(lib.xp.isfinite(maximum), leaders_of(lib, logits, (axis,)), 0)
    others = lib.xp.where(leaders == 1, 0, targets)
    return leaders * accurate_sum(lib, others, (axis,)) - others
