"""Rows whose classes lie in several pieces, none of them empty: the part of each piece, and the results from all parts.

Results for each row come from the merged part alone, and results for each class from the merged part and a piece.
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


def part_of_losses(
    lib: Library, logits: Any, given: Criterion, axes: tuple[int, ...], first_class: int
) -> merging.Part:
    """Return the part of a piece for the losses; `given.class_ids` count all classes of the row."""
    (axis,) = axes
    logits, class_ids = _own_classes(lib, logits, given, axis, first_class)
    lags = {}
    if class_ids is None:
        part = merging.without_label(lib, logits, axes)
        targets = _probabilities(lib, logits, given, axis)
        lags["targets_lag"] = merging.lag_of_targets(lib, logits, targets, axis=axis)
    else:
        maximum, tail, lag, weight = merging.statistics(lib, logits, class_ids, axis=axis)
        part = merging.Part(maximum, tail, lib.xp.zeros_like(tail), lag, weight)
    if not is_off(given.label_smoothing):
        weights = _weights(lib, logits, given, axis)
        lags["smoothing_lag"] = merging.lag_of_targets(lib, logits, weights, axis=axis)
    return part._replace(**lags, **_sums_of_targets(lib, logits, class_ids, part.weight, given, axis))


def part_of_derivatives(
    lib: Library, logits: Any, given: Criterion, axes: tuple[int, ...], first_class: int
) -> merging.Part:
    """Return the part of a piece for derivatives with class ids, which need no lags."""
    (axis,) = axes
    logits, class_ids = _own_classes(lib, logits, given, axis, first_class)
    part = merging.without_label(lib, logits, axes)
    weight = lib.xp.astype(in_range(class_ids, logits.shape[axis]), logits.dtype)
    return part._replace(weight=weight, **_sums_of_targets(lib, logits, class_ids, weight, given, axis))


def _sums_of_targets(
    lib: Library, logits: Any, class_ids: Any, weight: Any, given: Criterion, axis: int
) -> dict[str, Any]:
    """Return the fields of a part that are sums of targets; `class_ids` count the classes of the piece.

    The weight is 1 where the piece has the label, else 0.
    """
    targets, sums = {}, {}
    if class_ids is None:
        targets["targets_weight"] = _probabilities(lib, logits, given, axis)
    elif given.class_weights is not None:
        sums["class_weight"] = _weight_of_label(lib, weight, class_ids, given.class_weights, axis)
    if not is_off(given.label_smoothing):
        targets["smoothing_weight"] = _weights(lib, logits, given, axis)
    if not is_off(given.label_smoothing) or (class_ids is None and given.where is not None):
        targets["classes"] = _ones(lib, logits, given, axis)
    return sums | {name: accurate_sum(lib, values, (axis,)) for name, values in targets.items()}


def merged_with_weights(lib: Library, first: merging.Part, second: merging.Part) -> merging.Part:
    """Return the part that two parts of losses or of derivatives form together."""
    part: merging.Part = merging.merged(lib, first, second)
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


def statistics(lib: Library, logits: Any, given: Criterion, axes: tuple[int, ...]) -> tuple[Any, ...]:
    """Return the statistics of some classes, those that `names_of_statistics` names."""
    if logits.shape[axes[0]] == 0:
        nothing = lib.xp.zeros_like(given.class_ids, dtype=logits.dtype)
        return nothing - lib.xp.inf, *[nothing] * (len(names_of_statistics(given)) - 1)
    return statistics_of_part(lib, part_of_losses(lib, logits, given, axes, first_class=0))


def statistics_of_part(_lib: Library, part: merging.Part, _given: Any = None, axes: Any = None) -> tuple[Any, ...]:
    """Return the statistics from the part of all these classes."""
    del axes
    exact = part._replace(tail=part.tail + part.tail_error, tail_error=None)
    return tuple([field for field in exact if field is not None])


def names_of_statistics(given: Criterion) -> list[str]:
    """Return the names of those fields of a part that its statistics have."""
    names = ["maximum", "tail", "lag", "weight"]
    if given.class_weights is not None:
        names.append("class_weight")
    return names if is_off(given.label_smoothing) else [*names, "smoothing_lag", "smoothing_weight", "classes"]


def logsumexp_of_statistics(lib: Library, part: Any) -> Any:
    """Return the logsumexp of all classes, 0 for examples that do not count."""
    counted = None if part.example_weight is None else part.example_weight != 0
    return zero_uncounted(lib, counted, merging.logsumexp(lib, part))


def losses_of_part(lib: Library, part: Any, given: Criterion, axes: tuple[int, ...] = ()) -> Any:
    """Return the losses divided by the divisor."""
    del axes
    targets = _targets(part, given)
    if part.lag is None:
        one = lib.xp.ones_like(part.maximum)
        plain = merging.crossentropy_of_targets(lib, part, part.targets_lag, part.targets_weight, one)
        plain = lib.xp.where(lib.xp.isfinite(part.maximum), plain, lib.xp.nan)
        if part.classes is not None:
            any_left = part.classes > 0
            targets = targets._replace(counted=any_left if targets.counted is None else any_left & targets.counted)
    else:
        plain = merging.crossentropy(lib, part, targets.counted)
    if not is_off(given.label_smoothing):
        targets = targets._replace(others=_smoothing_share(lib, part, given))
    return objective.loss_from_terms(
        lib,
        plain,
        lambda: merging.crossentropy_of_targets(lib, part, part.smoothing_lag, part.smoothing_weight, targets.others),
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
    part = part._replace(maximum=lib.xp.where(part.weight == 1, part.maximum, lib.xp.nan))
    targets, total = _targets(part, given), 0
    if not is_off(given.label_smoothing):
        share = _smoothing_share(lib, part, given)
        total = share * part.smoothing_weight
        targets = targets._replace(others=share * _weights(lib, logits, given, axis))
    entries = _entries_of(lib, logits, part)
    terms = objective.Terms(lambda: entries.probabilities, lambda: merging.logsumexp(lib, part), lambda: total)
    return class_ids, entries, terms, targets


def _targets(part: Any, given: Criterion) -> Targets:
    """Return the targets without those of smoothing."""
    scale = part.class_weight
    if not is_off(given.label_smoothing):
        kept = 1 - given.label_smoothing
        scale = kept if scale is None else kept * scale
    return Targets(
        given.class_ids,
        scale=scale,
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
    weights = _weights(lib, logits, given, axis)
    others = lib.xp.where(weights == part.largest_weight, part.other_weights, part.smoothing_weight - weights)
    return _smoothing_share(lib, part, given) * others


def _smoothing_share(lib: Library, part: Any, given: Criterion) -> Any:
    """Return the target that smoothing gives to each class, before its weight."""
    return given.label_smoothing / lib.xp.where(part.classes < 1, 1, part.classes)


def _own_classes(lib: Library, logits: Any, given: Criterion, axis: int, first_class: int) -> tuple[Any, Any]:
    """Return a piece's logits, -inf for excluded classes, 0 for ignored examples, and the labels among its classes."""
    logits = zero_uncounted(lib, unignored(given), masked_logits(lib, given.where, logits))
    if given.class_ids is None:
        return logits, None
    class_ids = relative_ids(lib, given.class_ids, first_class)
    if given.where is not None:
        class_ids = lib.xp.where(is_marked(lib, given.where, class_ids, logits.shape, axis), class_ids, -1)
    return logits, class_ids


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


def _weight_of_label(lib: Library, weight: Any, class_ids: Any, class_weights: Any, axis: int) -> Any:
    """Return the weight of the label's class; 0 where the label is in another piece."""
    has_label = weight == 1
    own_ids = lib.xp.where(has_label, class_ids, 0)
    return lib.xp.where(has_label, class_weights_of(lib, class_weights, own_ids, axis), 0)
