"""The loss of each row with all its options, and its derivatives, from those of a plain label.

With the label's target `s`, the others' `q`, `L = logsumexp` and `z_loss = k`, the loss is
`s * (loss of the label) + sum of q_c * -log_softmax_c + k L**2`, and each term is accurate.

The arrays beside the logits come by position, since they come in blocks; their names are in the options.
"""

import math
from types import ModuleType
from typing import Any

from stable_softmax import _cores
from stable_softmax._backends import warns
from stable_softmax._conversion import converted
from stable_softmax._sums import accurate_sum
from stable_softmax._targets import Options, Targets, targets_of


def losses(xp: ModuleType, logits: Any, *arrays: Any, axes: tuple[int, ...], options: Options) -> Any:
    """Return the losses over the divisor."""
    logits, targets = targets_of(xp, logits, arrays, axes[0], options)
    plain = _cores.crossentropy(xp, logits, targets.class_ids, axes[0])
    return _over_divisor(plain, targets) if targets.is_plain else _loss(xp, plain, logits, targets, axes)


def gradient(xp: ModuleType, logits: Any, *arrays: Any, axes: tuple[int, ...], options: Options) -> Any:
    """Return the gradient of the losses over the divisor."""
    logits, targets = targets_of(xp, logits, arrays, axes[0], options)
    if targets.is_plain:
        rows = _cores.crossentropy_gradient(xp, logits, targets.class_ids, axes[0], targets.divisor)
        return _of_left(xp, rows, targets)
    plain = _cores.crossentropy_gradient(xp, logits, targets.class_ids, axes[0])
    return _gradient(xp, plain, logits, targets, axes)


def losses_and_gradient(
    xp: ModuleType, logits: Any, *arrays: Any, axes: tuple[int, ...], options: Options
) -> tuple[Any, Any]:
    """Return both."""
    logits, targets = targets_of(xp, logits, arrays, axes[0], options)
    if targets.is_plain:
        plain, rows = _cores.crossentropy_and_gradient(xp, logits, targets.class_ids, axes[0], targets.divisor)
        return _over_divisor(plain, targets), _of_left(xp, rows, targets)
    plain, rows = _cores.crossentropy_and_gradient(xp, logits, targets.class_ids, axes[0])
    return _loss(xp, plain, logits, targets, axes), _gradient(xp, rows, logits, targets, axes)


def hessian_product(
    xp: ModuleType, logits: Any, vector: Any, *arrays: Any, axes: tuple[int, ...], options: Options
) -> Any:
    """Return the Hessian of each loss, over the divisor, times its vector."""
    logits, targets = targets_of(xp, logits, arrays, axes[0], options)
    vector = converted(xp, vector, logits.dtype)
    if targets.is_plain:
        product = _cores.hessian_product(xp, vector, logits, targets.class_ids, axes[0], targets.divisor)
        return _of_left(xp, product, targets)
    product = _cores.hessian_product(xp, vector, logits, targets.class_ids, axes[0])
    pull = (1 if targets.scale is None else targets.scale) + _pull(xp, logits, targets, axes)
    product = product * pull
    if targets.z_loss:
        probabilities = _cores.softmax(xp, logits, axes)
        slope = accurate_sum(xp, probabilities * vector, axes)
        product = product + _times(xp, 2 * targets.z_loss, slope) * probabilities
    return _of_left(xp, product / targets.divisor, targets)


def _loss(xp: ModuleType, plain: Any, logits: Any, targets: Targets, axes: tuple[int, ...]) -> Any:
    loss = plain if targets.scale is None else _weighted(xp, targets.scale, plain)
    if targets.others is not None:
        terms = _weighted(xp, targets.others, -_cores.log_softmax(xp, logits, axes))
        loss = loss + accurate_sum(xp, terms, axes)
    if targets.z_loss:
        loss = loss + _square(xp, _times(xp, math.sqrt(targets.z_loss), _cores.logsumexp(xp, logits, axes)))
    return _over_divisor(_of_counted(xp, loss, targets), targets)


def _over_divisor(losses: Any, targets: Targets) -> Any:
    """Return the losses' shares of the mean, which cannot overflow where their sum could."""
    undivided = isinstance(targets.divisor, int) and targets.divisor == 1
    return losses if undivided else losses / targets.divisor


def _gradient(xp: ModuleType, plain: Any, logits: Any, targets: Targets, axes: tuple[int, ...]) -> Any:
    rows = plain if targets.scale is None else targets.scale * plain
    if targets.others is not None or targets.z_loss:
        rows = rows + _pull(xp, logits, targets, axes) * _cores.softmax(xp, logits, axes)
    if targets.others is not None:
        rows = rows - targets.others
    return _of_left(xp, rows / targets.divisor, targets)


def _pull(xp: ModuleType, logits: Any, targets: Targets, axes: tuple[int, ...]) -> Any:
    """Return what multiplies the probabilities in the gradient, without the part of `scale`."""
    pull = 0 if targets.others is None else accurate_sum(xp, targets.others, axes)
    if targets.z_loss:
        pull = pull + _times(xp, 2 * targets.z_loss, _cores.logsumexp(xp, logits, axes))
    return pull


def _weighted(xp: ModuleType, weights: Any, values: Any) -> Any:
    """Return the product, where 0 times infinity is 0."""
    return weights * xp.where((weights == 0) & xp.isinf(values), 0, values)


def _times(xp: ModuleType, number: float, values: Any) -> Any:
    """Return the products, at most the largest number: infinity times a probability of 0 would be NaN."""
    largest = float(xp.finfo(values.dtype).max)
    factor = min(number, largest)
    limit = largest / max(1, factor) * (1 - float(xp.finfo(values.dtype).eps))
    return factor * xp.clip(values, min=-limit, max=limit)


def _square(xp: ModuleType, values: Any) -> Any:
    """Return the squares, without NumPy's warning where they overflow."""
    if not warns(xp):
        return values**2
    overflows = xp.abs(values) > math.sqrt(float(xp.finfo(values.dtype).max))
    return xp.where(overflows, xp.inf, xp.where(overflows, 0, values) ** 2)


def _of_left(xp: ModuleType, rows: Any, targets: Targets) -> Any:
    """Return derivatives, with 0 for what does not count, as autodiff has it."""
    if targets.where is not None:
        rows = xp.where(targets.where, rows, 0)
    return _of_counted(xp, rows, targets)


def _of_counted(xp: ModuleType, rows: Any, targets: Targets) -> Any:
    return rows if targets.counted is None else xp.where(targets.counted, rows, 0)
