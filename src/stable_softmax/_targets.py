"""Reference answers with their options, as what each row of logits is compared with.

Class ids, probabilities, smoothing and weights all come to targets `q`, and the loss to the sum of
`q_c * (logsumexp - z_c)`. The targets are split into one class, which is treated as a label, and the rest. That class
is the class id, or has the largest target: no other target can agree with its probability in so many digits that
their difference vanishes.

All arrays here have as many dimensions as the logits, and broadcast against them.
"""

from types import ModuleType
from typing import Any, NamedTuple

from array_api_compat import device

from stable_softmax import _labels
from stable_softmax._backends import is_eager
from stable_softmax._conversion import converted
from stable_softmax._sums import accurate_sum


class Options(NamedTuple):
    """What a loss is called with, apart from the arrays."""

    #: What the arrays beside the logits are: "class_ids" or "probabilities", "where", "class_weights", "divisor".
    names: tuple[str, ...] = ("class_ids",)
    label_smoothing: float = 0.0
    #: As it is among class ids of the default integer dtype; None if no example is ignored.
    ignored_id: int | None = None
    z_loss: float = 0.0
    #: What losses and gradients are divided by, unless the arrays hold a divisor.
    divisor: int = 1


class Targets(NamedTuple):
    """What each row of logits is compared with."""

    #: The class that is treated as a label.
    class_ids: Any
    #: Its target, or what the label's target has beyond `others`; None for 1.
    scale: Any = None
    #: The targets of all classes, without what `scale` has; None for 0.
    others: Any = None
    #: Whether the example counts; None if all do.
    counted: Any = None
    #: Which classes are left; None if all are.
    where: Any = None
    z_loss: float = 0.0
    #: What losses and gradients are divided by.
    divisor: Any = 1

    @property
    def is_plain(self) -> bool:
        """Whether this is a label and nothing else, of all classes or of some."""
        return self.scale is None and self.others is None and self.counted is None and not self.z_loss


def targets_of(
    xp: ModuleType, logits: Any, arrays: tuple[Any, ...], axis: int, options: Options
) -> tuple[Any, Targets]:
    """Return the logits, with -inf for what `where` excludes and 0 for what is ignored, and their targets."""
    named = dict(zip(options.names, arrays, strict=True))
    if "where" in named:
        logits = xp.where(named["where"], logits, -xp.inf)
    split = _hard_targets if "class_ids" in named else _soft_targets
    logits, targets = split(xp, logits, named, axis, options)
    return logits, targets._replace(
        where=named.get("where"), z_loss=options.z_loss, divisor=named.get("divisor", options.divisor)
    )


def example_weights(xp: ModuleType, logits: Any, *arrays: Any, axes: tuple[int, ...], options: Options) -> Any:
    """Return what each example contributes to the divisor of the mean over class ids."""
    named = dict(zip(options.names, arrays, strict=True))
    class_ids = named["class_ids"]
    weights = xp.ones_like(class_ids, dtype=logits.dtype)
    if "class_weights" in named:
        # A class id out of range makes the loss NaN, whatever it is divided by.
        valid = xp.clip(class_ids, min=0, max=logits.shape[axes[0]] - 1)
        weights = _weights_of(xp, logits, named, valid, axes[0])
    counted = _counted(class_ids, options)
    return weights if counted is None else xp.where(counted, weights, 0)


def checked_weights(xp: ModuleType, class_weights: Any) -> Any:
    """Raise for the first bad class weight where values can be read for free; elsewhere, make bad ones NaN."""
    good = (class_weights >= 0) & (class_weights < xp.inf)
    if not is_eager(xp, class_weights):
        return xp.where(good, class_weights, xp.nan)
    if not xp.all(good):
        position, value = _labels.first_bad(xp, good, xp.reshape(class_weights, (-1,)))
        raise ValueError(f"class_weights must be finite and not negative, but is {value} at position {position}")
    return class_weights


def _hard_targets(
    xp: ModuleType, logits: Any, named: dict[str, Any], axis: int, options: Options
) -> tuple[Any, Targets]:
    class_ids = named["class_ids"]
    counted = _counted(class_ids, options)
    if "where" in named:
        class_ids = xp.where(_labels.is_marked(xp, named["where"], class_ids, logits.shape, axis), class_ids, -1)
    if counted is not None:
        logits, class_ids = xp.where(counted, logits, 0), xp.where(counted, class_ids, 0)
    scale, others = None, None
    if "class_weights" in named:
        scale = _weights_of(xp, logits, named, class_ids, axis)
    if options.label_smoothing:
        kept = 1 - options.label_smoothing
        scale = kept if scale is None else kept * scale
        others = _smoothing(xp, logits, named, axis, options)
    return logits, Targets(class_ids, scale, others, counted)


def _weights_of(xp: ModuleType, logits: Any, named: dict[str, Any], class_ids: Any, axis: int) -> Any:
    """Return the weight of each example's class, NaN where the id is out of range."""
    weights = xp.broadcast_to(named["class_weights"], logits.shape)
    return _labels.entry(xp, weights, _labels.place_of(xp, logits.shape, class_ids, axis), axis)


def _counted(class_ids: Any, options: Options) -> Any:
    return None if options.ignored_id is None else class_ids != options.ignored_id


def _soft_targets(
    xp: ModuleType, logits: Any, named: dict[str, Any], axis: int, options: Options
) -> tuple[Any, Targets]:
    targets = _left(xp, named, converted(xp, named["probabilities"], logits.dtype))
    if "class_weights" in named:
        targets = targets * _left(xp, named, named["class_weights"])
    if options.label_smoothing:
        targets = (1 - options.label_smoothing) * targets + _smoothing(xp, logits, named, axis, options)
    largest = xp.argmax(targets, axis=axis, keepdims=True)
    others = xp.where(_labels.is_entry(xp, targets, largest, axis), 0, targets)
    scale = xp.max(targets, axis=axis, keepdims=True)
    return logits, Targets(largest, scale, others)


def _smoothing(xp: ModuleType, logits: Any, named: dict[str, Any], axis: int, options: Options) -> Any:
    """Return the targets that smoothing gives: an equal share of each class that `where` leaves, weighted."""
    ones = xp.ones(
        tuple(length if i == axis else 1 for i, length in enumerate(logits.shape)),
        dtype=logits.dtype,
        device=device(logits),
    )
    left = _left(xp, named, ones)
    share = options.label_smoothing / xp.clip(accurate_sum(xp, left, (axis,)), min=1)
    return share * (_left(xp, named, named["class_weights"]) if "class_weights" in named else left)


def _left(xp: ModuleType, named: dict[str, Any], values: Any) -> Any:
    """Return the values, with 0 for the classes that `where` excludes."""
    return xp.where(named["where"], values, 0) if "where" in named else values
