"""Logits as the projection of features, and the gradients with respect to features, weight and bias.

Features are (rows, D), the weight is (C, D) and the bias (C,), or None.
"""

from typing import Any

from stable_softmax._libraries.differentiable import differentiable
from stable_softmax._libraries.standard import Library
from stable_softmax._maths.sums import accurate_sum

#: The reciprocal of a larger number may underflow to 0.
_LARGE = 2.0**64


def projected(lib: Library, features: Any, weight: Any, dtype: Any) -> Any:
    """Return `features @ weight.T`."""
    return lib.contract(features, weight, (1, 1), dtype)


def with_terms(lib: Library, projection: Any, *terms: Any) -> Any:
    """Return the projection plus terms that broadcast to it, such as the bias."""
    for term in terms:
        projection = projection + lib.convert(term, projection.dtype)
    return projection


def gradients_of(
    lib: Library, gradient: Any, features: Any, weight: Any, wanted: tuple[bool, ...], sums: Any
) -> tuple[list[Any], list[Any]]:
    """Return the gradient with respect to features, and those with respect to weight and bias, from that of the logits.

    Gradients that are not wanted are left out. Those of weight and bias are added to the first of `sums`, unless it is
    None.
    """
    wants_features, wants_weight, wants_bias = wanted
    before = iter(sums or (None, None))
    of_features, totals = [], []
    if wants_features:
        of_features.append(lib.contract(gradient, weight, (1, 0), gradient.dtype, features))
    if wants_weight:
        totals.append(lib.contract(gradient, features, (0, 0), gradient.dtype, weight, next(before)))
    if wants_bias:
        totals.append(lib.add_to(next(before), accurate_sum(lib, gradient, (0,))[0, :]))
    return of_features, totals


def finite_and_nan_column(lib: Library, rows: Any, dtype: Any) -> tuple[Any, Any]:
    """Return rows with 0 for entries that are not finite, and a column with NaN for rows that had one, else 0.

    A product of these rows with 0 is not NaN, and neither are its derivatives. Callers add the column to the product
    where NaN should count; the derivatives of the product do not depend on it.
    """
    is_marked = lib.xp.any(~lib.xp.isfinite(rows), axis=1, keepdims=True)
    return _finite(lib, rows), lib.nan_where(is_marked, lib.xp.zeros_like(is_marked, dtype=dtype))


@differentiable
def _finite(lib: Library, rows: Any) -> Any:
    """Return rows with 0 for entries that are not finite.

    The derivative is 1 also where an entry is replaced: the gradient with respect to a NaN that counts is NaN.
    """
    return lib.xp.where(lib.xp.isfinite(rows), rows, 0)


@_finite.has_jvp
def _(lib: Library, vector: Any, rows: Any) -> tuple[Any, Any]:
    return _finite(lib, rows), vector


@_finite.has_vjp
def _(_lib: Library, cotangent: Any, _rows: Any) -> Any:
    return cotangent


@differentiable
def capped(lib: Library, projection: Any, softcap: float) -> Any:
    """Return `softcap * tanh(z / softcap)`."""
    ratio = _over_cap(lib, projection, softcap)
    # Here `tanh(x)` rounds to `x`; the ratio of small numbers may be 0, or have few digits.
    is_small = lib.xp.abs(ratio) < lib.limit(projection.dtype, "eps") ** 0.5
    return lib.xp.where(is_small, projection, softcap * lib.xp.tanh(ratio))


@capped.has_jvp
def _(lib: Library, vector: Any, projection: Any, softcap: float) -> tuple[Any, Any]:
    return capped(lib, projection, softcap=softcap), through_cap(lib, vector, projection, softcap)


@capped.has_vjp
def through_cap(lib: Library, gradient: Any, projection: Any, softcap: float) -> Any:
    """Return the gradient with respect to the projection, from that with respect to the capped logits."""
    return gradient * slope_of_cap(lib, projection, softcap=softcap)


@differentiable
def slope_of_cap(lib: Library, projection: Any, softcap: float) -> Any:
    """Return the derivative of `capped`, `1 - tanh(z / softcap)**2`, accurate even where it is nearly 0."""
    smaller = lib.xp.exp(-2 * lib.xp.abs(_over_cap(lib, projection, softcap)))
    return 4 * smaller / (1 + smaller) ** 2


@slope_of_cap.has_vjp
def _times_curvature(lib: Library, cotangent: Any, projection: Any, softcap: float) -> Any:
    tanh = capped(lib, projection, softcap=softcap) / softcap
    return cotangent * (-2 * tanh * slope_of_cap(lib, projection, softcap=softcap) / softcap)


@slope_of_cap.has_jvp
def _(lib: Library, vector: Any, projection: Any, softcap: float) -> tuple[Any, Any]:
    return slope_of_cap(lib, projection, softcap=softcap), _times_curvature(lib, vector, projection, softcap)


def _over_cap(lib: Library, projection: Any, softcap: float) -> Any:
    """Return `z / softcap`, at most 512 in magnitude: there, `tanh` is 1 and its derivative 0."""
    bound = min(512 * softcap, float(lib.limit(projection.dtype, "max")))
    projection = lib.clip(projection, -bound, bound)
    if softcap > _LARGE:  # in two steps, since XLA multiplies by the reciprocal of a constant
        projection, softcap = lib.rounded(projection / _LARGE), softcap / _LARGE
    return projection / softcap
