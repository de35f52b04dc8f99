"""Softmax, its logarithm and the logsumexp of rows of logits, with their analytic derivatives of any order.

With `m = max z` and `e = exp(z - m)`, every formula is built from sums of non-negative terms, so nothing cancels. The
trick throughout is to leave one entry out of a sum, because adding it to a tiny rest would round the rest away: here
it is that of the maximum. Each derivative is written so that its transpose, which reverse mode evaluates, keeps the
same digits.

The functions take logits of a real floating dtype, at least float32, and keep each reduced axis with length 1. A row
with a NaN or without a finite maximum gives NaN throughout, except in `logsumexp`.
"""

import math
from typing import Any

from stable_softmax._libraries.differentiable import differentiable
from stable_softmax._libraries.standard import Library
from stable_softmax._maths.exponentials import (
    are_unshifted,
    difference,
    exponentials_below,
    exponentials_in_one_pass,
    is_unshifted,
    largest_unshifted,
    log_total,
    quotient,
    weigh,
)
from stable_softmax._maths.sums import accurate_sum, sum_of_products, sum_without_maximum

# In rows of fewer classes, the sum of the exponentials is often below 2.
_MANY = 32


@differentiable
def softmax(lib: Library, logits: Any, axes: tuple[int, ...], into: Any = None) -> Any:
    """Return `w / sum(w)`."""
    probabilities = lib.accurate_softmax(logits, axes, into) if lib.has_softmax else None
    if probabilities is not None:
        return probabilities

    def split(weights: Any, shift: Any) -> tuple[Any, Any, Any]:
        return accurate_sum(lib, weights, axes), weights, shift

    total, weights, shift = weigh(split, lib, logits, axes, into)
    return quotient(lib, weights, total, shift)


@softmax.has_vjp
def covariance_product(lib: Library, vector: Any, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return the Jacobian of the softmax times a vector, `p * (v - sum(p v))`: the covariance of the classes.

    It maps constants to 0, since `sum(p) = 1`: with the leader `m` and `w = v - v_m`, it equals `p * (w - sum(p w))`.
    If `p_m` is nearly 1, `v - sum(p v)` cancels at `m`; but `w_m` is 0, so that `sum(p w)` has small terms only. The
    Jacobian is symmetric: to centre its transpose, too, the sum of the product, a rounding error, is subtracted at `m`.
    """
    probabilities, leaders = softmax(lib, logits, axes=axes), leaders_of(lib, logits, axes)
    product = 2 * probabilities * _half_deviation(lib, vector, probabilities, leaders, axes)
    return product - leaders * accurate_sum(lib, product, axes)


@softmax.has_jvp
def _(lib: Library, vector: Any, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    return softmax(lib, logits, axes=axes), covariance_product(lib, vector, logits, axes)


@differentiable
def log_softmax(lib: Library, logits: Any, axes: tuple[int, ...], into: Any = None) -> Any:
    """Return `(z - m) - log(sum(e))`."""
    shifted = difference(lib, logits, lib.maximum(logits, axes), into)
    exponentials = exponentials_in_one_pass(lib, logits, axes)
    total = log_total(lib, lib.xp.exp(shifted) if exponentials is None else exponentials, axes)
    if not lib.reads_values:
        return shifted - total
    shifted -= total
    return shifted


@log_softmax.has_jvp
def _(lib: Library, vector: Any, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    probabilities, leaders = softmax(lib, logits, axes=axes), leaders_of(lib, logits, axes)
    return log_softmax(lib, logits, axes=axes), 2 * _half_deviation(lib, vector, probabilities, leaders, axes)


@log_softmax.has_vjp
def _(lib: Library, cotangent: Any, logits: Any, axes: tuple[int, ...]) -> Any:
    cotangent = lib.with_neighbours(cotangent)  # its memory is the caller's
    product = cotangent - softmax(lib, logits, axes=axes) * accurate_sum(lib, cotangent, axes)
    return product - leaders_of(lib, logits, axes) * accurate_sum(lib, product, axes)


@differentiable
def logsumexp(lib: Library, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return `m + log(sum(e))`, or `m` itself where it is infinite.

    Where values can be read, it is `log(sum(exp(z)))` in a row of many classes that needs no shift and whose sum is at
    least 2: there is no pass for the maximum then, and the logarithm loses no digits.
    """
    if not lib.reads_values or math.prod([logits.shape[axis] for axis in axes]) < _MANY:
        return _shifted_logsumexp(lib, logits, lib.maximum(logits, axes), axes)
    largest, total = largest_unshifted(lib, logits), None
    if lib.starts_within(logits, largest):
        total = accurate_sum(lib, lib.xp.exp(logits), axes)
        if are_unshifted(lib, total, logits, axes, largest, smallest_sum=2.0):
            return lib.xp.log(total)
    maximum = lib.maximum(logits, axes)
    in_range = is_unshifted(maximum, largest)
    shifted = _shifted_logsumexp(lib, logits, maximum, axes)
    if not lib.is_any(in_range):
        return shifted
    total = accurate_sum(lib, lib.xp.exp(logits), axes) if total is None else total
    return lib.xp.where(in_range & (total >= 2), lib.xp.log(total), shifted)


def _shifted_logsumexp(lib: Library, logits: Any, maximum: Any, axes: tuple[int, ...]) -> Any:
    # All digits of the logarithm matter only if the maximum that it is added to is small.
    small = lib.xp.abs(maximum) < 1
    total = log_total(lib, exponentials_below(lib, logits, maximum, axes), axes, small)
    return lib.xp.where(lib.xp.isinf(maximum), maximum, maximum + total)


@logsumexp.has_jvp
def _(lib: Library, vector: Any, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    tangent = sum_of_products(lib, _shares(lib, logits, axes), vector, axes)
    return logsumexp(lib, logits, axes=axes), tangent


@logsumexp.has_vjp
def _(lib: Library, cotangent: Any, logits: Any, axes: tuple[int, ...]) -> Any:
    return cotangent * _shares(lib, logits, axes)


def maximum_and_others(lib: Library, logits: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Return `m` and the sum of `e` without one maximal entry; the sum is 0 for a row of only -inf."""
    maximum = lib.maximum(logits, axes)
    others = sum_without_maximum(lib, exponentials_below(lib, logits, maximum, axes), axes)
    return maximum, lib.nan_where(maximum == lib.xp.inf, lib.xp.where(maximum == -lib.xp.inf, 0, others))


def leaders_of(lib: Library, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return weights that share 1 evenly among the maximal entries."""
    leading = lib.xp.astype(logits == lib.maximum(logits, axes), logits.dtype)
    number = lib.xp.sum(leading, axis=axes, keepdims=True)
    return leading / lib.xp.where(number > 0, number, 1)


def _half_deviation(lib: Library, vector: Any, probabilities: Any, leaders: Any, axes: tuple[int, ...]) -> Any:
    """Return half the deviation of a vector's entries from their mean: the whole may overflow."""
    half = vector / 2
    centred = half - sum_of_products(lib, leaders, half, axes)
    return centred - sum_of_products(lib, probabilities, centred, axes)


def _shares(lib: Library, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return the softmax, but 0 in a row of only -inf, whose classes get no share of a gradient."""
    nothing = lib.maximum(logits, axes) == -lib.xp.inf
    return lib.xp.where(nothing, 0, softmax(lib, lib.xp.where(nothing, 0, logits), axes=axes))
