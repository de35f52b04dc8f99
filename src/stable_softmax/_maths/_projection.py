"""Logits as the projection of features, and gradients pulled back through it.

Features are (rows, D), the weight is (C, D) and the bias (C,), or None.
"""

from types import ModuleType
from typing import Any

from stable_softmax._libraries._differentiable import Differentiable
from stable_softmax._libraries._operations import added, clipped, computed_alone, contracted, limit, nan_where
from stable_softmax._maths._conversion import converted
from stable_softmax._maths._sums import accurate_sum


def projected(xp: ModuleType, features: Any, weight: Any, dtype: Any) -> Any:
    """Return `features @ weight.T`."""
    return contracted(xp, features, weight, (1, 1), dtype)


def shifted(xp: ModuleType, projection: Any, *terms: Any) -> Any:
    """Return the projection plus terms, such as the bias, that broadcast to it."""
    for term in terms:
        projection = projection + converted(xp, term, projection.dtype)
    return projection


def pulled_back(
    xp: ModuleType, gradient: Any, features: Any, weight: Any, wanted: tuple[bool, ...], sums: Any
) -> tuple[list[Any], list[Any]]:
    """Return the gradient with respect to features, and those to weight and bias, from that to the logits.

    Those that are not wanted are left out; there is a third one to want if there is a bias. The latter two are added to
    sums, unless these are None.
    """
    wants_features, wants_weight, *wants_bias = wanted
    before = iter(sums or (None, None))
    of_features, totals = [], []
    if wants_features:
        of_features.append(contracted(xp, gradient, weight, (1, 0), gradient.dtype, features))
    if wants_weight:
        totals.append(contracted(xp, gradient, features, (0, 0), gradient.dtype, weight, next(before)))
    if any(wants_bias):
        totals.append(added(xp, next(before), accurate_sum(xp, gradient, (0,))[0, :]))
    return of_features, totals


def finite_and_marks(xp: ModuleType, rows: Any, dtype: Any) -> tuple[Any, Any]:
    """Return rows with 0 for what is not finite, and a column of 0, with NaN for the rows that had such an entry.

    Neither a product with 0, nor its derivatives, make the rows with 0 NaN. Whether NaN counts is left to those who add
    the column to the product, whose derivative does not depend on it.
    """
    is_marked = xp.any(~xp.isfinite(rows), axis=1, keepdims=True)
    return _finite(xp, rows), nan_where(xp, is_marked, xp.zeros_like(is_marked, dtype=dtype))


def of_counted(xp: ModuleType, rows: Any, counted: Any) -> Any:
    """Return rows with 0 for those of examples that do not count, whose NaN would come through products with 0."""
    return rows if counted is None else xp.where(counted, rows, 0)


def through_cap(xp: ModuleType, gradient: Any, projection: Any, softcap: float) -> Any:
    """Return the gradient with respect to the projection, from that to the capped logits."""
    return gradient * slope_of_cap(xp, projection, softcap=softcap)


def _finite_value(xp: ModuleType, rows: Any) -> Any:
    return xp.where(xp.isfinite(rows), rows, 0)


def _finite_jvp(xp: ModuleType, vector: Any, rows: Any) -> tuple[Any, Any]:
    return _finite(xp, rows), vector


def _finite_vjp(_xp: ModuleType, cotangent: Any, _rows: Any) -> Any:
    return cotangent


#: Its derivative is 1 also where an entry is replaced: the gradient with respect to a NaN that counts is NaN.
_finite = Differentiable(_finite_value, _finite_jvp, _finite_vjp)


def _over_cap(xp: ModuleType, projection: Any, softcap: float) -> Any:
    """Return `z / softcap`, of which no more than 512 counts: from there on, `tanh` is 1 and its slope 0."""
    bound = min(512 * softcap, float(limit(xp, projection.dtype, "max")))
    projection = clipped(xp, projection, -bound, bound)
    if softcap > _LARGE:  # in two steps, since XLA multiplies by the reciprocal of a constant, which may be 0
        projection, softcap = computed_alone(xp, projection / _LARGE), softcap / _LARGE
    return projection / softcap


_LARGE = 2.0**64


def _capped(xp: ModuleType, projection: Any, softcap: float) -> Any:
    ratio = _over_cap(xp, projection, softcap)
    # `tanh(x)` is `x - x**3 / 3`. The ratio of small numbers may be 0, or have few digits.
    is_small = xp.abs(ratio) < limit(xp, projection.dtype, "eps") ** 0.5
    return xp.where(is_small, projection, softcap * xp.tanh(ratio))


def _capped_jvp(xp: ModuleType, vector: Any, projection: Any, softcap: float) -> tuple[Any, Any]:
    return capped(xp, projection, softcap=softcap), through_cap(xp, vector, projection, softcap)


#: `softcap * tanh(z / softcap)`
capped = Differentiable(_capped, _capped_jvp, through_cap)


def _slope(xp: ModuleType, projection: Any, softcap: float) -> Any:
    smaller = xp.exp(-2 * xp.abs(_over_cap(xp, projection, softcap)))
    return 4 * smaller / (1 + smaller) ** 2


def _slope_jvp(xp: ModuleType, vector: Any, projection: Any, softcap: float) -> tuple[Any, Any]:
    return slope_of_cap(xp, projection, softcap=softcap), _slope_vjp(xp, vector, projection, softcap)


def _slope_vjp(xp: ModuleType, cotangent: Any, projection: Any, softcap: float) -> Any:
    tanh = capped(xp, projection, softcap=softcap) / softcap
    return cotangent * (-2 * tanh * slope_of_cap(xp, projection, softcap=softcap) / softcap)


#: The derivative of `capped`, `1 - tanh(z / softcap)**2`, with all digits also where that is nearly 0.
slope_of_cap = Differentiable(_slope, _slope_jvp, _slope_vjp)
