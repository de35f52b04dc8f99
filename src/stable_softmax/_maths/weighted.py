"""The logarithm of a weighted sum of exponentials of rows of logits, its sign, and their derivatives of any order.

A class of weight `w` and logit `z` has the term `w * exp(z)`. All terms are divided by `exp(m + K)`, where `m` is the
largest logit of a class whose weight is not 0, and `K` the largest `z - m + log|w|`. So the largest term is nearly 1,
and exactly 1 if its weight is. Where `K` would be positive and not large, it is 0 instead, so that weights of equal
logits are added as they are.

A term is computed as `(w * r) * r` with the root `r = exp((z - m - K) / 2)`: each step is in range where the term is.
`exp(z - m - K)` need not be, since the exponential beside a tiny weight may be huge.

With `T`, the sum of the terms, the logarithm is `m + K + log|T|`. Where `T` is nearly 1 or -1, its distance from that
is a sum without the leading term, as in `_maths/normalization.py`.

The functions take logits of a real floating dtype, at least float32, and weights of the same dtype that broadcast
against them, and keep each reduced axis with length 1.
"""

from functools import partial
from typing import Any, NamedTuple

from stable_softmax._libraries.differentiable import differentiable_in
from stable_softmax._libraries.standard import Library
from stable_softmax._maths.exponentials import difference, for_each_row, largest_unshifted
from stable_softmax._maths.normalization import leaders_of
from stable_softmax._maths.sums import accurate_sum, sum_and_error, sum_of_products

# Sums of smaller magnitude have a logarithm that is not small.
_SMALL = 0.75


class _Sum(NamedTuple):
    """A sum of `w * exp(z)` for each row, divided by `exp(m + K)`."""

    #: `m` and `K`, which are 0 where they would be infinite.
    maximum: Any
    rise: Any
    #: Mask of the rows in which every term is 0.
    is_empty: Any
    roots: Any
    terms: Any
    #: The sum of the terms as an integer, which is exact, and the rest, which may be small.
    whole: Any
    rest: Any

    @property
    def total(self) -> Any:
        """The sum of the terms."""
        return self.whole + self.rest


def _sum_of(lib: Library, logits: Any, weights: Any, axes: tuple[int, ...], has_slopes: bool = False) -> _Sum:
    """Return a sum; if it is to have slopes, the roots of classes of weight 0, too, and not 0 for these."""
    xp, in_place = lib.xp, lib.in_place
    counted, logarithms = _logits_that_count(lib, logits, weights)
    maximum = _finite(lib, lib.maximum(counted, axes))
    exponents = difference(lib, counted, maximum)
    largest = lib.maximum(exponents + logarithms, axes)
    is_moderate = (largest >= 0) & (largest <= largest_unshifted(lib, logits))
    rise = xp.where(is_moderate, 0, _finite(lib, largest))
    roots = in_place(xp.exp, in_place(xp.multiply, in_place(xp.subtract, exponents, rise), 0.5))
    if has_slopes:
        roots = _with_roots_of_others(lib, roots, logits, weights, maximum, rise)
    terms = lib.rounded(in_place(xp.multiply, weights * roots, roots))
    whole, rest = _whole_and_rest(lib, terms, xp.abs(maximum + rise) < 1, axes)
    return _Sum(maximum, rise, largest == -xp.inf, roots, terms, whole, rest)


def _logits_that_count(lib: Library, logits: Any, weights: Any) -> tuple[Any, Any]:
    """Return the logits, -inf for a weight of 0 and infinite for an infinite one, and the logarithms of the weights."""
    xp, sizes = lib.xp, lib.xp.abs(weights)
    largest, smallest = (lib.limit(weights.dtype, name) for name in ("max", "smallest_normal"))
    if lib.reads_values and lib.lie_within(sizes, largest, smallest):
        return logits, xp.log(sizes)
    is_out = weights == 0
    logits = logits + xp.where(xp.isinf(weights), sizes, 0)  # NaN where -inf meets infinity
    return xp.where(is_out, -xp.inf, logits), xp.log(xp.where(is_out, 1, sizes))


def _with_roots_of_others(lib: Library, roots: Any, logits: Any, weights: Any, maximum: Any, rise: Any) -> Any:
    """Return roots with those of classes of weight 0: large instead of infinite, 0 for infinite and NaN logits."""
    is_other = weights == 0
    if lib.reads_values and not lib.is_any(is_other):
        return roots
    largest = 44.3 if logits.dtype == lib.xp.float32 else 354.8  # whose exponential has a square in range
    is_other = is_other & lib.xp.isfinite(logits)
    exponents = difference(lib, lib.xp.where(is_other, logits, maximum), maximum) - rise
    return lib.xp.where(is_other, lib.xp.exp(lib.clip(exponents / 2, None, largest)), roots)


def _finite(lib: Library, values: Any) -> Any:
    """Return the values, with 0 for infinite ones."""
    return lib.xp.where(lib.xp.isinf(values), 0, values)


def _whole_and_rest(lib: Library, terms: Any, small: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Return the sum of terms, the largest of which is at least 1 but for rounding, as an integer and a rest.

    Terms of magnitude 1 are no part of the rest where terms cancel, and where the sum is below 2 and `small` is true:
    where the logarithm of the sum is added to a small number.
    """
    xp = lib.xp
    if lib.reads_values:
        total = accurate_sum(lib, terms, axes)
        sizes = xp.abs(total)
        is_near = (sizes < 0.5) | ((sizes < 2) & small)
        if not lib.is_any(is_near):
            return xp.zeros_like(total), total
    ones = xp.trunc(lib.clip(terms, -1.0, 1.0))
    whole = xp.sum(ones, axis=axes, keepdims=True)
    rest = accurate_sum(lib, terms - ones, axes)
    return (xp.where(is_near, whole, 0), xp.where(is_near, rest, total)) if lib.reads_values else (whole, rest)


@differentiable_in(2)
def logarithm_and_sign(lib: Library, logits: Any, weights: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Return the logarithm of the magnitude of `sum(w * exp(z))`, and its sign: 1, -1, 0, or NaN."""
    given = _sum_of(lib, logits, weights, axes)
    rows = given.maximum, given.rise, given.whole, given.rest
    logarithm = for_each_row(lib, partial(_logarithm, lib), *rows, axes=axes)
    return logarithm, _sign(lib, given.total)


@logarithm_and_sign.has_jvp
def _(lib: Library, of_logits: Any, of_weights: Any, logits: Any, weights: Any, axes: tuple[int, ...]) -> Any:
    shares, slopes = shares_and_slopes(lib, logits, weights, axes=axes)
    logarithm, sign = logarithm_and_sign(lib, logits, weights, axes=axes)
    pairs = ((shares, of_logits), (slopes, of_weights))
    tangent = sum(sum_of_products(lib, factor, vector, axes) for factor, vector in pairs if vector is not None)
    return (logarithm, sign), (tangent, lib.xp.zeros_like(sign))


@logarithm_and_sign.has_vjp
def _(
    lib: Library,
    cotangents: tuple[Any, Any],
    logits: Any,
    weights: Any,
    axes: tuple[int, ...],
    wanted: tuple[bool, bool] = (True, True),
) -> tuple[Any, Any]:
    del wanted
    shares, slopes = shares_and_slopes(lib, logits, weights, axes=axes)
    return cotangents[0] * shares, _summed_like(lib, cotangents[0] * slopes, weights)


@differentiable_in(2)
def shares_and_slopes(lib: Library, logits: Any, weights: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Return the derivatives of the logarithm with respect to logits and weights: `w * s` and `s = exp(z) / sum`.

    Both are 0 in rows in which every term is 0, and NaN where the terms cancel to 0.
    """
    xp, given = lib.xp, _sum_of(lib, logits, weights, axes, has_slopes=True)
    is_lost = ~xp.isfinite(given.total) | ((given.total == 0) & ~given.is_empty)
    divisor = xp.where(is_lost | given.is_empty, 1, given.total)
    shares = lib.nan_where(is_lost, given.terms / divisor)
    slopes = lib.nan_where(is_lost, given.roots / divisor * given.roots)
    return xp.where(is_lost & (weights == 0), 0, shares), xp.where(given.is_empty, 0, slopes)


@shares_and_slopes.has_jvp
def _(lib: Library, of_logits: Any, of_weights: Any, logits: Any, weights: Any, axes: tuple[int, ...]) -> Any:
    given = shares_and_slopes(lib, logits, weights, axes=axes)
    return given, _hessian_products(lib, (of_logits, of_weights), given, axes)


@shares_and_slopes.has_vjp
def _(
    lib: Library,
    cotangents: tuple[Any, Any],
    logits: Any,
    weights: Any,
    axes: tuple[int, ...],
    wanted: tuple[bool, bool] = (True, True),
) -> tuple[Any, Any]:
    del wanted
    given = shares_and_slopes(lib, logits, weights, axes=axes)
    of_logits, of_weights = _hessian_products(lib, cotangents, given, axes)
    return of_logits, _summed_like(lib, of_weights, weights)


def _hessian_products(
    lib: Library, vectors: tuple[Any, Any], given: tuple[Any, Any], axes: tuple[int, ...]
) -> tuple[Any, Any]:
    """Return the derivatives of shares and slopes in the direction of two vectors, either of which may be None, for 0.

    Those of the shares sum to 0. As in `covariance_product`, vectors are centred at the leader, whose own entry is then
    the sum of all others, and the transpose is centred, too.
    """
    (of_logits, of_weights), (shares, slopes) = vectors, given
    leaders = leaders_of(lib, lib.xp.abs(shares), axes)
    change, of_shares = 0, 0
    if of_logits is not None:
        centred = of_logits - sum_of_products(lib, leaders, of_logits, axes)
        change = centred - sum_of_products(lib, shares, centred, axes)
    if of_weights is not None:
        change = change - sum_of_products(lib, slopes, of_weights, axes)
        of_shares = slopes * of_weights
    of_shares = of_shares + shares * change
    return of_shares - leaders * accurate_sum(lib, of_shares, axes), slopes * change


def _logarithm(lib: Library, maximum: Any, rise: Any, whole: Any, rest: Any) -> Any:
    """Return `m + K + log|T|`, in which `m` and `K` may cancel exactly."""
    xp, total = lib.xp, whole + rest
    sign, size = _sign(lib, total), xp.abs(total)
    is_small = size < _SMALL
    beyond_1 = sign * rest + (sign * whole - 1)
    logarithm = xp.where(is_small, xp.log(xp.where(is_small, size, 1)), xp.log1p(xp.where(is_small, 0, beyond_1)))
    shift, error = sum_and_error(maximum, rise)
    return shift + (error + logarithm)


def _sign(lib: Library, values: Any) -> Any:
    """Return 1, -1, 0 or NaN; the `sign` of some libraries is 0 for NaN."""
    return lib.xp.where(values > 0, 1.0, lib.xp.where(values < 0, -1.0, lib.xp.abs(values)))


def _summed_like(lib: Library, values: Any, like: Any) -> Any:
    """Return values summed over the axes along which an array broadcasts against them."""
    lengths = zip(values.shape, like.shape, strict=True)
    axes = tuple([axis for axis, (length, own) in enumerate(lengths) if own == 1 and length != 1])
    return accurate_sum(lib, values, axes) if axes else values
