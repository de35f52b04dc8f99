"""Reference answers with their options, as what each row of logits is compared with.

Class ids, probabilities, smoothing and weights all come to targets `q`, and the loss to the sum of
`q_c * (logsumexp - z_c)`. The targets are split into one class, which is treated as a label, and the rest. That class
has the largest target: no other target can agree with its probability in so many digits that their difference vanishes.

All arrays here have as many dimensions as the logits, and broadcast against them.
"""

from types import ModuleType
from typing import Any, NamedTuple

from stable_softmax._libraries._operations import computed_alone, limit
from stable_softmax._maths import _labels
from stable_softmax._maths._conversion import converted
from stable_softmax._maths._sums import accurate_sum


class Criterion(NamedTuple):
    """What logits are compared with, and how: arrays, None for those that are absent, and numbers."""

    class_ids: Any = None
    #: Target probabilities, in the place of class ids.
    probabilities: Any = None
    where: Any = None
    class_weights: Any = None
    #: A float, or an array of one.
    label_smoothing: Any = 0.0
    #: A float, or an array of one.
    z_loss: Any = 0.0
    #: What losses and gradients are divided by.
    divisor: Any = 1
    #: As it is among class ids of the default integer dtype; None if no example is ignored.
    ignored_id: int | None = None


class Targets(NamedTuple):
    """What each row of logits is compared with."""

    #: The class that is treated as a label.
    class_ids: Any
    #: Its target; None for 1.
    scale: Any = None
    #: The targets of all other classes, and 0 for this one; None for 0.
    others: Any = None
    #: Whether the example counts; None if all do.
    counted: Any = None
    #: Which classes are left; None if all are.
    where: Any = None
    #: None for 0.
    z_loss: Any = None
    #: What losses and gradients are divided by.
    divisor: Any = 1

    @property
    def is_plain(self) -> bool:
        """Whether this is a label and nothing else, of all classes or of some."""
        return self.scale is None and self.others is None and self.counted is None and self.z_loss is None


def targets_of(xp: ModuleType, logits: Any, criterion: Criterion, axis: int) -> tuple[Any, Targets]:
    """Return the logits, with -inf for what `where` excludes and 0 for what does not count, and their targets."""
    if criterion.where is not None:
        logits = xp.where(criterion.where, logits, -xp.inf)
    counted = counted_of(xp, criterion, axis)
    if counted is not None:
        logits = xp.where(counted, logits, 0)
    if criterion.class_ids is None:
        targets = _soft_targets(xp, logits, criterion, axis)
    else:
        targets = _hard_targets(xp, logits, criterion, counted, axis)
    z_loss = None if is_off(criterion.z_loss) else criterion.z_loss
    return logits, targets._replace(counted=counted, where=criterion.where, z_loss=z_loss, divisor=criterion.divisor)


def counted_of(xp: ModuleType, criterion: Criterion, axis: int) -> Any:
    """Return which examples count, or None if all do.

    Those with target probabilities do where a class is left: of none, the loss is a sum over nothing.
    """
    if criterion.class_ids is None:
        return None if criterion.where is None else xp.any(criterion.where, axis=axis, keepdims=True)
    return None if criterion.ignored_id is None else criterion.class_ids != criterion.ignored_id


def example_weights(xp: ModuleType, class_ids: Any, class_weights: Any, axis: int, ignored_id: int | None) -> Any:
    """Return what each example contributes to the divisor of the mean over class ids."""
    counted = None if ignored_id is None else class_ids != ignored_id
    if class_weights is None:
        return xp.astype(counted, class_ids.dtype)
    # A class id out of range makes the loss NaN, whatever it is divided by.
    valid = xp.where(_labels.in_range(class_ids, class_weights.shape[axis]), class_ids, 0)
    weights = weights_of(xp, class_weights, valid, axis)
    return weights if counted is None else xp.where(counted, weights, 0)


def scale_root(xp: ModuleType, weights: Any) -> Any:
    """Return the root of the largest weight where sums of such weights may leave a dtype, and 1 elsewhere."""
    axes = tuple(range(weights.ndim))
    if 0 in weights.shape:  # a 1 on the device of the weights
        return xp.ones_like(xp.sum(weights, axis=axes, keepdims=True))
    largest = xp.max(weights, axis=axes, keepdims=True)
    is_extreme = (largest > 0) & (largest < 2.0**-64) | (largest > 2.0**64) & (largest < xp.inf)
    return xp.sqrt(xp.where(is_extreme, largest, 1))


def over_square(xp: ModuleType, values: Any, root: Any) -> Any:
    """Return positive values over a square, at most the largest number.

    In two steps: the reciprocal of the square, which XLA multiplies by, may leave the dtype.
    """
    largest = limit(xp, values.dtype, "max") * xp.where(root < 1, root, 1)
    for _ in range(2):
        values = computed_alone(xp, xp.where(values > largest, largest, values) / root)
    return values


def _hard_targets(xp: ModuleType, logits: Any, criterion: Criterion, counted: Any, axis: int) -> Targets:
    class_ids, smoothing = criterion.class_ids, criterion.label_smoothing
    if criterion.where is not None:
        class_ids = xp.where(_labels.is_marked(xp, criterion.where, class_ids, logits.shape, axis), class_ids, -1)
    if counted is not None:
        class_ids = xp.where(counted, class_ids, 0)
    scale = None
    if criterion.class_weights is not None:
        scale = weights_of(xp, criterion.class_weights, class_ids, axis)
    if is_off(smoothing):
        return Targets(class_ids, scale)
    share, of_classes = _smoothing(xp, logits, criterion, axis)
    targets = xp.zeros_like(logits) + share * of_classes  # memory of its own, to be written to
    place = _labels.place_of(xp, targets, class_ids, axis)
    if scale is None:  # without weights, no class has more than the label
        others = _labels.with_entry(xp, targets, place, axis, 0)
        return Targets(class_ids, 1 - smoothing + share, others)
    label = (1 - smoothing) * scale + _labels.entry(xp, targets, place, axis)
    targets = _labels.with_entry(xp, targets, place, axis, label)
    largest = xp.argmax(targets, axis=axis, keepdims=True)
    largest = xp.where(_labels.in_range(class_ids, logits.shape[axis]), largest, class_ids)
    place = _labels.place_of(xp, targets, largest, axis)
    scale = _labels.entry(xp, targets, place, axis)
    return Targets(largest, scale, _labels.with_entry(xp, targets, place, axis, 0))


def weights_of(xp: ModuleType, class_weights: Any, class_ids: Any, axis: int) -> Any:
    """Return the weight of each example's class, NaN where the id is out of range."""
    shape = class_ids.shape
    weights = xp.broadcast_to(class_weights, (*shape[:axis], class_weights.shape[axis], *shape[axis + 1 :]))
    return _labels.entry(xp, weights, _labels.place_of(xp, weights, class_ids, axis), axis)


def _soft_targets(xp: ModuleType, logits: Any, criterion: Criterion, axis: int) -> Targets:
    targets = left_of(xp, criterion, converted(xp, criterion.probabilities, logits.dtype))
    if criterion.class_weights is not None:
        targets = targets * left_of(xp, criterion, criterion.class_weights)
    if not is_off(criterion.label_smoothing):
        share, of_classes = _smoothing(xp, logits, criterion, axis)
        targets = (1 - criterion.label_smoothing) * targets + share * of_classes
    largest = xp.argmax(targets, axis=axis, keepdims=True)
    others = xp.where(_labels.is_entry(xp, targets, largest, axis), 0, targets)
    # Not the maximum, whose derivative equal targets would share.
    scale = _labels.entry(xp, targets, _labels.place_of(xp, targets, largest, axis), axis)
    return Targets(largest, scale, others)


def _smoothing(xp: ModuleType, logits: Any, criterion: Criterion, axis: int) -> tuple[Any, Any]:
    """Return each class's share of what smoothing spreads, and the weights of the classes, 0 for those excluded."""
    ones = left_of(xp, criterion, _labels.ones_along(xp, logits, axis))
    number = accurate_sum(xp, ones, (axis,))
    share = criterion.label_smoothing / xp.where(number < 1, 1, number)
    return share, ones if criterion.class_weights is None else left_of(xp, criterion, criterion.class_weights)


def left_of(xp: ModuleType, criterion: Criterion, values: Any) -> Any:
    """Return the values, with 0 for the classes that `where` excludes."""
    return values if criterion.where is None else xp.where(criterion.where, values, 0)


def is_off(number: Any) -> bool:
    """Return whether a number is known to be 0."""
    return isinstance(number, float) and number == 0
