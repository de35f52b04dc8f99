"""Softmax, log-softmax and logsumexp with a mask of classes, along any axes, also of rows without classes."""

from collections.abc import Callable
from typing import Any

from stable_softmax._libraries.standard import Library
from stable_softmax._maths import normalization
from stable_softmax._maths.axes import along_one_axis, can_merge


def masked_logsumexp(lib: Library, logits: Any, where: Any, axes: tuple[int, ...]) -> Any:
    """Return the logsumexp of the classes that `where` keeps; -inf if it keeps none."""
    if 0 in logits.shape and _is_empty(logits, axes):
        return lib.xp.sum(logits, axis=axes, keepdims=True) - lib.xp.inf
    if where is None:
        return _along(lib, normalization.logsumexp, logits, axes)
    any_left = lib.xp.any(where, axis=axes, keepdims=True)
    totals = _along(lib, normalization.logsumexp, _masked(lib, logits, where, any_left), axes)
    return lib.xp.where(any_left, totals, -lib.xp.inf)


def normalized(
    function: Callable[..., Any],
    excluded: float,
    lib: Library,
    logits: Any,
    where: Any,
    axes: tuple[int, ...],
    into: Any = None,
) -> Any:
    """Return the function of the classes that `where` keeps, and a number for the others."""
    if 0 in logits.shape and _is_empty(logits, axes):
        return logits * 1
    if where is None:
        if len(axes) == 1:
            return function(lib, logits, axes=axes, into=into)
        return _along(lib, function, logits, axes)
    any_left = lib.xp.any(where, axis=axes, keepdims=True)
    return lib.xp.where(where, _along(lib, function, _masked(lib, logits, where, any_left), axes), excluded)


def _masked(lib: Library, logits: Any, where: Any, any_left: Any) -> Any:
    """Return logits with -inf for excluded classes; 0 in rows without other classes, where -inf would give NaN."""
    otherwise = lib.xp.where(any_left, -lib.xp.inf, lib.xp.zeros_like(any_left, dtype=logits.dtype))
    return lib.xp.where(where, logits, otherwise)


def _along(lib: Library, function: Callable[..., Any], logits: Any, axes: tuple[int, ...]) -> Any:
    if not axes:  # 0-d logits, a row of one class
        return lib.xp.reshape(function(lib, lib.xp.reshape(logits, (1,)), axes=(0,)), ())
    if can_merge(lib, logits, axes):
        return along_one_axis(lib, function, logits, axes)
    return function(lib, logits, axes=axes)


def _is_empty(logits: Any, axes: tuple[int, ...]) -> bool:
    return any(logits.shape[axis] == 0 for axis in axes)
