"""Rows whose classes lie in several pieces, none of them empty: what each contributes, and what comes of all of it.

What has an entry for each row comes from the whole part alone, and what has one for each class from that and a piece.

The columns of a part's lags and weights are: the label, and again with its class's weight; or the target probabilities;
and for smoothing, the weights of the classes, and the classes, whose number the smoothed target is divided by. The last
is there for the target probabilities of classes that `where` keeps, too. Lags are numbers of `_LAG_UNIT` nats, so that
their sums stay within the dtype.
"""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

from stable_softmax._libraries._reductions import maximum_along
from stable_softmax._maths import _merging, _objective
from stable_softmax._maths._conversion import converted
from stable_softmax._maths._differences import difference
from stable_softmax._maths._labels import in_range, is_entry, is_marked, ones_along, relative_ids
from stable_softmax._maths._sums import accurate_sum
from stable_softmax._maths._targets import Criterion, Targets, is_off, left_of, weights_of


class Pieces(NamedTuple):
    """A kernel that works where the classes of a row lie in several pieces."""

    #: (xp, logits, *others, axes, first_class) -> a part, with arrays of length 1 along the class axis.
    part: Callable[..., Any]
    #: (xp, part, *others, axes) -> what the kernel returns for each row. Of others with an entry for each class and
    #: example, it gets None.
    rows: Any = None
    #: (xp, logits, part, *others, axes, first_class) -> what the kernel returns for each class.
    entries: Any = None
    #: (xp, part, part) -> the part that they are together.
    merged: Callable[..., Any] = _merging.merged


_LAG_UNIT = 2.0**20


def part_of_losses(
    xp: ModuleType, logits: Any, *criterion: Any, axes: tuple[int, ...], first_class: int
) -> _merging.Part:
    """Return what some of the classes contribute to the losses. The class ids are those among all classes."""
    given, (axis,) = Criterion(*criterion), axes
    logits, class_ids = _left(xp, logits, given, axis, first_class)
    if given.class_ids is None:
        part, columns = _merging.without_label(xp, logits, axes), []
    else:
        part = part_of_statistics(xp, logits, class_ids, axes, first_class=0)  # which has been subtracted
        weight_of_label = _weight_of_label(xp, part.weight, class_ids, given, axis)
        columns = [(part.lag / _LAG_UNIT, part.weight), (xp.zeros_like(part.lag), weight_of_label)]
    targets = _dense_targets(xp, logits, given, axis)
    if targets:
        # Where the maximum is infinite, the row is lost.
        distances = xp.where(part.maximum < xp.inf, -_below_maximum(xp, logits, part), 0) / _LAG_UNIT
        columns += [
            (accurate_sum(xp, _objective.weighted(xp, target, distances), axes), accurate_sum(xp, target, axes))
            for target in targets
        ]
    lags, weights = (xp.concat(column, axis=axis) for column in zip(*columns, strict=True))
    return part._replace(lag=lags, weight=weights)


def part_of_derivatives(
    xp: ModuleType, logits: Any, *criterion: Any, axes: tuple[int, ...], first_class: int
) -> _merging.Part:
    """Return what some of the classes contribute to derivatives for class ids, which need no lags."""
    given, (axis,) = Criterion(*criterion), axes
    logits, class_ids = _left(xp, logits, given, axis, first_class)
    part = _merging.without_label(xp, logits, axes)
    weight = xp.astype(in_range(class_ids, logits.shape[axis]), logits.dtype)
    targets = (accurate_sum(xp, target, axes) for target in _dense_targets(xp, logits, given, axis))
    weights = xp.concat([weight, _weight_of_label(xp, weight, class_ids, given, axis), *targets], axis=axis)
    return part._replace(lag=xp.zeros_like(weights), weight=weights)


def merged(xp: ModuleType, first: _merging.Part, second: _merging.Part) -> _merging.Part:
    """Return what two parts of losses or of derivatives come to."""
    part: _merging.Part = _merging.merged(xp, first, second, _LAG_UNIT)
    if first.largest_weight is None:
        return part
    smaller = xp.minimum(first.largest_weight, second.largest_weight)
    return part._replace(
        largest_weight=xp.maximum(first.largest_weight, second.largest_weight),
        other_weights=first.other_weights + second.other_weights + smaller,
    )


def part_of_logsumexp(
    xp: ModuleType, logits: Any, where: Any, axes: tuple[int, ...], first_class: int
) -> _merging.Part:
    """Return what some of the classes contribute to the logsumexp, whichever they are."""
    del first_class
    return _merging.without_label(xp, _masked(xp, logits, where), axes)


def part_of_statistics(
    xp: ModuleType, logits: Any, class_ids: Any, axes: tuple[int, ...], first_class: int
) -> _merging.Part:
    """Return the statistics of some of the classes."""
    maximum, tail, lag, weight = _merging.statistics(xp, logits, relative_ids(xp, class_ids, first_class), axes)
    return _merging.Part(maximum, tail, xp.zeros_like(tail), lag, weight)


def statistics(_: ModuleType, part: _merging.Part, *__: Any, axes: tuple[int, ...]) -> tuple[Any, ...]:  # noqa: ARG001
    """Return the statistics as `_merging.statistics` does."""
    return part.maximum, part.tail + part.tail_error, part.lag, part.weight


def losses(xp: ModuleType, part: _merging.Part, *criterion: Any, axes: tuple[int, ...]) -> Any:
    """Return the losses over the divisor."""
    given, (axis,) = Criterion(*criterion), axes
    log_total = _merging.log_total_of(xp, part)

    def term(i: int, scale: Any) -> Any:
        lag = _objective.weighted(xp, scale, _column(part.lag, axis, i)) * _LAG_UNIT
        return scale * _column(part.weight, axis, i) * log_total + lag

    if given.class_ids is None:
        plain = xp.where(xp.isfinite(part.maximum), term(0, xp.ones_like(log_total)), xp.nan)
        targets = _targets(None, given)
        if part.weight.shape[axis] > 1:  # the last of which is the number of classes that are left
            targets = targets._replace(counted=_column(part.weight, axis, -1) > 0)
    else:
        only_label = part._replace(lag=_column(part.lag, axis, 0) * _LAG_UNIT, weight=_column(part.weight, axis, 0))
        plain, targets = _merging.crossentropy(xp, only_label), _targets(_column(part.weight, axis, 1), given)
    if not is_off(given.label_smoothing):
        targets = targets._replace(others=_share(xp, part, given, axis))
    return _objective.loss_from_terms(
        xp,
        plain,
        lambda: term(-2, targets.others),
        lambda: _merging.logsumexp(xp, part),
        targets,
    )


def gradient(
    xp: ModuleType, logits: Any, part: _merging.Part, *criterion: Any, axes: tuple[int, ...], first_class: int
) -> Any:
    """Return the gradient of the losses over the divisor, with respect to the logits of a piece, for class ids."""
    given, (axis,) = Criterion(*criterion), axes
    class_ids, entries, terms, targets = _compared(xp, logits, part, given, axis, first_class)
    plain = xp.where(is_entry(xp, entries.probabilities, class_ids, axis), -entries.complements, entries.probabilities)
    if targets.others is not None:
        # Of a class that has nearly all of the targets and of the probability, `p * sum(q) - q` would be a difference
        # of what agrees in all digits. It is `p * (the others' targets) - q * (the others' probability)`.
        others = _targets_beside(xp, logits, part, given, axis)
        terms = terms._replace(others=lambda: others)
        targets = targets._replace(others=targets.others * entries.complements)
    return _objective.gradient_from_terms(xp, plain, terms, targets)


def hessian_diagonal(
    xp: ModuleType, logits: Any, part: _merging.Part, *criterion: Any, axes: tuple[int, ...], first_class: int
) -> Any:
    """Return the diagonal of the Hessian of the losses over the divisor, for the classes of a piece and class ids."""
    (axis,) = axes
    _, entries, terms, targets = _compared(xp, logits, part, Criterion(*criterion), axis, first_class)
    plain = entries.probabilities * entries.complements
    return _objective.hessian_from_terms(xp, plain, lambda p: p, terms, targets)


def softmax(
    xp: ModuleType, logits: Any, part: _merging.Part, where: Any, axes: tuple[int, ...], first_class: int
) -> Any:
    """Return the probabilities of a piece's classes."""
    del axes, first_class
    probabilities = _entries_of(xp, _masked(xp, logits, where), part).probabilities
    return probabilities if where is None else xp.where(where, probabilities, 0)


def log_softmax(
    xp: ModuleType, logits: Any, part: _merging.Part, where: Any, axes: tuple[int, ...], first_class: int
) -> Any:
    """Return their logarithms."""
    del axes, first_class
    shifted = _below_maximum(xp, _masked(xp, logits, where), part)
    rows = xp.where(xp.isfinite(part.maximum), shifted - _merging.log_total_of(xp, part), xp.nan)
    return rows if where is None else xp.where(where, rows, -xp.inf)


def logsumexp(xp: ModuleType, part: _merging.Part, *_: Any, axes: tuple[int, ...]) -> Any:  # noqa: ARG001
    """Return the logarithm of the sum of the exponentials of all classes."""
    return _merging.logsumexp(xp, part)


class _Entries(NamedTuple):
    """What derivatives of a piece's classes are made of; NaN in rows without a finite maximum."""

    probabilities: Any
    #: 1 minus the probabilities; of those that are largest, the sum of the others.
    complements: Any


def _entries_of(xp: ModuleType, logits: Any, part: _merging.Part) -> _Entries:
    is_finite = xp.isfinite(part.maximum)
    rest = xp.where(is_finite, _merging.rest_of(xp, part), xp.nan)
    probabilities = xp.exp(xp.where(is_finite, _below_maximum(xp, logits, part), 0)) / (1 + rest)
    complements = xp.where(logits == part.maximum, rest / (1 + rest), 1 - probabilities)
    return _Entries(probabilities, complements)


def _below_maximum(xp: ModuleType, logits: Any, part: _merging.Part) -> Any:
    """Return `z - m`, and the logits as they are where the maximum is not finite."""
    return difference(xp, logits, xp.where(xp.isfinite(part.maximum), part.maximum, 0))


def _compared(
    xp: ModuleType, logits: Any, part: _merging.Part, given: Criterion, axis: int, first_class: int
) -> tuple[Any, _Entries, _objective.Terms, Targets]:
    """Return the labels among a piece's classes, what derivatives are made of, and what these are compared with."""
    logits, class_ids = _left(xp, logits, given, axis, first_class)
    has_label = _column(part.weight, axis, 0) == 1
    part = part._replace(maximum=xp.where(has_label, part.maximum, xp.nan))
    targets, total = _targets(_column(part.weight, axis, 1), given), 0
    if not is_off(given.label_smoothing):
        share = _share(xp, part, given, axis)
        total = share * _column(part.weight, axis, -2)
        targets = targets._replace(others=share * _weights(xp, logits, given, axis))
    entries = _entries_of(xp, logits, part)
    terms = _objective.Terms(lambda: entries.probabilities, lambda: _merging.logsumexp(xp, part), lambda: total)
    return class_ids, entries, terms, targets


def _targets(weight: Any, given: Criterion) -> Targets:
    """Return the targets without those of smoothing, where the label's class has this weight, None for 1."""
    kept = 1.0 if is_off(given.label_smoothing) else 1 - given.label_smoothing
    counted = None if given.ignored_id is None else given.class_ids != given.ignored_id
    z_loss = None if is_off(given.z_loss) else given.z_loss
    scale = kept if weight is None else kept * weight
    return Targets(given.class_ids, scale, None, counted, given.where, z_loss, given.divisor)


def _with_largest_weight(
    part_of: Callable[..., _merging.Part], xp: ModuleType, logits: Any, *criterion: Any, **options: Any
) -> _merging.Part:
    """Return a part with the largest of the weights of smoothing apart from the others, for the gradient."""
    part, given, (axis,) = part_of(xp, logits, *criterion, **options), Criterion(*criterion), options["axes"]
    if is_off(given.label_smoothing):
        return part
    weights = _weights(xp, logits, given, axis)
    at_largest = is_entry(xp, weights, xp.argmax(weights, axis=axis, keepdims=True), axis)
    others = accurate_sum(xp, xp.where(at_largest, 0, weights), (axis,))
    return part._replace(largest_weight=maximum_along(xp, weights, (axis,)), other_weights=others)


def _targets_beside(xp: ModuleType, logits: Any, part: _merging.Part, given: Criterion, axis: int) -> Any:
    """Return for each class what smoothing gives to all others; no class but the largest has more than half of it."""
    weights, total = _weights(xp, logits, given, axis), _column(part.weight, axis, -2)
    others = xp.where(weights == part.largest_weight, part.other_weights, total - weights)
    return _share(xp, part, given, axis) * others


def _share(xp: ModuleType, part: _merging.Part, given: Criterion, axis: int) -> Any:
    """Return what smoothing gives to each class."""
    number = _column(part.weight, axis, -1)
    return given.label_smoothing / xp.where(number < 1, 1, number)


def _left(xp: ModuleType, logits: Any, given: Criterion, axis: int, first_class: int) -> tuple[Any, Any]:
    """Return a piece's logits, -inf for what is excluded, 0 for what is ignored, and the labels among its classes."""
    logits = _masked(xp, logits, given.where)
    if given.class_ids is None:
        return logits, None
    class_ids = relative_ids(xp, given.class_ids, first_class)
    if given.where is not None:
        class_ids = xp.where(is_marked(xp, given.where, class_ids, logits.shape, axis), class_ids, -1)
    if given.ignored_id is not None:
        logits = xp.where(given.class_ids == given.ignored_id, 0, logits)
    return logits, class_ids


def _masked(xp: ModuleType, logits: Any, where: Any) -> Any:
    """Return logits, -inf for what is excluded."""
    return logits if where is None else xp.where(where, logits, -xp.inf)


def _column(array: Any, axis: int, i: int) -> Any:
    i %= array.shape[axis]
    return array[(slice(None),) * axis + (slice(i, i + 1), ...)]


def _dense_targets(xp: ModuleType, logits: Any, given: Criterion, axis: int) -> list[Any]:
    """Return the targets with an entry for each class: probabilities, and what smoothing needs."""
    targets = [] if given.probabilities is None else [_probabilities(xp, logits, given, axis)]
    if not is_off(given.label_smoothing):
        targets += [_weights(xp, logits, given, axis), _ones(xp, logits, given, axis)]
    elif given.probabilities is not None and given.where is not None:
        targets.append(_ones(xp, logits, given, axis))
    return targets


def _weights(xp: ModuleType, logits: Any, given: Criterion, axis: int) -> Any:
    """Return the weights of the classes that are left."""
    ones = _ones(xp, logits, given, axis)
    return ones if given.class_weights is None else ones * given.class_weights


def _ones(xp: ModuleType, logits: Any, given: Criterion, axis: int) -> Any:
    return left_of(xp, given, xp.broadcast_to(ones_along(xp, logits, axis), logits.shape))


def _probabilities(xp: ModuleType, logits: Any, given: Criterion, axis: int) -> Any:
    """Return the target probabilities, weighted."""
    return _weights(xp, logits, given, axis) * left_of(xp, given, converted(xp, given.probabilities, logits.dtype))


def _weight_of_label(xp: ModuleType, weight: Any, class_ids: Any, given: Criterion, axis: int) -> Any:
    """Return the weight of the label's class; 0 where the label is in another piece."""
    if given.class_weights is None:
        return weight
    has_label = weight == 1
    return xp.where(has_label, weights_of(xp, given.class_weights, xp.where(has_label, class_ids, 0), axis), 0)


SOFTMAX = Pieces(part_of_logsumexp, entries=softmax)
LOG_SOFTMAX = Pieces(part_of_logsumexp, entries=log_softmax)
LOGSUMEXP = Pieces(part_of_logsumexp, logsumexp)
STATISTICS = Pieces(part_of_statistics, statistics)
LOSSES = Pieces(part_of_losses, losses, merged=merged)
GRADIENT = Pieces(partial(_with_largest_weight, part_of_derivatives), entries=gradient, merged=merged)
LOSSES_AND_GRADIENT = Pieces(partial(_with_largest_weight, part_of_losses), losses, gradient, merged)
HESSIAN_DIAGONAL = Pieces(part_of_derivatives, entries=hessian_diagonal, merged=merged)
