"""Several axes made one, since libraries sum along many axes less well than along one."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from array_api_compat import is_jax_namespace

from stable_softmax._backends import is_eager, is_split


def can_merge(xp: ModuleType, array: Any, axes: tuple[int, ...]) -> bool:
    """Whether these are several axes, which can be made one that lies on one device."""
    if len(axes) == 1:
        return False
    return is_eager(xp, array) or (is_jax_namespace(xp) and not any(is_split(xp, array, axis) for axis in axes))


def along_one_axis(xp: ModuleType, function: Callable[..., Any], array: Any, axes: tuple[int, ...]) -> Any:
    """Return `function(xp, array, axes)`, which keeps the axes or reduces them to length 1, along one axis."""
    order = (*(axis for axis in range(array.ndim) if axis not in axes), *axes)
    ordered = xp.permute_dims(array, order)
    kept = array.ndim - len(axes)
    values = function(xp, xp.reshape(ordered, (*ordered.shape[:kept], -1)), axes=(kept,))
    shape = ordered.shape if values.shape[kept] > 1 else (*ordered.shape[:kept], *(1 for _ in axes))
    return xp.permute_dims(xp.reshape(values, shape), tuple(order.index(axis) for axis in range(array.ndim)))
