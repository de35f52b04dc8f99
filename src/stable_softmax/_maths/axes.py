"""Several axes merged into one, since libraries sum less well along several axes."""

import math
from collections.abc import Callable
from typing import Any

from stable_softmax._libraries.standard import Library


def can_merge(lib: Library, array: Any, axes: tuple[int, ...]) -> bool:
    """Whether these are several axes that can be merged into one on one device."""
    return len(axes) > 1 and lib.merges_axes(array, axes)


def along_one_axis(lib: Library, function: Callable[..., Any], array: Any, axes: tuple[int, ...]) -> Any:
    """Return `function(lib, array, axes)`, computed along one merged axis, which it keeps or reduces to length 1."""
    order = (*(axis for axis in range(array.ndim) if axis not in axes), *axes)
    ordered = lib.xp.permute_dims(array, order)
    kept = array.ndim - len(axes)
    merged = lib.with_neighbours(lib.xp.reshape(ordered, (*ordered.shape[:kept], math.prod(ordered.shape[kept:]))))
    values = function(lib, merged, axes=(kept,))
    shape = (*ordered.shape[:kept], *(1 for _ in axes)) if values.shape[kept] == 1 else ordered.shape
    return lib.xp.permute_dims(lib.xp.reshape(values, shape), tuple(order.index(axis) for axis in range(array.ndim)))
