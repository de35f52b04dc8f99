"""The difference between logits and what their row is shifted by, safe in every floating-point environment."""

from functools import cache
from types import ModuleType
from typing import Any

from stable_softmax._libraries import is_eager
from stable_softmax._libraries._operations import clipped, computed, is_any


def least_shift(xp: ModuleType, maximum: Any) -> Any:
    """Return by how much a row exceeds the range in which exponentials need no shift: 0 for most rows.

    What is not shifted is not rounded either. The maximum is at least 0 after the shift, so that what underflows is
    negligible; and at most so much, even where it is rounded, that its exponential times any number of elements fits.
    """
    largest = 31 if maximum.dtype == xp.float32 else 511
    return maximum - clipped(xp, maximum, 0, largest)


def difference(xp: ModuleType, logits: Any, shift: Any, into: Any = None) -> Any:
    """Return `logits - shift`: exactly 0 where they are equal, and NaN in a row that is shifted by no finite number."""
    if not is_eager(xp, logits):
        # Where `logits` is a product, a compiler contracts product and difference into one operation with one
        # rounding, and the maximum's own entry is then not 0 but the rounding error of the product. With a 0 to add
        # first, the contracted operation is the product itself.
        return (logits + (shift - shift)) - shift
    largest, moderate = _limits(xp, logits.dtype)
    if not is_any(xp, xp.abs(shift) > moderate):
        return computed(xp.subtract, logits, shift, into=into)
    # inf - inf and an overflow both make NumPy warn. Neither happens below: NaN and infinity subtract in silence.
    smallest = xp.where(shift > 0, shift, 0) - largest
    finite = xp.where(logits < smallest, -xp.inf, logits)
    return computed(xp.subtract, finite, xp.where(xp.isfinite(shift), shift, xp.nan), into=into)


@cache
def _limits(xp: ModuleType, dtype: Any) -> tuple[Any, Any]:
    """Return the largest number, and one whose subtraction from any other cannot overflow."""
    limits = xp.finfo(dtype)
    # Less than half the spacing of the largest numbers.
    return limits.max, limits.max * limits.eps / 8
