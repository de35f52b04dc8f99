"""The difference between logits and what their row is shifted by."""

from types import ModuleType
from typing import Any

from stable_softmax._libraries import is_eager
from stable_softmax._libraries._operations import clipped, computed


def least_shift(xp: ModuleType, maximum: Any) -> Any:
    """Return by how much a row exceeds the range in which exponentials need no shift: 0 for most rows.

    What is not shifted is not rounded either. The maximum is at least 0 after the shift, so that what underflows is
    negligible; and at most so much, even where it is rounded, that its exponential times any number of elements fits.
    """
    largest = 31.0 if maximum.dtype == xp.float32 else 511.0
    return maximum - clipped(xp, maximum, 0.0, largest)


def difference(xp: ModuleType, logits: Any, shift: Any, into: Any = None) -> Any:
    """Return `logits - shift`, exactly 0 where they are equal; NaN where they are the same infinity."""
    if not is_eager(xp, logits):
        # Where `logits` is a product, a compiler contracts product and difference into one operation with one
        # rounding, and the maximum's own entry is then not 0 but the rounding error of the product. With a 0 to add
        # first, the contracted operation is the product itself.
        return (logits + (shift - shift)) - shift
    return computed(xp.subtract, logits, shift, into=into)
