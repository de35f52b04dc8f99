"""Exponentials of rows of logits `z`, in a form that neither overflows nor loses digits.

Softmax, loss and gradient need only weights that are proportional to the probabilities: `w = exp(z - s)`, with any
shift `s` that brings them into the range of the dtype.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

from stable_softmax._libraries.standard import Library
from stable_softmax._maths.sums import sum_without_maximum

Split = TypeVar("Split", bound=tuple[Any, ...])

# Where values can be read, rows are not shifted if their maximum is at least this and at most `largest_unshifted`. With
# the lower limit, e**2 times the rounding error of a weight that underflows is still far below the smallest normal
# number; with the upper one, the sum of any number of weights is in range.
_SMALLEST_UNSHIFTED = -2.0


def weigh(
    function: Callable[[Any, Any], Split], lib: Library, logits: Any, axes: tuple[int, ...], into: Any = None
) -> Split:
    """Return `function(weights, shift)` for the fastest weights that are accurate; its first entry is their sum.

    The shift is `z - log(w)`: one number for each row, or one for all rows. It is unknown (None) for the library's own
    probabilities in one pass, whose sum is 1 except for rounding. The function may overwrite the weights.
    """
    probabilities = lib.softmax(logits, axes, into) if lib.has_softmax else None
    if probabilities is not None:
        return function(probabilities, None)
    if not lib.reads_values:
        maximum = lib.maximum(logits, axes)
        return function(lib.xp.exp(difference(lib, logits, maximum)), maximum)
    # Rows whose maximum is in range are not shifted, and so not rounded. The sum of a row mostly tells that it is one,
    # which saves two passes; but the maximum alone decides, so that a row has the same bits beside any others.
    largest, unshifted = largest_unshifted(lib, logits), None
    if lib.starts_within(logits, largest):  # else most rows need a shift
        unshifted = function(lib.xp.exp(logits) if into is None else lib.xp.exp(logits, out=into), 0.0)
        if are_unshifted(lib, unshifted[0], logits, axes, largest):
            return unshifted
    maximum = lib.maximum(logits, axes)
    in_range = is_unshifted(maximum, largest)
    if unshifted is not None and lib.xp.all(in_range):
        return unshifted
    del unshifted  # and its memory
    # The maximum becomes at least 0, so that underflow is negligible, and so small that its exponential times any
    # number of classes is in range, even after rounding.
    shift = lib.xp.where(in_range, 0, maximum - lib.clip(maximum, 0.0, largest))
    return function(lib.in_place(lib.xp.exp, difference(lib, logits, shift, into)), shift)


def largest_unshifted(lib: Library, logits: Any) -> float:
    """Return the largest maximum of a row that needs no shift."""
    return 31.0 if logits.dtype == lib.xp.float32 else 511.0


def is_unshifted(maximum: Any, largest: float) -> Any:
    """Return a mask of the rows that need no shift, given their maximum and the largest one for which that holds."""
    return (maximum >= _SMALLEST_UNSHIFTED) & (maximum <= largest)


def are_unshifted(
    lib: Library, sums: Any, logits: Any, axes: tuple[int, ...], largest: float, smallest_sum: float = 0.0
) -> bool:
    """Whether the sums of `exp(z)` tell that no row needs a shift, and are all at least `smallest_sum`."""
    # exp(m) <= sum <= classes * exp(m), and 0.1 is room for the rounding of the sum.
    classes = math.prod(map(logits.shape.__getitem__, axes))
    smallest_sum = max(smallest_sum, classes * math.exp(_SMALLEST_UNSHIFTED + 0.1))
    return lib.lie_within(sums, math.exp(largest - 0.1), smallest_sum)


def difference(lib: Library, logits: Any, shift: Any, into: Any = None) -> Any:
    """Return `logits - shift`: exactly 0 where both are equal, NaN where both are the same infinity."""
    if not lib.reads_values:
        # Where `logits` is a product, a compiler contracts product and difference into one operation with one
        # rounding, and the maximum's own entry is then not 0 but the rounding error of the product. With a 0 to add
        # first, the contracted operation is the product itself.
        return (logits + (shift - shift)) - shift
    return computed(lib.xp.subtract, logits, shift, into=into)


def exponentials_below(lib: Library, logits: Any, maximum: Any, axes: tuple[int, ...]) -> Any:
    """Return `exp(z - m)`; in rows whose maximum is infinite, arbitrary numbers that callers replace."""
    exponentials = exponentials_in_one_pass(lib, logits, axes)
    if exponentials is not None:
        return exponentials
    if lib.reads_values:
        return lib.in_place(lib.xp.exp, difference(lib, logits, maximum))
    # Debuggers would report a NaN that is replaced later. With a finite maximum, no exponent is at the bound, where
    # `clip` halves derivatives.
    finite = lib.xp.where(lib.xp.isinf(maximum), 0, maximum)
    return lib.xp.exp(lib.clip(difference(lib, logits, finite), None, 1.0))


def exponentials_in_one_pass(lib: Library, logits: Any, axes: tuple[int, ...]) -> Any:
    """Return `exp(z - m)` from the library's own probabilities where that takes fewer passes; else None."""
    probabilities = lib.softmax(logits, axes) if lib.has_softmax and not lib.reads_values else None
    return None if probabilities is None else quotient(lib, probabilities, lib.maximum(probabilities, axes), 0.0)


def log_total(lib: Library, exponentials: Any, axes: tuple[int, ...], small: Any = True) -> Any:
    """Return `log(sum(e))` of exponentials of at most 1.

    Where `small` is true, small results are accurate even if all exponentials but one are tiny.
    """
    return for_each_row(lib, lib.xp.log1p, sum_without_maximum(lib, exponentials, axes, small), axes=axes)


def quotient(lib: Library, numerators: Any, total: Any, shift: Any, divisor: int = 1) -> Any:
    """Return the numerators divided by `divisor` and by the sum of weights with this shift.

    Where values can be read, the result overwrites the numerators, which nothing else uses.
    """
    if shift is None:
        # The library's softmax may add terms one after another: all entries of a row are then off by the same factor.
        slack = 8 * lib.limit(total.dtype, "eps")
        if divisor == 1 and lib.reads_values and lib.lie_within(total, 1 + slack, 1 - slack):
            return numerators
        total = lib.xp.where(lib.xp.abs(total - 1) <= slack, 1, total)
    if divisor != 1:
        total = total * divisor
    if not lib.reads_values:
        return numerators / total
    numerators /= total
    return numerators


def for_each_row(lib: Library, function: Callable[..., Any], *values: Any, axes: tuple[int, ...]) -> Any:
    """Return a function of values that have one entry for each row."""
    if lib.reads_values:
        return function(*values)
    # Compilers vectorize along the last axis, which has length 1 here.
    result = function(*(lib.xp.squeeze(value, axis=axes) for value in values))
    for axis in sorted(axes):  # the shape may hold unknown lengths
        result = lib.expand_dims(result, axis)
    return result


def computed(function: Callable[..., Any], *arrays: Any, into: Any = None) -> Any:
    """Return a function of the arrays, written into the memory `into` if it is given."""
    return function(*arrays) if into is None else function(*arrays, out=into)
