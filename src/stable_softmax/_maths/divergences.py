"""Divergences between the softmax `p` of logits `z` and the softmax `q` of reference logits `w`, and their derivatives.

All rest on the deviation `a` of `z - w` from its mean under `q`. Since the mean of `a` is 0,

    KL(q || p) = log(sum of q * exp(a)) = log1p(sum of q * (exp(a) - 1 - a)),

and no term of the last sum is negative: it is 0 if and only if `p` and `q` are equal. The usual form, the sum of
`q * (log(q) - log(p))`, has terms of both signs, which cancel in all their digits where `p` and `q` nearly agree. The
logarithm of `p / q` is `a - KL`, and the gradient with respect to `w` is `-q * a`.

With the mixture `M = s * q + (1 - s) * p`, the Jensen-Shannon divergence is `s * KL(q || M) + (1 - s) * KL(p || M)`. It
has the same form, with the logarithms of `M / q` and `M / p`, which come from that of `p / q`.

The functions take logits and reference logits of one dtype, at least float32, and keep each reduced axis with length 1.
A row in which either holds NaN, or has no finite maximum, gives NaN throughout.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from stable_softmax._libraries.differentiable import differentiable_in
from stable_softmax._libraries.standard import Library
from stable_softmax._maths.derivatives import with_gradients
from stable_softmax._maths.normalization import covariance_product, softmax
from stable_softmax._maths.sums import accurate_sum, difference_and_error, sum_and_error, sum_of_products

# Exponents beyond this are computed by the difference of probabilities, which does not cancel there.
_NEAR = 2.0
# exp(64) times the number of classes is in the range of float32.
_LARGEST_EXPONENT = 64.0
# Where `exp(KL) - 1` is larger, the difference of two logsumexps has more digits.
_FAR_APART = 3000.0
# Stands for an infinite logarithm, which could meet a 0.
_INFINITE = 1e4
# The Taylor coefficients of `a * coth(a / 2) - 2` in powers of `a * a`: `2 * B / n!`, with the Bernoulli numbers B.
_COEFFICIENTS = (
    1.0 / 6,
    -1.0 / 360,
    1.0 / 15120,
    -1.0 / 604800,
    1.0 / 23950080,
    -691.0 / 653837184000,
    1.0 / 37362124800,
    -3617.0 / 5335311421440000,
    43867.0 / 2554547108585472000,
    -174611.0 / 401428831349145600000,
)


def excess(lib: Library, exponents: Any) -> Any:
    """Return `exp(a) - 1 - a` of exponents in [-2, 2]: never negative, and accurate near 0.

    With `E = a * coth(a / 2)`, `exp(a) - 1` is `2 * a / (E - a)`, and with `E = 2 + a * a * B`, the excess is
    `a * a * (1 - a * B) / (2 - a + a * a * B)`. From half the exponent h, it is `(exp(h) - 1)**2 + 2 * excess(h)`.
    """
    xp, in_place = lib.xp, lib.in_place
    coefficients = _COEFFICIENTS[: 5 if lib.limit(exponents.dtype, "eps") > 1e-8 else None]
    half = exponents / 2
    square = half * half
    series = square * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        series = in_place(xp.multiply, in_place(xp.add, series, coefficient), square)
    series = in_place(xp.add, series, coefficients[0])
    divisor = in_place(xp.add, in_place(xp.subtract, square * series, half), 2)
    numerator = in_place(xp.multiply, in_place(xp.add, in_place(xp.multiply, series, -half), 1), square)
    of_half = in_place(xp.divide, numerator, divisor)
    minus_one = in_place(xp.add, half, of_half)
    twice = in_place(xp.multiply, of_half, 2)
    return in_place(xp.add, in_place(xp.multiply, minus_one, minus_one), twice)


def _selected(lib: Library, exponents: Any, near: Callable[[Any], Any], far: Callable[[], Any]) -> Any:
    """Return `near(exponents)` where these are near 0, and `far()` elsewhere."""
    sizes = lib.xp.abs(exponents)
    if lib.reads_values and lib.lie_within(sizes, _NEAR):
        return near(exponents)
    is_near = sizes <= _NEAR
    return lib.xp.where(is_near, near(lib.xp.where(is_near, exponents, 0)), far())


def _weighted_excess(lib: Library, weights: Any, exponents: Any, far: Callable[[], Any]) -> Any:
    """Return the weights times the excess where exponents are near 0, and `far()` elsewhere."""

    def near(exponents: Any) -> Any:
        return lib.in_place(lib.xp.multiply, excess(lib, exponents), weights)

    return _selected(lib, exponents, near, far)


def _summing_to_0(lib: Library, gradient: Any, probabilities: Any, axes: tuple[int, ...]) -> Any:
    """Return a gradient whose entry for a class with more than half of the probability comes from all others.

    That entry is a difference of numbers that may agree in all their digits.
    """
    if lib.reads_values and lib.lie_within(probabilities, 0.5):
        return gradient
    is_leader = probabilities > 0.5
    others = lib.xp.where(is_leader, 0, gradient)
    return lib.xp.where(is_leader, -accurate_sum(lib, others, axes), others)


class _Deviations(NamedTuple):
    """How the differences `z - w` deviate from one number for each row; large numbers where they are infinite."""

    #: From the difference of the maxima, and from their mean under `q` but for rounding.
    from_maxima: Any
    from_mean: Any
    #: How the difference of the maxima deviates from the mean.
    of_maxima: Any


def _deviations(lib: Library, z: Any, w: Any, q: Any, axes: tuple[int, ...]) -> _Deviations:
    """Return the deviations, in which common offsets have no part, however large they are."""
    tops = [lib.maximum(z, axes), lib.maximum(w, axes)]
    largest = lib.limit(z.dtype, "max")
    scale = None
    if not lib.reads_values:
        # A product in the place of logits would be contracted with the next operation, and not be rounded. With a 0 to
        # add first, the contracted operation is the product itself.
        z, w = (values + (top - top) for values, top in zip((z, w), tops, strict=True))
        scale = 0.25  # differences could overflow
    elif not lib.lie_within(lib.xp.abs(tops[0]), largest / 8) or not lib.lie_within(lib.xp.abs(tops[1]), largest / 8):
        are_large = (lib.xp.abs(tops[0]) > largest / 8) | (lib.xp.abs(tops[1]) > largest / 8)
        scale = lib.xp.where(are_large, 0.25, lib.xp.ones_like(tops[0]))
    if scale is not None:
        z, w, *tops = (values * scale for values in (z, w, *tops))
        largest = largest * scale
    z, w = (lib.xp.maximum(values, top - largest / 2) for values, top in zip((z, w), tops, strict=True))

    def less(first: tuple[Any, Any], second: tuple[Any, Any]) -> Any:
        """Return the difference of numbers with their rounding errors, rounded hardly more than once."""
        return lib.in_place(lib.xp.add, first[0] - second[0], first[1] - second[1])

    differences, of_maxima = difference_and_error(z, w), difference_and_error(*tops)
    from_maxima = less(differences, of_maxima)
    mean, error = sum_and_error(of_maxima[0], _mean(lib, q, from_maxima, axes))
    centre = mean, error + of_maxima[1]
    results = from_maxima, less(differences, centre), less(of_maxima, centre)
    return _Deviations(*(results if scale is None else (values / scale for values in results)))


def _mean(lib: Library, q: Any, values: Any, axes: tuple[int, ...]) -> Any:
    terms = q * values
    if not lib.reads_values:
        # XLA would take this for a dot product, which it may compute wrongly; rounded products take it far longer.
        terms = lib.clip(terms, None, lib.limit(terms.dtype, "max"))
    return accurate_sum(lib, terms, axes)


class _Compared(NamedTuple):
    """Two rows of logits, compared."""

    #: The softmax of the logits, and that of the reference logits.
    p: Any
    q: Any
    #: KL(q || p), or infinity.
    divergence: Any
    #: Mask of the rows in which a class of logit -inf is possible for the reference.
    is_impossible: Any
    #: Function that returns the deviation of `z - w` from its mean under `q`.
    deviation: Callable[[], Any]
    #: Function that returns `log(p / q)`, or a large number where it is infinite.
    log_ratio: Callable[[], Any]


def _compared(lib: Library, logits: Any, reference_logits: Any, axes: tuple[int, ...]) -> _Compared:
    xp, z, w = lib.xp, logits, reference_logits
    p, q = softmax(lib, z, axes=axes), softmax(lib, w, axes=axes)
    from_maxima, from_mean, ahead = _deviations(lib, z, w, q, axes)
    # The sum of `exp(z - max(z))` over that of `exp(w - max(w))`.
    ratio = lib.maximum(q, axes) / lib.maximum(p, axes)
    scale = xp.exp(lib.clip(ahead, None, _LARGEST_EXPONENT)) * ratio
    terms = _weighted_excess(lib, q, from_mean, lambda: p * scale - q * (1 + from_mean))
    total = accurate_sum(lib, terms, axes)
    remainder = _mean(lib, q, from_mean, axes)  # of the mean, a rounding error
    both = total + remainder
    # Neither sum tells anything where one class is impossible, or the scale was cut.
    is_far = (both > _FAR_APART) | (both < -0.5) | (ahead > _LARGEST_EXPONENT)
    log_of_totals = xp.log(ratio)
    normalizer = xp.where(is_far, ahead + log_of_totals, xp.log1p(xp.where(is_far, 0, both)))
    divergence = xp.where((total > 1) | is_far, normalizer - remainder, total - (both - normalizer))
    is_impossible, is_infinite = _infinite_rows(lib, z, w, q, from_maxima, axes)
    divergence = xp.where(is_infinite, xp.inf, divergence)

    def deviation() -> Any:
        return from_mean - remainder

    def log_ratio() -> Any:
        are_far = is_far | is_infinite
        values = from_mean - (remainder + xp.where(are_far, 0, divergence))
        if not lib.reads_values or lib.is_any(are_far):
            values = xp.where(are_far, from_maxima - log_of_totals, values)
        return lib.clip(values, -_INFINITE, _INFINITE)

    return _Compared(p, q, divergence, is_impossible, deviation, log_ratio)


def _infinite_rows(lib: Library, z: Any, w: Any, q: Any, from_maxima: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Return masks of the rows in which a class of logit -inf is possible for the reference, or one of far too low."""
    xp, largest = lib.xp, lib.limit(z.dtype, "max")
    tops = lib.maximum(z, axes)
    if lib.reads_values and lib.lie_within(xp.abs(from_maxima), largest / 4):
        return xp.zeros_like(tops, dtype=xp.bool), xp.zeros_like(tops, dtype=xp.bool)
    is_known = xp.isfinite(tops) & xp.isfinite(lib.maximum(w, axes))  # others are NaN
    is_impossible = (z == -xp.inf) & (w > -xp.inf)
    is_infinite = is_impossible | ((z < tops - largest / 2) & (q > 0))
    both = (xp.any(mask, axis=axes, keepdims=True) & is_known for mask in (is_impossible, is_infinite))
    return tuple(both)


def _divergence(lib: Library, logits: Any, reference_logits: Any, axes: tuple[int, ...]) -> Any:
    return _compared(lib, logits, reference_logits, axes).divergence


def _divergence_and_gradients(
    lib: Library, logits: Any, reference_logits: Any, axes: tuple[int, ...]
) -> tuple[Any, Any, Any]:
    """Return KL(q || p), `p - q` as `q * (exp(log(p / q)) - 1)`, and `-q * a`."""
    compared = _compared(lib, logits, reference_logits, axes)
    p, q, xp = compared.p, compared.q, lib.xp

    def near(log_ratio: Any) -> Any:
        return lib.in_place(xp.multiply, lib.in_place(xp.add, excess(lib, log_ratio), log_ratio), q)

    gradient = _selected(lib, compared.log_ratio(), near, lambda: p - q)
    reference_gradient = _summing_to_0(lib, -q * compared.deviation(), q, axes)
    return (
        compared.divergence,
        _summing_to_0(lib, gradient, q, axes),
        lib.nan_where(compared.is_impossible, reference_gradient),
    )


def _divergence_hessian_products(
    lib: Library, vectors: tuple[Any, Any], logits: Any, reference_logits: Any, axes: tuple[int, ...]
) -> tuple[Any, Any]:
    own, other = vectors
    of_q = covariance_product(lib, other, reference_logits, axes)
    q, deviation = softmax(lib, reference_logits, axes=axes), _deviation(lib, logits, reference_logits, axes=axes)
    curvature = of_q * deviation - q * sum_of_products(lib, of_q, deviation, axes)
    return (
        covariance_product(lib, own, logits, axes) - of_q,
        covariance_product(lib, other - own, reference_logits, axes) - curvature,
    )


#: KL(q || p), and with it the gradients with respect to logits and reference logits.
kl_divergence, kl_divergence_and_gradients = with_gradients(
    _divergence, _divergence_and_gradients, _divergence_hessian_products, variables=2
)


@differentiable_in(2)
def _deviation(lib: Library, logits: Any, reference_logits: Any, axes: tuple[int, ...]) -> Any:
    """Return the deviation of `z - w` from its mean under `q`."""
    return _compared(lib, logits, reference_logits, axes).deviation()


@_deviation.has_jvp
def _(lib: Library, own: Any, other: Any, logits: Any, reference_logits: Any, axes: tuple[int, ...]) -> Any:
    zero = lib.xp.zeros_like(logits)
    own, other = zero if own is None else own, zero if other is None else other
    deviation = _deviation(lib, logits, reference_logits, axes=axes)
    q, of_q = softmax(lib, reference_logits, axes=axes), covariance_product(lib, other, reference_logits, axes)
    difference = own - other
    mean = sum_of_products(lib, q, difference, axes) + sum_of_products(lib, of_q, deviation, axes)
    return deviation, difference - mean


@_deviation.has_vjp
def _(
    lib: Library,
    cotangent: Any,
    logits: Any,
    reference_logits: Any,
    axes: tuple[int, ...],
    wanted: tuple[bool, bool] = (True, True),
) -> tuple[Any, Any]:
    del wanted
    deviation = _deviation(lib, logits, reference_logits, axes=axes)
    q, total = softmax(lib, reference_logits, axes=axes), accurate_sum(lib, cotangent, axes)
    own = cotangent - q * total
    return own, -own - q * deviation * total


@differentiable_in(2)
def _log_ratio(lib: Library, logits: Any, reference_logits: Any, axes: tuple[int, ...]) -> Any:
    """Return `log(p / q)`."""
    return _compared(lib, logits, reference_logits, axes).log_ratio()


@_log_ratio.has_jvp
def _(lib: Library, own: Any, other: Any, logits: Any, reference_logits: Any, axes: tuple[int, ...]) -> Any:
    slope = 0
    for sign, vector, values in ((1, own, logits), (-1, other, reference_logits)):
        if vector is not None:
            slope = slope + sign * (vector - sum_of_products(lib, softmax(lib, values, axes=axes), vector, axes))
    return _log_ratio(lib, logits, reference_logits, axes=axes), slope


@_log_ratio.has_vjp
def _(
    lib: Library,
    cotangent: Any,
    logits: Any,
    reference_logits: Any,
    axes: tuple[int, ...],
    wanted: tuple[bool, bool] = (True, True),
) -> tuple[Any, Any]:
    del wanted
    total = accurate_sum(lib, cotangent, axes)
    own, other = (cotangent - softmax(lib, values, axes=axes) * total for values in (logits, reference_logits))
    return own, -other


class _Mixture(NamedTuple):
    """What a Jensen-Shannon divergence and its derivatives are made of."""

    #: The logarithms of `M / q` and `M / p`.
    log_q: Any
    log_p: Any
    #: KL(q || M) and KL(p || M).
    divergence_q: Any
    divergence_p: Any


def _mixture(lib: Library, p: Any, q: Any, log_ratio: Any, weight: float, axes: tuple[int, ...]) -> _Mixture:
    xp = lib.xp
    # Not the absolute value, whose derivative at 0 is 0.
    is_q_larger = log_ratio <= 0
    size = xp.where(is_q_larger, -log_ratio, log_ratio)
    share = xp.where(is_q_larger, weight, xp.zeros_like(size) + (1 - weight))
    moderate = xp.where(size > _LARGEST_EXPONENT, _LARGEST_EXPONENT, size)
    growth = xp.expm1(moderate)
    # The logarithms of M over the larger of p and q, and over the smaller one.
    # XLA's log1p of float64 is off by up to 230 units of roundoff between -0.41 and -0.36.
    of_larger = -xp.log1p((1 - share) * growth / (1 + share * growth))
    of_smaller = xp.log1p(share * growth) + (size - moderate)
    log_q, log_p = xp.where(is_q_larger, of_larger, of_smaller), xp.where(is_q_larger, of_smaller, of_larger)
    mixture = weight * q + (1 - weight) * p

    def divergence(probabilities: Any, logs: Any) -> Any:
        terms = _weighted_excess(lib, probabilities, logs, lambda: mixture - probabilities * (1 + logs))
        return accurate_sum(lib, terms, axes)

    return _Mixture(log_q, log_p, divergence(q, log_q), divergence(p, log_p))


def _js_divergence(lib: Library, logits: Any, reference_logits: Any, axes: tuple[int, ...], weight: float) -> Any:
    compared = _compared(lib, logits, reference_logits, axes)
    mixture = _mixture(lib, compared.p, compared.q, compared.log_ratio(), weight, axes)
    return weight * mixture.divergence_q + (1 - weight) * mixture.divergence_p


def _js_divergence_and_gradients(
    lib: Library, logits: Any, reference_logits: Any, axes: tuple[int, ...], weight: float
) -> tuple[Any, Any, Any]:
    """Return the divergence, and the gradients `-(1 - s) * p * (log(M / p) + KL(p || M))` and its counterpart of q."""
    compared = _compared(lib, logits, reference_logits, axes)
    mixture = _mixture(lib, compared.p, compared.q, compared.log_ratio(), weight, axes)
    p, q = compared.p, compared.q
    gradient = -(1 - weight) * p * (mixture.log_p + mixture.divergence_p)
    reference_gradient = -weight * q * (mixture.log_q + mixture.divergence_q)
    return (
        weight * mixture.divergence_q + (1 - weight) * mixture.divergence_p,
        _summing_to_0(lib, gradient, p, axes),
        _summing_to_0(lib, reference_gradient, q, axes),
    )


def _js_hessian_products(
    lib: Library,
    vectors: tuple[Any, Any],
    logits: Any,
    reference_logits: Any,
    axes: tuple[int, ...],
    weight: float,
) -> tuple[Any, Any]:
    p, q = softmax(lib, logits, axes=axes), softmax(lib, reference_logits, axes=axes)
    of_p = covariance_product(lib, vectors[0], logits, axes)
    of_q = covariance_product(lib, vectors[1], reference_logits, axes)
    mixture = _mixture(lib, p, q, _log_ratio(lib, logits, reference_logits, axes=axes), weight, axes)
    # The slopes of p and q, weighted by the other one, over M.
    between = lib.xp.exp(-mixture.log_p) * of_q - lib.xp.exp(-mixture.log_q) * of_p

    def product(probabilities: Any, slopes: Any, logs: Any, divergence: Any, joint: Any) -> Any:
        means = accurate_sum(lib, slopes * logs + joint, axes)
        return slopes * (logs + divergence) + joint - probabilities * means

    return (
        -(1 - weight) * product(p, of_p, mixture.log_p, mixture.divergence_p, weight * between),
        -weight * product(q, of_q, mixture.log_q, mixture.divergence_q, -(1 - weight) * between),
    )


#: The Jensen-Shannon divergence, and with it the gradients with respect to logits and reference logits.
js_divergence, js_divergence_and_gradients = with_gradients(
    _js_divergence, _js_divergence_and_gradients, _js_hessian_products, variables=2
)
