"""The loss of rows whose classes lie in several pieces: what each piece contributes, and the loss from all of it.

The columns of a part's lags and weights are: the label, or the target probabilities; and for smoothing, the weights of
the classes, and the classes themselves, whose number the smoothed target is divided by.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from stable_softmax._libraries._reductions import maximum_along
from stable_softmax._maths import _merging, _objective
from stable_softmax._maths._conversion import converted
from stable_softmax._maths._differences import difference
from stable_softmax._maths._labels import is_marked, ones_along
from stable_softmax._maths._sums import accurate_sum
from stable_softmax._maths._targets import Criterion, Targets, is_off, left_of, weights_of


class Pieces(NamedTuple):
    """A kernel that works where the classes of a row lie in several pieces."""

    #: (xp, logits, *others, axes, first_class) -> a part, with arrays of length 1 along the class axis.
    part: Callable[..., Any]
    #: (xp, part, *others, axes) -> as the kernel. Of others with an entry for each class and example, it gets None.
    result: Callable[..., Any]


def part_of_losses(
    xp: ModuleType, logits: Any, *criterion: Any, axes: tuple[int, ...], first_class: int
) -> _merging.Part:
    """Return what some of the classes contribute to the losses. The class ids are those among all classes."""
    given, (axis,) = Criterion(*criterion), axes
    if given.where is not None:
        logits = xp.where(given.where, logits, -xp.inf)
    if given.class_ids is None:
        class_ids = _no_class_ids(xp, logits, axes)
    else:
        class_ids = given.class_ids - first_class
        if given.where is not None:
            class_ids = xp.where(is_marked(xp, given.where, class_ids, logits.shape, axis), class_ids, -1)
        if given.ignored_id is not None:
            logits = xp.where(given.class_ids == given.ignored_id, 0, logits)
    maximum, tail, *label = _merging.statistics(xp, logits, class_ids, axes)
    columns = [] if given.class_ids is None else [label]
    if given.class_ids is None or not is_off(given.label_smoothing):
        distances = -difference(xp, logits, xp.where(xp.isfinite(maximum), maximum, 0))
        for targets in _targets(xp, logits, given, axis):
            lag = accurate_sum(xp, _objective.weighted(xp, targets, distances), axes)
            columns.append([lag, accurate_sum(xp, targets, axes)])
    lags, weights = (xp.concat(column, axis=axis) for column in zip(*columns, strict=True))
    return _merging.Part(maximum, tail, xp.zeros_like(tail), lags, weights)


def part_of_logsumexp(
    xp: ModuleType, logits: Any, where: Any, axes: tuple[int, ...], first_class: int
) -> _merging.Part:
    """Return what some of the classes contribute to the logsumexp, whichever they are."""
    del first_class
    if where is not None:
        logits = xp.where(where, logits, -xp.inf)
    maximum, tail, *_ = _merging.statistics(xp, logits, _no_class_ids(xp, logits, axes), axes)
    return _merging.Part(maximum, tail, xp.zeros_like(tail), None, None)


def part_of_statistics(
    xp: ModuleType, logits: Any, class_ids: Any, axes: tuple[int, ...], first_class: int
) -> _merging.Part:
    """Return the statistics of some of the classes."""
    maximum, tail, lag, weight = _merging.statistics(xp, logits, class_ids - first_class, axes)
    return _merging.Part(maximum, tail, xp.zeros_like(tail), lag, weight)


def statistics(_: ModuleType, part: _merging.Part, *__: Any, axes: tuple[int, ...]) -> tuple[Any, ...]:  # noqa: ARG001
    """Return the statistics as `_merging.statistics` does."""
    return part.maximum, part.tail + part.tail_error, part.lag, part.weight


def losses(xp: ModuleType, part: _merging.Part, *criterion: Any, axes: tuple[int, ...]) -> Any:
    """Return the losses over the divisor. Of arrays with an entry for each class, only the weights are looked at."""
    given, (axis,) = Criterion(*criterion), axes
    log_total = _merging.log_total_of(xp, part)

    def column(array: Any, i: int) -> Any:
        return array[(slice(None),) * axis + (slice(i, i + 1), ...)]

    def term(i: int) -> Any:
        return column(part.weight, i) * log_total + column(part.lag, i)

    smoothing = None if is_off(given.label_smoothing) else given.label_smoothing
    if given.class_ids is None:
        plain, scale, counted = term(0), None if smoothing is None else 1 - smoothing, None
        plain = xp.where(xp.isfinite(part.maximum), plain, xp.nan)
    else:
        only_label = part._replace(lag=column(part.lag, 0), weight=column(part.weight, 0))
        plain = _merging.crossentropy(xp, only_label)
        scale, counted = _scale_of_label(xp, given, smoothing, axis)

    def of_smoothing() -> Any:
        number = column(part.weight, part.weight.shape[axis] - 1)
        return smoothing / xp.where(number < 1, 1, number) * term(1)

    z_loss = None if is_off(given.z_loss) else given.z_loss
    targets = Targets(given.class_ids, scale, smoothing, counted, z_loss=z_loss, divisor=given.divisor)
    return _objective.loss_from_terms(xp, plain, of_smoothing, lambda: _merging.logsumexp(xp, part), targets)


def logsumexp(xp: ModuleType, part: _merging.Part, *_: Any, axes: tuple[int, ...]) -> Any:  # noqa: ARG001
    """Return the logarithm of the sum of the exponentials of all classes."""
    return _merging.logsumexp(xp, part)


def _no_class_ids(xp: ModuleType, logits: Any, axes: tuple[int, ...]) -> Any:
    return xp.full_like(maximum_along(xp, logits, axes), -1, dtype=xp.int64)


def _targets(xp: ModuleType, logits: Any, given: Criterion, axis: int) -> Any:
    """Yield the targets that are no label: probabilities, and what smoothing shares out."""
    ones = left_of(xp, given, xp.broadcast_to(ones_along(xp, logits, axis), logits.shape))
    weights = ones if given.class_weights is None else ones * given.class_weights
    if given.class_ids is None:
        yield weights * left_of(xp, given, converted(xp, given.probabilities, logits.dtype))
    if not is_off(given.label_smoothing):
        yield from (weights, ones)


def _scale_of_label(xp: ModuleType, given: Criterion, smoothing: Any, axis: int) -> tuple[Any, Any]:
    """Return the label's target, and whether each example counts: None for 1, and for all."""
    counted = None if given.ignored_id is None else given.class_ids != given.ignored_id
    scale = None if smoothing is None else 1 - smoothing
    if given.class_weights is None:
        return scale, counted
    class_ids = given.class_ids if counted is None else xp.where(counted, given.class_ids, 0)
    weights = weights_of(xp, given.class_weights, class_ids, axis)
    return weights if scale is None else scale * weights, counted


LOSSES = Pieces(part_of_losses, losses)
LOGSUMEXP = Pieces(part_of_logsumexp, logsumexp)
STATISTICS = Pieces(part_of_statistics, statistics)
