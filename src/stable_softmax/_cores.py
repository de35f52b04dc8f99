"""The rows' functions with their analytic derivatives, of any order.

The Jacobian of the softmax, `diag(p) - p p^T`, is the covariance of the classes. Its entries cancel where one class
leads, but it maps constants to 0: subtracting from a vector its own entry at the maximum changes nothing, and leaves
only what small probabilities multiply. Each derivative is written so that its transpose keeps the same digits.
"""

from types import ModuleType
from typing import Any

from stable_softmax import _labels, _rows
from stable_softmax._derivatives import Differentiable, call
from stable_softmax._sums import accurate_sum


def softmax(xp: ModuleType, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return the softmax, differentiable."""
    return call(_SOFTMAX, xp, logits, axes=axes)


def log_softmax(xp: ModuleType, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return the logarithm of the softmax, differentiable."""
    return call(_LOG_SOFTMAX, xp, logits, axes=axes)


def logsumexp(xp: ModuleType, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return the logarithm of the sum of the exponentials, differentiable."""
    return call(_LOGSUMEXP, xp, logits, axes=axes)


def crossentropy(xp: ModuleType, logits: Any, class_ids: Any, axis: int) -> Any:
    """Return the losses, differentiable."""
    return call(_CROSSENTROPY, xp, logits, class_ids, axis=axis)


def crossentropy_gradient(xp: ModuleType, logits: Any, class_ids: Any, axis: int, divisor: int = 1) -> Any:
    """Return the gradient of the losses, over `divisor`, differentiable."""
    return call(_GRADIENT, xp, logits, class_ids, axis=axis, divisor=divisor)


def crossentropy_and_gradient(
    xp: ModuleType, logits: Any, class_ids: Any, axis: int, divisor: int = 1
) -> tuple[Any, Any]:
    """Return both, differentiable."""
    losses, gradient = call(_CROSSENTROPY_AND_GRADIENT, xp, logits, class_ids, axis=axis, divisor=divisor)
    return losses, gradient


def hessian_product(xp: ModuleType, vector: Any, logits: Any, class_ids: Any, axis: int, divisor: int = 1) -> Any:
    """Return the Hessian of each example's loss times its vector, over `divisor`."""
    ones = xp.ones_like(class_ids, dtype=logits.dtype)
    counted = xp.where(_labels.in_range(class_ids, logits.shape[axis]), ones, xp.nan)
    return _covariance_product(xp, vector, logits, (axis,)) * (counted / divisor)


def _covariance_product(xp: ModuleType, vector: Any, logits: Any, axes: tuple[int, ...]) -> Any:
    probabilities, leaders = softmax(xp, logits, axes), _leaders(xp, logits, axes)
    centred = vector - accurate_sum(xp, leaders * vector, axes)
    product = probabilities * (centred - accurate_sum(xp, probabilities * centred, axes))
    # The sum is 0 but for rounding; without it, the transpose would not be centred.
    return product - leaders * accurate_sum(xp, product, axes)


def _leaders(xp: ModuleType, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return weights that share 1 out evenly among the maximal entries."""
    leading = xp.astype(logits == xp.max(logits, axis=axes, keepdims=True), logits.dtype)
    number = xp.sum(leading, axis=axes, keepdims=True)
    return leading / xp.where(number > 0, number, 1)


def _softmax_jvp(xp: ModuleType, vector: Any, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    return softmax(xp, logits, axes), _covariance_product(xp, vector, logits, axes)


def _log_softmax_jvp(xp: ModuleType, vector: Any, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    centred = vector - accurate_sum(xp, _leaders(xp, logits, axes) * vector, axes)
    tangent = centred - accurate_sum(xp, softmax(xp, logits, axes) * centred, axes)
    return log_softmax(xp, logits, axes), tangent


def _log_softmax_vjp(xp: ModuleType, cotangent: Any, logits: Any, axes: tuple[int, ...]) -> Any:
    product = cotangent - softmax(xp, logits, axes) * accurate_sum(xp, cotangent, axes)
    return product - _leaders(xp, logits, axes) * accurate_sum(xp, product, axes)


def _logsumexp_jvp(xp: ModuleType, vector: Any, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    tangent = accurate_sum(xp, softmax(xp, logits, axes) * vector, axes)
    return logsumexp(xp, logits, axes), tangent


def _logsumexp_vjp(xp: ModuleType, cotangent: Any, logits: Any, axes: tuple[int, ...]) -> Any:
    return cotangent * softmax(xp, logits, axes)


def _crossentropy_jvp(xp: ModuleType, vector: Any, logits: Any, class_ids: Any, axis: int) -> tuple[Any, Any]:
    losses, gradient = crossentropy_and_gradient(xp, logits, class_ids, axis)
    return losses, accurate_sum(xp, gradient * vector, (axis,))


def _crossentropy_vjp(xp: ModuleType, cotangent: Any, logits: Any, class_ids: Any, axis: int) -> Any:
    return cotangent * crossentropy_gradient(xp, logits, class_ids, axis)


def _gradient_jvp(xp: ModuleType, vector: Any, logits: Any, class_ids: Any, axis: int, divisor: int) -> tuple[Any, Any]:
    product = hessian_product(xp, vector, logits, class_ids, axis, divisor)
    return crossentropy_gradient(xp, logits, class_ids, axis, divisor), product


def _crossentropy_and_gradient_jvp(
    xp: ModuleType, vector: Any, logits: Any, class_ids: Any, axis: int, divisor: int
) -> tuple[Any, Any]:
    losses, gradient = crossentropy_and_gradient(xp, logits, class_ids, axis, divisor)
    slope = accurate_sum(xp, gradient * vector, (axis,)) * divisor
    return (losses, gradient), (slope, hessian_product(xp, vector, logits, class_ids, axis, divisor))


def _crossentropy_and_gradient_vjp(
    xp: ModuleType, cotangents: tuple[Any, Any], logits: Any, class_ids: Any, axis: int, divisor: int
) -> Any:
    first = _crossentropy_vjp(xp, cotangents[0], logits, class_ids, axis)
    return first + hessian_product(xp, cotangents[1], logits, class_ids, axis, divisor)


_SOFTMAX = Differentiable(_rows.softmax, _softmax_jvp, _covariance_product)
_LOG_SOFTMAX = Differentiable(_rows.log_softmax, _log_softmax_jvp, _log_softmax_vjp)
_LOGSUMEXP = Differentiable(_rows.logsumexp, _logsumexp_jvp, _logsumexp_vjp)
_CROSSENTROPY = Differentiable(
    _rows.crossentropy, _crossentropy_jvp, _crossentropy_vjp, _rows.crossentropy_and_gradient
)
_GRADIENT = Differentiable(_rows.crossentropy_gradient, _gradient_jvp, hessian_product)
_CROSSENTROPY_AND_GRADIENT = Differentiable(
    _rows.crossentropy_and_gradient, _crossentropy_and_gradient_jvp, _crossentropy_and_gradient_vjp
)
