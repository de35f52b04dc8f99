"""From the rows' results to what is returned: reductions over the batch, and one rounding to the result's dtype."""

import math
from types import ModuleType
from typing import Any

from array_api_compat import array_namespace, is_dask_array

from stable_softmax._arguments import Reduction
from stable_softmax._backends import is_eager
from stable_softmax._sums import accurate_sum


def reduced(xp: ModuleType, losses: Any, axis: int, reduction: Reduction, divisor: Any) -> Any:
    """Drop the class axis, of length 1, from the losses, or sum all, over the divisor of the mean."""
    if reduction == "none":
        return xp.squeeze(losses, axis=axis)
    if reduction == "mean":
        losses = losses / divisor
    return xp.reshape(accurate_sum(xp, losses, tuple(range(losses.ndim))), ())


def batch_size(array: Any, axis: int) -> int:
    """Return the number of examples, and 1 for none: the mean over none is 0."""
    return max(1, math.prod(array.shape[:axis] + array.shape[axis + 1 :]))


def rounded(xp: ModuleType, values: Any, dtype: Any) -> Any:
    """Convert to a dtype of at most the same precision, without NumPy's warning where the range is exceeded."""
    if values.dtype == dtype:
        return values
    if is_dask_array(values):
        chunks: Any = values
        return chunks.map_blocks(lambda chunk: rounded(array_namespace(chunk), chunk, dtype), dtype=dtype)
    if not is_eager(values):
        return xp.astype(values, dtype)
    limits = xp.finfo(dtype)
    epsilon = float(limits.eps)
    # Halfway between the largest number and the next power of two; from here on, rounding gives infinity.
    edge = float(limits.max) * (4 - epsilon) / (4 - 2 * epsilon)
    values = xp.where(values >= edge, xp.inf, xp.where(values <= -edge, -xp.inf, values))
    return xp.astype(values, dtype)
