"""Several axes merged into one, since libraries sum less well along several axes."""

import math
from collections.abc import Callable
from typing import Any

from stable_softmax._libraries.standard import Library


def can_merge(lib: Library, array: Any, axes: tuple[int, ...]) -> bool:
    """Whether these are several axes that can be merged into one on one device."""
    return len(axes) > 1 and lib.merges_axes(array, axes)


def merged(lib: Library, array: Any, order: tuple[int, ...], kept: int) -> Any:
    """Return an array with its axes in this order, and all but the first `kept` made one."""
    ordered = lib.xp.permute_dims(array, order)
    lengths = tuple(ordered.shape)
    return lib.xp.reshape(ordered, (*lengths[:kept], math.prod(lengths[kept:])))


def restored(lib: Library, array: Any, order: tuple[int, ...], lengths: tuple[int, ...]) -> Any:
    """Return an array whose axes, in this order, have these lengths, with the axes where they were."""
    back = tuple(order.index(axis) for axis in range(len(order)))
    return lib.xp.permute_dims(lib.xp.reshape(array, lengths), back)


def along_one_axis(lib: Library, function: Callable[..., Any], array: Any, axes: tuple[int, ...], *more: Any) -> Any:
    """Return `function(lib, array, *more, axes)`, computed along one merged axis, of arrays of the same shape.

    A result keeps that axis or reduces it to length 1; there may be a tuple of them.
    """
    order = (*(axis for axis in range(array.ndim) if axis not in axes), *axes)
    kept = array.ndim - len(axes)
    lengths = tuple(array.shape[axis] for axis in order)

    def put_back(values: Any) -> Any:
        is_reduced = values.shape[kept] == 1
        return restored(lib, values, order, (*lengths[:kept], *(1 for _ in axes)) if is_reduced else lengths)

    rows = (lib.with_neighbours(merged(lib, given, order, kept)) for given in (array, *more))
    values = function(lib, *rows, axes=(kept,))
    return tuple(map(put_back, values)) if isinstance(values, tuple) else put_back(values)
