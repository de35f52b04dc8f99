"""Rows whose classes lie in several pieces, none of them empty: the part of each piece, and the results from all parts.

Results for each row come from the merged part alone, and results for each class from the merged part and a piece.

A part's lags and weights have columns along the class axis, whose names `_names_of` gives. Lags are in units of
`_LAG_UNIT` nats, so that their sums stay in the range of the dtype.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from stable_softmax._core.criterion import Criterion
from stable_softmax._libraries.standard import Library
from stable_softmax._maths import merging, objective
from stable_softmax._maths.exponentials import difference
from stable_softmax._maths.labels import in_range, is_marked, ones_along, relative_ids
from stable_softmax._maths.sums import accurate_sum
from stable_softmax._maths.targets import (
    Targets,
    class_weights_of,
    is_off,
    masked_logits,
    unignored,
    zero_excluded,
    zero_uncounted,
)

_LAG_UNIT = 2.0**20


def part_of_losses(
    lib: Library, logits: Any, given: Criterion, axes: tuple[int, ...], first_class: int
) -> merging.Part:
    """Return the part of a piece for the losses; `given.class_ids` count all classes of the row."""
    (axis,) = axes
    logits, class_ids = _own_classes(lib, logits, given, axis, first_class)
    if given.class_ids is None:
        part, columns = merging.without_label(lib, logits, axes), []
    else:
        part = part_of_statistics(lib, logits, class_ids, axes, first_class=0)  # already subtracted
        weight_of_label = _weight_of_label(lib, part.weight, class_ids, given, axis)
        columns = [(part.lag / _LAG_UNIT, part.weight), (lib.xp.zeros_like(part.lag), weight_of_label)]
    targets = _dense_targets(lib, logits, given, axis)
    if targets:
        # Where the maximum is infinite, the row becomes NaN anyway.
        distances = lib.xp.where(part.maximum < lib.xp.inf, -_below_maximum(lib, logits, part), 0) / _LAG_UNIT
        columns += [
            (accurate_sum(lib, objective.weighted(lib, target, distances), axes), accurate_sum(lib, target, axes))
            for target in targets
        ]
    lags, weights = (lib.xp.concat(column, axis=axis) for column in zip(*columns, strict=True))
    return part._replace(lag=lags, weight=weights)


def part_of_derivatives(
    lib: Library, logits: Any, given: Criterion, axes: tuple[int, ...], first_class: int
) -> merging.Part:
    """Return the part of a piece for derivatives with class ids, which need no lags."""
    (axis,) = axes
    logits, class_ids = _own_classes(lib, logits, given, axis, first_class)
    part = merging.without_label(lib, logits, axes)
    weight = lib.xp.astype(in_range(class_ids, logits.shape[axis]), logits.dtype)
    targets = (accurate_sum(lib, target, axes) for target in _dense_targets(lib, logits, given, axis))
    weights = lib.xp.concat([weight, _weight_of_label(lib, weight, class_ids, given, axis), *targets], axis=axis)
    return part._replace(lag=lib.xp.zeros_like(weights), weight=weights)


def merged_with_weights(lib: Library, first: merging.Part, second: merging.Part) -> merging.Part:
    """Return the part that two parts of losses or of derivatives form together."""
    part: merging.Part = merging.merged(lib, first, second, _LAG_UNIT)
    if first.largest_weight is None:
        return part
    smaller = lib.xp.minimum(first.largest_weight, second.largest_weight)
    return part._replace(
        largest_weight=lib.xp.maximum(first.largest_weight, second.largest_weight),
        other_weights=first.other_weights + second.other_weights + smaller,
    )


def part_of_logsumexp(lib: Library, logits: Any, where: Any, axes: tuple[int, ...], first_class: int) -> merging.Part:
    """Return the part of a piece for the logsumexp."""
    del first_class
    return merging.without_label(lib, masked_logits(lib, where, logits), axes)


def part_of_statistics(
    lib: Library, logits: Any, class_ids: Any, axes: tuple[int, ...], first_class: int
) -> merging.Part:
    """Return the part of a piece for the statistics."""
    maximum, tail, lag, weight = merging.statistics(lib, logits, relative_ids(lib, class_ids, first_class), axes)
    return merging.Part(maximum, tail, lib.xp.zeros_like(tail), lag, weight)


def statistics_of_part(_lib: Library, part: merging.Part, _class_ids: Any, axes: tuple[int, ...]) -> tuple[Any, ...]:
    """Return the statistics in the form of `merging.statistics`."""
    del axes
    return part.maximum, part.tail + part.tail_error, part.lag, part.weight


def losses_of_part(lib: Library, part: merging.Part, given: Criterion, axes: tuple[int, ...]) -> Any:
    """Return the losses divided by the divisor."""
    (axis,) = axes
    log_total = merging.log_total_of(lib, part)

    def term(name: str, scale: Any) -> Any:
        lag = objective.weighted(lib, scale, _column(part.lag, given, axis, name)) * _LAG_UNIT
        return scale * _column(part.weight, given, axis, name) * log_total + lag

    if given.class_ids is None:
        plain = lib.xp.where(
            lib.xp.isfinite(part.maximum), term("probabilities", lib.xp.ones_like(log_total)), lib.xp.nan
        )
        targets = _targets(None, given)
        if "classes" in _names_of(part.weight.shape[axis], given):
            any_left = _column(part.weight, given, axis, "classes") > 0
            targets = targets._replace(counted=any_left if targets.counted is None else any_left & targets.counted)
    else:
        lag = _column(part.lag, given, axis, "label") * _LAG_UNIT
        only_label = part._replace(lag=lag, weight=_column(part.weight, given, axis, "label"))
        plain = merging.crossentropy(lib, only_label)
        targets = _targets(_column(part.weight, given, axis, "weighted label"), given)
    if not is_off(given.label_smoothing):
        targets = targets._replace(others=_smoothing_share(lib, part, given, axis))
    return objective.loss_from_terms(
        lib,
        plain,
        lambda: term("smoothing", targets.others),
        lambda: merging.logsumexp(lib, part),
        targets,
    )


def gradient_of_piece(
    lib: Library, logits: Any, part: merging.Part, given: Criterion, axes: tuple[int, ...], first_class: int
) -> Any:
    """Return the gradient of the losses, divided by the divisor, for the logits of a piece and class ids."""
    (axis,) = axes
    class_ids, entries, terms, targets = _targets_and_terms(lib, logits, part, given, axis, first_class)
    plain = lib.xp.where(lib.is_at(entries.probabilities, class_ids, axis), -entries.complements, entries.probabilities)
    if targets.others is not None:
        # For a class with nearly all of the targets and of the probability, all digits of `p * sum(q) - q` cancel. It
        # equals `p * (targets of the others) - q * (probability of the others)`.
        others = _targets_beside(lib, logits, part, given, axis)
        terms = terms._replace(others=lambda: others)
        targets = targets._replace(others=targets.others * entries.complements)
    return objective.gradient_from_terms(lib, plain, terms, targets)


def hessian_diagonal_of_piece(
    lib: Library, logits: Any, part: merging.Part, given: Criterion, axes: tuple[int, ...], first_class: int
) -> Any:
    """Return the diagonal of the Hessian of the losses, divided by the divisor, for a piece and class ids."""
    (axis,) = axes
    _, entries, terms, targets = _targets_and_terms(lib, logits, part, given, axis, first_class)
    plain = entries.probabilities * entries.complements
    return objective.hessian_from_terms(lib, plain, lambda p: p, terms, targets)


def softmax_of_piece(
    lib: Library, logits: Any, part: merging.Part, where: Any, axes: tuple[int, ...], first_class: int
) -> Any:
    """Return the probabilities of the classes of a piece."""
    del axes, first_class
    probabilities = _entries_of(lib, masked_logits(lib, where, logits), part).probabilities
    return probabilities if where is None else lib.xp.where(where, probabilities, 0)


def log_softmax_of_piece(
    lib: Library, logits: Any, part: merging.Part, where: Any, axes: tuple[int, ...], first_class: int
) -> Any:
    """Return the log-probabilities of the classes of a piece."""
    del axes, first_class
    shifted = _below_maximum(lib, masked_logits(lib, where, logits), part)
    rows = lib.xp.where(lib.xp.isfinite(part.maximum), shifted - merging.log_total_of(lib, part), lib.xp.nan)
    return rows if where is None else lib.xp.where(where, rows, -lib.xp.inf)


def logsumexp_of_part(lib: Library, part: merging.Part, _where: Any, axes: tuple[int, ...]) -> Any:
    """Return the logsumexp of all classes."""
    del axes
    return merging.logsumexp(lib, part)


class _Entries(NamedTuple):
    """Probabilities for the derivatives of a piece; NaN in rows without a finite maximum."""

    probabilities: Any
    #: 1 minus the probabilities; for the largest, computed as the sum of the others.
    complements: Any


def _entries_of(lib: Library, logits: Any, part: merging.Part) -> _Entries:
    is_finite = lib.xp.isfinite(part.maximum)
    rest = lib.xp.where(is_finite, merging.rest_of(lib, part), lib.xp.nan)
    probabilities = lib.xp.exp(lib.xp.where(is_finite, _below_maximum(lib, logits, part), 0)) / (1 + rest)
    complements = lib.xp.where(logits == part.maximum, rest / (1 + rest), 1 - probabilities)
    return _Entries(probabilities, complements)


def _below_maximum(lib: Library, logits: Any, part: merging.Part) -> Any:
    """Return `z - m`, or the logits unchanged where the maximum is not finite."""
    return difference(lib, logits, lib.xp.where(lib.xp.isfinite(part.maximum), part.maximum, 0))


def _targets_and_terms(
    lib: Library, logits: Any, part: merging.Part, given: Criterion, axis: int, first_class: int
) -> tuple[Any, _Entries, objective.Terms, Targets]:
    """Return the labels among the classes of a piece, its probabilities, the terms of derivatives, and the targets."""
    logits, class_ids = _own_classes(lib, logits, given, axis, first_class)
    has_label = _column(part.weight, given, axis, "label") == 1
    part = part._replace(maximum=lib.xp.where(has_label, part.maximum, lib.xp.nan))
    targets, total = _targets(_column(part.weight, given, axis, "weighted label"), given), 0
    if not is_off(given.label_smoothing):
        share = _smoothing_share(lib, part, given, axis)
        total = share * _column(part.weight, given, axis, "smoothing")
        targets = targets._replace(others=share * _weights(lib, logits, given, axis))
    entries = _entries_of(lib, logits, part)
    terms = objective.Terms(lambda: entries.probabilities, lambda: merging.logsumexp(lib, part), lambda: total)
    return class_ids, entries, terms, targets


def _targets(weight: Any, given: Criterion) -> Targets:
    """Return the targets without those of smoothing; `weight` is that of the label's class, None for 1."""
    kept = 1.0 if is_off(given.label_smoothing) else 1 - given.label_smoothing
    return Targets(
        given.class_ids,
        scale=kept if weight is None else kept * weight,
        counted=unignored(given),
        where=given.where,
        z_loss=None if is_off(given.z_loss) else given.z_loss,
        example_weights=given.example_weights,
        divisor=given.divisor,
    )


def with_largest_weight(
    part_of: Callable[..., merging.Part], lib: Library, logits: Any, given: Criterion, **options: Any
) -> merging.Part:
    """Return a part that separates the largest class weight of smoothing from the others, for the gradient."""
    part, (axis,) = part_of(lib, logits, given, **options), options["axes"]
    if is_off(given.label_smoothing):
        return part
    weights = _weights(lib, logits, given, axis)
    at_largest = lib.is_at(weights, lib.xp.argmax(weights, axis=axis, keepdims=True), axis)
    others = accurate_sum(lib, lib.xp.where(at_largest, 0, weights), (axis,))
    return part._replace(largest_weight=lib.maximum(weights, (axis,)), other_weights=others)


def _targets_beside(lib: Library, logits: Any, part: merging.Part, given: Criterion, axis: int) -> Any:
    """Return what smoothing gives to all other classes; only the largest weight could cancel in `total - weights`."""
    weights, total = _weights(lib, logits, given, axis), _column(part.weight, given, axis, "smoothing")
    others = lib.xp.where(weights == part.largest_weight, part.other_weights, total - weights)
    return _smoothing_share(lib, part, given, axis) * others


def _smoothing_share(lib: Library, part: merging.Part, given: Criterion, axis: int) -> Any:
    """Return the target that smoothing gives to each class, before its weight."""
    number = _column(part.weight, given, axis, "classes")
    return given.label_smoothing / lib.xp.where(number < 1, 1, number)


def _own_classes(lib: Library, logits: Any, given: Criterion, axis: int, first_class: int) -> tuple[Any, Any]:
    """Return a piece's logits, -inf for excluded classes, 0 for ignored examples, and the labels among its classes."""
    logits = zero_uncounted(lib, unignored(given), masked_logits(lib, given.where, logits))
    if given.class_ids is None:
        return logits, None
    class_ids = relative_ids(lib, given.class_ids, first_class)
    if given.where is not None:
        class_ids = lib.xp.where(is_marked(lib, given.where, class_ids, logits.shape, axis), class_ids, -1)
    return logits, class_ids


def _column(columns: Any, given: Criterion, axis: int, name: str) -> Any:
    """Return the column of lags or weights that has a name."""
    i = _names_of(columns.shape[axis], given).index(name)
    return columns[(slice(None),) * axis + (slice(i, i + 1), ...)]


def _names_of(number: int, given: Criterion) -> list[str]:
    """Return the names of this number of columns.

    The first are the label, and the label times the weight of its class; or else the target probabilities. With
    smoothing, the weights of the classes follow, and their number, by which smoothing divides. The number is also a
    column for target probabilities with `where`.
    """
    first = ["probabilities"] if given.class_ids is None else ["label", "weighted label"]
    return [*first, *["smoothing", "classes"][len(first) + 2 - number :]]


def _dense_targets(lib: Library, logits: Any, given: Criterion, axis: int) -> list[Any]:
    """Return the targets with an entry for each class, in the order of their names."""
    targets = [] if given.probabilities is None else [_probabilities(lib, logits, given, axis)]
    if not is_off(given.label_smoothing):
        targets += [_weights(lib, logits, given, axis), _ones(lib, logits, given, axis)]
    elif given.probabilities is not None and given.where is not None:
        targets.append(_ones(lib, logits, given, axis))
    return targets


def _weights(lib: Library, logits: Any, given: Criterion, axis: int) -> Any:
    """Return the weights of the classes, 0 for those that are excluded."""
    ones = _ones(lib, logits, given, axis)
    return ones if given.class_weights is None else ones * given.class_weights


def _ones(lib: Library, logits: Any, given: Criterion, axis: int) -> Any:
    return zero_excluded(lib, given.where, lib.xp.broadcast_to(ones_along(lib, logits, axis), logits.shape))


def _probabilities(lib: Library, logits: Any, given: Criterion, axis: int) -> Any:
    """Return the target probabilities times the weights of the classes."""
    targets = zero_excluded(lib, given.where, lib.convert(given.probabilities, logits.dtype))
    return _weights(lib, logits, given, axis) * zero_uncounted(lib, unignored(given), targets)


def _weight_of_label(lib: Library, weight: Any, class_ids: Any, given: Criterion, axis: int) -> Any:
    """Return the weight of the label's class; 0 where the label is in another piece."""
    if given.class_weights is None:
        return weight
    has_label = weight == 1
    return lib.xp.where(
        has_label, class_weights_of(lib, given.class_weights, lib.xp.where(has_label, class_ids, 0), axis), 0
    )
