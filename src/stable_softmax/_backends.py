"""The questions that the code asks about the library behind an array."""

import math
from types import ModuleType
from typing import Any

from array_api_compat import (
    is_array_api_strict_namespace,
    is_jax_namespace,
    is_numpy_namespace,
    is_torch_namespace,
)

# Below, dividing the work into blocks would cost more than it saves.
_SMALL = 4096


def is_eager(xp: ModuleType, array: Any) -> bool:
    """Whether each operation on `array` runs at once on the CPU, on values that can be read for free.

    If not, values cannot steer the code, and a compiler may fuse operations and contract their roundings.
    """
    return is_writable(xp, array) or is_array_api_strict_namespace(xp)


def warns(xp: ModuleType) -> bool:
    """Whether NumPy does the work, which warns of overflow and of invalid values."""
    return is_numpy_namespace(xp) or is_array_api_strict_namespace(xp)


def is_writable(xp: ModuleType, array: Any) -> bool:
    """Whether an eager array also gives and takes values at an array of indices, which the standard leaves out."""
    if is_numpy_namespace(xp):
        return True
    if not is_torch_namespace(xp) or array.device.type != "cpu":
        return False
    from stable_softmax._derivatives._torch import is_transformed

    return not is_transformed(array)


def in_blocks(xp: ModuleType, logits: Any) -> bool:
    """Whether the work on an array is done block by block: parts of it can be read and stored, and it is large."""
    return is_numpy_namespace(xp) and logits.size > _SMALL


def strides_of(array: Any) -> tuple[int, ...]:
    """Return how far apart in memory neighbours along each axis are."""
    return tuple(array.strides)


def pairwise_length(xp: ModuleType, array: Any, axis: int) -> int:
    """Return how many neighbours along an axis the library adds nearly as a tree: 1 if it adds one after another."""
    if is_numpy_namespace(xp):
        # As much as its buffers hold, which older versions add up one after another.
        return 8192 if array.flags.c_contiguous and math.prod(array.shape[axis + 1 :]) == 1 else 1
    if is_torch_namespace(xp):
        # Its registers are added up one after another, and are filled in rounds of 16.
        return 128 if array.stride(axis) == 1 else 1
    return 1


def is_split(xp: ModuleType, array: Any, axis: int) -> bool:
    """Whether `axis` is known to lie on several devices, so that nothing may be picked by an index along it."""
    if not is_jax_namespace(xp):
        return False
    from stable_softmax._derivatives._jax import is_sharded

    return is_sharded(array, axis)
