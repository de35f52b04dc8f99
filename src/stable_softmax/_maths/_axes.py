"""Several axes made one, since libraries sum along many axes less well than along one."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

from stable_softmax._libraries import is_eager, is_jax, is_split
from stable_softmax._libraries._operations import with_neighbours


def can_merge(xp: ModuleType, array: Any, axes: tuple[int, ...]) -> bool:
    """Whether these are several axes, which can be made one that lies on one device."""
    if len(axes) == 1:
        return False
    return is_eager(xp, array) or (is_jax(xp) and not any(is_split(xp, array, axis) for axis in axes))


def along_one_axis(xp: ModuleType, function: Callable[..., Any], array: Any, axes: tuple[int, ...]) -> Any:
    """Return `function(xp, array, axes)`, which keeps the axes or reduces them to length 1, along one axis."""
    order = (*(axis for axis in range(array.ndim) if axis not in axes), *axes)
    ordered = xp.permute_dims(array, order)
    kept = array.ndim - len(axes)
    merged = with_neighbours(xp, xp.reshape(ordered, (*ordered.shape[:kept], math.prod(ordered.shape[kept:]))))
    values = function(xp, merged, axes=(kept,))
    shape = (*ordered.shape[:kept], *(1 for _ in axes)) if values.shape[kept] == 1 else ordered.shape
    return xp.permute_dims(xp.reshape(values, shape), tuple(order.index(axis) for axis in range(array.ndim)))
