"""Exponentials of rows of logits `z`, in a form that neither overflows nor loses digits.

Softmax, loss and gradient need only weights that are proportional to the probabilities: `w = exp(z - s)`, with any
shift `s` that brings them into the range of the dtype.
"""

from collections.abc import Callable
from typing import Any

from stable_softmax._libraries.standard import Library
from stable_softmax._maths.sums import sum_without_maximum


def weights_of(lib: Library, logits: Any, axes: tuple[int, ...], into: Any = None) -> tuple[Any, Any]:
    """Return weights and the shift `z - log(w)`: one number for each row, or one for all rows.

    The fastest form is chosen: the library's own probabilities in one pass, whose sum is 1 except for rounding and
    whose shift is unknown (None); or else exponentials. These need no shift, and no pass to subtract it, if values can
    be read and are in range.
    """
    xp = lib.xp
    probabilities = lib.softmax(logits, axes, into)
    if probabilities is not None:
        return probabilities, None
    maximum = lib.maximum(logits, axes)
    if not lib.reads_values:
        return xp.exp(difference(lib, logits, maximum)), maximum
    # Logits that are not shifted are not rounded either. After the shift, a row's maximum is at least 0, so that
    # underflow is negligible, and so small that its exponential times any number of classes is in range, even after
    # rounding.
    largest = 31.0 if logits.dtype == xp.float32 else 511.0
    if lib.lie_within(maximum, largest):
        return xp.exp(logits) if into is None else xp.exp(logits, out=into), 0.0
    shift = maximum - lib.clip(maximum, 0.0, largest)
    return lib.in_place(xp.exp, difference(lib, logits, shift, into)), shift


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
    """Return `exp(z - m)` from the library's own probabilities if it computes them in one pass; else None."""
    probabilities = lib.softmax(logits, axes)
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
        total = lib.xp.where(lib.xp.abs(total - 1) <= 8 * lib.limit(total.dtype, "eps"), 1, total)
        if divisor == 1 and lib.reads_values and not lib.is_any(total != 1):
            return numerators
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
    return lib.xp.reshape(result, values[0].shape)


def computed(function: Callable[..., Any], *arrays: Any, into: Any = None) -> Any:
    """Return a function of the arrays, written into the memory `into` if it is given."""
    return function(*arrays) if into is None else function(*arrays, out=into)
