"""The difference between logits and the maximum of their row, safe in every floating-point environment."""

from functools import cache
from types import ModuleType
from typing import Any

from stable_softmax._libraries import is_eager


def difference(xp: ModuleType, logits: Any, maximum: Any) -> Any:
    """Return `logits - maximum`: exactly 0 at the maximum, and NaN in a row without a finite one."""
    if not is_eager(xp, logits):
        # Where `logits` is a product, a compiler contracts product and difference into one operation with one
        # rounding, and the maximum's own entry is then not 0 but the rounding error of the product. With a 0 to add
        # first, the contracted operation is the product itself.
        return (logits + (maximum - maximum)) - maximum
    largest, moderate = _limits(xp, logits.dtype)
    if not xp.count_nonzero(xp.abs(maximum) > moderate):
        return logits - maximum
    # inf - inf and an overflow both make NumPy warn. Neither happens below: NaN and infinity subtract in silence.
    smallest = xp.where(maximum > 0, maximum, 0) - largest
    return xp.where(logits < smallest, -xp.inf, logits) - xp.where(xp.isfinite(maximum), maximum, xp.nan)


@cache
def _limits(xp: ModuleType, dtype: Any) -> tuple[Any, Any]:
    """Return the largest number, and one whose subtraction from any other cannot overflow."""
    limits = xp.finfo(dtype)
    # Less than half the spacing of the largest numbers.
    return limits.max, limits.max * limits.eps / 8
