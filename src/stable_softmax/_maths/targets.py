"""Targets of each row of logits, from labels and options.

Class ids, target probabilities, smoothing and weights all give targets `q`, and the loss is the sum of
`q_c * (logsumexp - z_c)`. The class with the largest target is treated as a label, apart from the others: for no other
class can target and probability agree in so many digits that their difference vanishes.

All arrays here have as many dimensions as the logits, and broadcast against them.
"""

from typing import Any, NamedTuple

from stable_softmax._core import trees
from stable_softmax._core.criterion import Criterion
from stable_softmax._libraries.standard import Library
from stable_softmax._maths.labels import entry, in_range, is_marked, ones_along, place_of
from stable_softmax._maths.sums import accurate_sum


class Targets(NamedTuple):
    """The targets of each row of logits."""

    #: The class that is treated as a label.
    class_ids: Any
    #: Target of this class; None for 1.
    scale: Any = None
    #: Targets of all other classes, with 0 for this one; None for 0.
    others: Any = None
    #: Mask of the examples that count; None if all do.
    counted: Any = None
    #: Mask of the classes to keep; None if all are kept.
    where: Any = None
    #: Coefficient of the penalty; None for 0.
    z_loss: Any = None
    #: What each example counts; None for 1.
    example_weights: Any = None
    #: Divisor of losses and gradients.
    divisor: Any = 1
    #: Whether all class ids are known to be in range.
    are_valid: bool = False
    #: Whether the targets are a plain label, perhaps with excluded classes.
    is_plain: bool = False


def targets_of(lib: Library, logits: Any, criterion: Criterion, axis: int) -> tuple[Any, Targets]:
    """Return the logits, with -inf for excluded classes and 0 for examples that do not count, and their targets."""
    if criterion.is_label:
        are_valid = criterion.are_valid
        return logits, Targets(criterion.class_ids, divisor=criterion.divisor, are_valid=are_valid, is_plain=True)
    logits = masked_logits(lib, criterion.where, logits)
    counted = counted_of(lib, criterion, axis)
    logits = zero_uncounted(lib, counted, logits)
    if criterion.class_ids is None:
        targets = _soft_targets(lib, logits, criterion, counted, axis)
    else:
        targets = _hard_targets(lib, logits, criterion, counted, axis)
    class_ids, scale, others = targets
    z_loss = None if is_off(criterion.z_loss) else criterion.z_loss
    return logits, Targets(
        class_ids,
        scale=scale,
        others=others,
        counted=counted,
        where=criterion.where,
        z_loss=z_loss,
        example_weights=criterion.example_weights,
        divisor=criterion.divisor,
        are_valid=criterion.are_valid or criterion.class_ids is None,
        is_plain=scale is others is counted is z_loss is None and not trees.is_leaf(criterion.divisor),
    )


def counted_of(lib: Library, criterion: Criterion, axis: int) -> Any:
    """Return a mask of the examples that count, or None if all do.

    An example with target probabilities does not count either if `where` excludes all its classes.
    """
    counted = unignored(criterion)
    if criterion.class_ids is not None or criterion.where is None:
        return counted
    any_left = lib.xp.any(criterion.where, axis=axis, keepdims=True)
    return any_left if counted is None else any_left & counted


def unignored(criterion: Criterion) -> Any:
    """Return a mask of the examples that neither their class id nor their weight says to ignore; None for all."""
    has_weight = None if criterion.example_weights is None else criterion.example_weights != 0
    if criterion.ignored_id is None:
        return has_weight
    counted = criterion.class_ids != criterion.ignored_id
    return counted if has_weight is None else counted & has_weight


def weights_in_divisor(lib: Library, criterion: Criterion, axis: int) -> Any:
    """Return the weight of each example in the divisor of the mean."""
    examples, class_weights = criterion.example_weights, criterion.class_weights
    counted = unignored(criterion)
    if criterion.class_ids is None or (class_weights is None and examples is not None):
        return zero_uncounted(lib, counted, examples)
    if class_weights is None:
        return lib.xp.astype(counted, criterion.class_ids.dtype)
    # A class id out of range makes the loss NaN, whatever the divisor is.
    valid = lib.xp.where(in_range(criterion.class_ids, class_weights.shape[axis]), criterion.class_ids, 0)
    weights = class_weights_of(lib, class_weights, valid, axis)
    return zero_uncounted(lib, counted, weights if examples is None else weights * examples)


def scale_root(lib: Library, weights: Any) -> Any:
    """Return a power of two near the square root of the largest weight; 1 if that is 0 or not finite.

    To divide by a power of two rounds nothing, and does not depend on the weights as far as derivatives can see.
    """
    axes = tuple(range(weights.ndim))
    if 0 in weights.shape:  # a 1 on the device of the weights
        return lib.xp.ones_like(lib.xp.sum(weights, axis=axes, keepdims=True))
    largest = lib.xp.max(weights, axis=axes, keepdims=True)
    largest = lib.xp.where((largest > 0) & (largest < lib.xp.inf), largest, 1)
    return 2.0 ** lib.xp.floor(lib.xp.log2(largest) / 2)


def over_square(lib: Library, values: Any, root: Any) -> Any:
    """Return positive values divided by `root` squared, at most the largest number of their dtype.

    The division takes two steps: XLA multiplies by reciprocals, and that of the square may be out of range.
    """
    largest = lib.limit(values.dtype, "max") * lib.xp.where(root < 1, root, 1)
    for _ in range(2):
        values = lib.rounded(lib.xp.where(values > largest, largest, values) / root)
    return values


def _hard_targets(lib: Library, logits: Any, criterion: Criterion, counted: Any, axis: int) -> Any:
    """Return class ids, their targets (None for 1), and the targets of all other classes (None for 0)."""
    class_ids, smoothing = criterion.class_ids, criterion.label_smoothing
    if criterion.where is not None:
        class_ids = lib.xp.where(is_marked(lib, criterion.where, class_ids, logits.shape, axis), class_ids, -1)
    class_ids = zero_uncounted(lib, counted, class_ids)
    scale = None
    if criterion.class_weights is not None:
        scale = class_weights_of(lib, criterion.class_weights, class_ids, axis)
    if is_off(smoothing):
        return class_ids, scale, None
    share, of_classes = _smoothing(lib, logits, criterion, axis)
    targets = lib.xp.zeros_like(logits) + share * of_classes  # new memory, to be overwritten
    place = place_of(lib, targets, class_ids, axis)
    if scale is None:  # without weights, the label has the largest target
        others = lib.put(targets, place.positions, 0)
        return class_ids, 1 - smoothing + share, others
    label = (1 - smoothing) * scale + entry(lib, targets, place)
    targets = lib.put(targets, place.positions, label)
    largest = lib.xp.argmax(targets, axis=axis, keepdims=True)
    largest = lib.xp.where(in_range(class_ids, logits.shape[axis]), largest, class_ids)
    place = place_of(lib, targets, largest, axis)
    scale = entry(lib, targets, place)
    return largest, scale, lib.put(targets, place.positions, 0)


def class_weights_of(lib: Library, class_weights: Any, class_ids: Any, axis: int) -> Any:
    """Return the class weight of each class id, or NaN where it is out of range."""
    weights, _ = lib.xp.broadcast_arrays(class_weights, class_ids)
    return entry(lib, weights, place_of(lib, weights, class_ids, axis))


def _soft_targets(lib: Library, logits: Any, criterion: Criterion, counted: Any, axis: int) -> Any:
    """Return the class with the largest target of each example, its target, and those of all other classes."""
    targets = zero_excluded(lib, criterion.where, lib.convert(criterion.probabilities, logits.dtype))
    targets = zero_uncounted(lib, counted, targets)
    if criterion.class_weights is not None:
        targets = targets * zero_excluded(lib, criterion.where, criterion.class_weights)
    if not is_off(criterion.label_smoothing):
        share, of_classes = _smoothing(lib, logits, criterion, axis)
        targets = (1 - criterion.label_smoothing) * targets + share * of_classes
    largest = lib.xp.argmax(targets, axis=axis, keepdims=True)
    others = lib.xp.where(lib.is_at(targets, largest, axis), 0, targets)
    # Not a maximum, whose derivative equal targets would share.
    scale = entry(lib, targets, place_of(lib, targets, largest, axis))
    return largest, scale, others


def _smoothing(lib: Library, logits: Any, criterion: Criterion, axis: int) -> tuple[Any, Any]:
    """Return the target that smoothing gives to each class before its weight, and the weights, 0 if excluded."""
    ones = zero_excluded(lib, criterion.where, ones_along(lib, logits, axis))
    number = accurate_sum(lib, ones, (axis,))
    share = criterion.label_smoothing / lib.xp.where(number < 1, 1, number)
    return share, ones if criterion.class_weights is None else zero_excluded(
        lib, criterion.where, criterion.class_weights
    )


def masked_logits(lib: Library, where: Any, logits: Any) -> Any:
    """Return logits with -inf for the classes that `where` excludes."""
    return logits if where is None else lib.xp.where(where, logits, -lib.xp.inf)


def zero_excluded(lib: Library, where: Any, values: Any) -> Any:
    """Return the values, with 0 for excluded classes."""
    return values if where is None else lib.xp.where(where, values, 0)


def zero_uncounted(lib: Library, counted: Any, values: Any) -> Any:
    """Return the values, with 0 for examples that do not count."""
    return values if counted is None else lib.xp.where(counted, values, 0)


def zero_untargeted(lib: Library, targets: Any, values: Any) -> Any:
    """Return the values, with 0 for infinite ones whose target is 0: so that their product is 0, and not NaN."""
    return lib.xp.where((targets == 0) & lib.xp.isinf(values), 0, values)


def is_off(number: Any) -> bool:
    """Whether a number is known to be 0."""
    return isinstance(number, float) and number == 0
