"""The normalizations of some of the classes, along any axes, and of no classes at all."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

from stable_softmax._maths import _derivatives
from stable_softmax._maths._axes import along_one_axis, can_merge


def softmax(xp: ModuleType, logits: Any, where: Any, axes: tuple[int, ...], into: Any = None) -> Any:
    """Return the softmax of the classes that are left, and 0 for the others."""
    return _normalized(_derivatives.softmax, xp, logits, where, axes, into, excluded=0.0)


def log_softmax(xp: ModuleType, logits: Any, where: Any, axes: tuple[int, ...], into: Any = None) -> Any:
    """Return its logarithm."""
    return _normalized(_derivatives.log_softmax, xp, logits, where, axes, into, excluded=-math.inf)


def logsumexp(xp: ModuleType, logits: Any, where: Any, axes: tuple[int, ...]) -> Any:
    """Return the logarithm of the sum of the exponentials of what is left: of nothing, that of 0."""
    if _is_empty(logits, axes):
        return xp.sum(logits, axis=axes, keepdims=True) - xp.inf
    if where is None:
        return _along(xp, _derivatives.logsumexp, logits, axes)
    any_left = xp.any(where, axis=axes, keepdims=True)
    totals = _along(xp, _derivatives.logsumexp, _left(xp, logits, where, any_left), axes)
    return xp.where(any_left, totals, -xp.inf)


def _normalized(
    function: Callable[..., Any],
    xp: ModuleType,
    logits: Any,
    where: Any,
    axes: tuple[int, ...],
    into: Any,
    excluded: float,
) -> Any:
    if _is_empty(logits, axes):
        return logits * 1
    if where is None:
        return _along(xp, function, logits, axes, into)
    any_left = xp.any(where, axis=axes, keepdims=True)
    return xp.where(where, _along(xp, function, _left(xp, logits, where, any_left), axes), excluded)


def _left(xp: ModuleType, logits: Any, where: Any, any_left: Any) -> Any:
    """Return logits, -inf for what is excluded, and 0 for all of a row that has nothing else: no NaN comes of it."""
    otherwise = xp.where(any_left, -xp.inf, xp.zeros_like(any_left, dtype=logits.dtype))
    return xp.where(where, logits, otherwise)


def _along(xp: ModuleType, function: Callable[..., Any], logits: Any, axes: tuple[int, ...], into: Any = None) -> Any:
    if not axes:  # a single number, which is its own row
        return xp.reshape(function(xp, xp.reshape(logits, (1,)), axes=(0,)), ())
    if can_merge(xp, logits, axes):
        return along_one_axis(xp, function, logits, axes)
    return function(xp, logits, axes=axes, into=into)


def _is_empty(logits: Any, axes: tuple[int, ...]) -> bool:
    return any(logits.shape[axis] == 0 for axis in axes)
