"""The rows' functions with their analytic derivatives, of any order.

Each derivative is written so that its transpose, which is what reverse mode evaluates, keeps the same digits.
"""

from types import ModuleType
from typing import Any

from stable_softmax._libraries._differentiable import Differentiable
from stable_softmax._libraries._operations import computed, nan_where, with_neighbours
from stable_softmax._libraries._reductions import maximum_along
from stable_softmax._maths import _labels, _rows
from stable_softmax._maths._sums import accurate_sum, sum_of_products


def hessian_product(
    xp: ModuleType, vector: Any, logits: Any, class_ids: Any, axis: int, divisor: int = 1, into: Any = None
) -> Any:
    """Return the Hessian of each example's loss times its vector, over `divisor`."""
    share = _share(xp, logits, class_ids, axis, divisor)
    return computed(xp.multiply, _covariance_product(xp, vector, logits, (axis,)), share, into=into)


def hessian_diagonal(xp: ModuleType, logits: Any, class_ids: Any, axis: int, divisor: int = 1, into: Any = None) -> Any:
    """Return the diagonal of the Hessian of each example's loss, over `divisor`."""
    rows = variance(xp, logits, axes=(axis,), into=into)
    return computed(xp.multiply, rows, _share(xp, logits, class_ids, axis, divisor), into=into)


def _share(xp: ModuleType, logits: Any, class_ids: Any, axis: int, divisor: int) -> Any:
    """Return what each example's loss counts for: NaN where its class id is out of range."""
    share = xp.ones_like(class_ids, dtype=logits.dtype) / divisor
    return nan_where(xp, ~_labels.in_range(class_ids, logits.shape[axis]), share)


def _covariance_product(xp: ModuleType, vector: Any, logits: Any, axes: tuple[int, ...]) -> Any:
    # The Jacobian of the softmax, `(diag(p) - p p^T) v = p * (v - sum(p v))`, is the covariance of the classes. It maps
    # constants to 0, since `sum(p) = 1`: with `m` the leader, `w = v - v_m` gives the same, `p * (w - sum(p w))`.
    # Where `p_m` is nearly 1, `v - sum(p v)` cancels at `m`; but `w_m = 0`, so that `sum(p w)` has small terms only.
    # The Jacobian is symmetric; to be centred likewise, the product's own sum is taken off at `m`: 0 but for rounding.
    probabilities, leaders = softmax(xp, logits, axes=axes), leaders_of(xp, logits, axes)
    deviation = _half_deviation(xp, vector, probabilities, leaders, axes)
    product = 2 * probabilities * deviation
    return product - leaders * accurate_sum(xp, product, axes)


def _half_deviation(xp: ModuleType, vector: Any, probabilities: Any, leaders: Any, axes: tuple[int, ...]) -> Any:
    """Return half of what a vector's entries differ from their mean: the whole may be too large for the dtype."""
    half = vector / 2
    centred = half - sum_of_products(xp, leaders, half, axes)
    return centred - sum_of_products(xp, probabilities, centred, axes)


def leaders_of(xp: ModuleType, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return weights that share 1 out evenly among the maximal entries."""
    leading = xp.astype(logits == maximum_along(xp, logits, axes), logits.dtype)
    number = xp.sum(leading, axis=axes, keepdims=True)
    return leading / xp.where(number > 0, number, 1)


def _softmax_jvp(xp: ModuleType, vector: Any, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    return softmax(xp, logits, axes=axes), _covariance_product(xp, vector, logits, axes)


def _log_softmax_jvp(xp: ModuleType, vector: Any, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    probabilities, leaders = softmax(xp, logits, axes=axes), leaders_of(xp, logits, axes)
    return log_softmax(xp, logits, axes=axes), 2 * _half_deviation(xp, vector, probabilities, leaders, axes)


def _log_softmax_vjp(xp: ModuleType, cotangent: Any, logits: Any, axes: tuple[int, ...]) -> Any:
    cotangent = with_neighbours(xp, cotangent)  # whose memory is the caller's
    product = cotangent - softmax(xp, logits, axes=axes) * accurate_sum(xp, cotangent, axes)
    return product - leaders_of(xp, logits, axes) * accurate_sum(xp, product, axes)


def _logsumexp_jvp(xp: ModuleType, vector: Any, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    tangent = sum_of_products(xp, _shares(xp, logits, axes), vector, axes)
    return logsumexp(xp, logits, axes=axes), tangent


def _logsumexp_vjp(xp: ModuleType, cotangent: Any, logits: Any, axes: tuple[int, ...]) -> Any:
    return cotangent * _shares(xp, logits, axes)


def _shares(xp: ModuleType, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return the softmax, and 0 in a row of nothing but -inf: what is impossible gets no share of a gradient."""
    nothing = maximum_along(xp, logits, axes) == -xp.inf
    return xp.where(nothing, 0, softmax(xp, xp.where(nothing, 0, logits), axes=axes))


def _variance_jvp(xp: ModuleType, vector: Any, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    slopes = 1 - 2 * softmax(xp, logits, axes=axes)
    return variance(xp, logits, axes=axes), slopes * _covariance_product(xp, vector, logits, axes)


def _variance_vjp(xp: ModuleType, cotangent: Any, logits: Any, axes: tuple[int, ...]) -> Any:
    return _covariance_product(xp, (1 - 2 * softmax(xp, logits, axes=axes)) * cotangent, logits, axes)


def _crossentropy_jvp(xp: ModuleType, vector: Any, logits: Any, class_ids: Any, axis: int) -> tuple[Any, Any]:
    losses, gradient = crossentropy_and_gradient(xp, logits, class_ids, axis=axis)
    return losses, sum_of_products(xp, gradient, vector, (axis,))


def _crossentropy_vjp(xp: ModuleType, cotangent: Any, logits: Any, class_ids: Any, axis: int) -> Any:
    return cotangent * crossentropy_gradient(xp, logits, class_ids, axis=axis)


def _gradient_jvp(
    xp: ModuleType, vector: Any, logits: Any, class_ids: Any, axis: int, divisor: int = 1
) -> tuple[Any, Any]:
    product = hessian_product(xp, vector, logits, class_ids, axis, divisor)
    return crossentropy_gradient(xp, logits, class_ids, axis=axis, divisor=divisor), product


def _crossentropy_and_gradient_jvp(
    xp: ModuleType, vector: Any, logits: Any, class_ids: Any, axis: int, divisor: int = 1
) -> tuple[Any, Any]:
    losses, gradient = crossentropy_and_gradient(xp, logits, class_ids, axis=axis, divisor=divisor)
    slope = sum_of_products(xp, gradient, vector, (axis,)) * divisor
    return (losses, gradient), (slope, hessian_product(xp, vector, logits, class_ids, axis, divisor))


def _crossentropy_and_gradient_vjp(
    xp: ModuleType, cotangents: tuple[Any, Any], logits: Any, class_ids: Any, axis: int, divisor: int = 1
) -> Any:
    first = _crossentropy_vjp(xp, cotangents[0], logits, class_ids, axis)
    return first + hessian_product(xp, cotangents[1], logits, class_ids, axis, divisor)


softmax = Differentiable(_rows.softmax, _softmax_jvp, _covariance_product)
log_softmax = Differentiable(_rows.log_softmax, _log_softmax_jvp, _log_softmax_vjp)
logsumexp = Differentiable(_rows.logsumexp, _logsumexp_jvp, _logsumexp_vjp)
variance = Differentiable(_rows.variance, _variance_jvp, _variance_vjp)
crossentropy = Differentiable(_rows.crossentropy, _crossentropy_jvp, _crossentropy_vjp, _rows.crossentropy_and_gradient)
crossentropy_gradient = Differentiable(_rows.crossentropy_gradient, _gradient_jvp, hessian_product)
crossentropy_and_gradient = Differentiable(
    _rows.crossentropy_and_gradient, _crossentropy_and_gradient_jvp, _crossentropy_and_gradient_vjp
)
