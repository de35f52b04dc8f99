"""Several axes merged into one, since libraries sum less well along several axes."""

import math
from collections.abc import Callable
from typing import Any

from stable_softmax._libraries.standard import Library


def can_merge(lib: Library, array: Any, axes: tuple[int, ...]) -> bool:
    """Whether these are several axes that can be merged into one on one device."""
    return len(axes) > 1 and lib.merges_axes(array, axes)


def along_one_axis(lib: Library, function: Callable[..., Any], array: Any, axes: tuple[int, ...], *more: Any) -> Any:
    """Return `function(lib, array, *more, axes)`, computed along one merged axis, of arrays of the same shape.

    A result keeps that axis or reduces it to length 1; there may be a tuple of them.
    """
    order = (*(axis for axis in range(array.ndim) if axis not in axes), *axes)
    kept = array.ndim - len(axes)
    lengths = tuple(array.shape[axis] for axis in order)

    def merged(array: Any) -> Any:
        rows = lib.xp.reshape(lib.xp.permute_dims(array, order), (*lengths[:kept], math.prod(lengths[kept:])))
        return lib.with_neighbours(rows)

    def restored(values: Any) -> Any:
        shape = (*lengths[:kept], *(1 for _ in axes)) if values.shape[kept] == 1 else lengths
        back = tuple(order.index(axis) for axis in range(array.ndim))
        return lib.xp.permute_dims(lib.xp.reshape(values, shape), back)

    values = function(lib, *map(merged, (array, *more)), axes=(kept,))
    return tuple(map(restored, values)) if isinstance(values, tuple) else restored(values)
