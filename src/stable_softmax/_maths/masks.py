"""Functions of rows with a mask of classes, along any axes; those of one array also of rows without classes."""

from collections.abc import Callable
from functools import partial
from typing import Any

from stable_softmax._core import trees
from stable_softmax._core.comparison import Comparison
from stable_softmax._libraries.standard import Library
from stable_softmax._maths import normalization, weighted
from stable_softmax._maths.axes import along_one_axis, can_merge


def masked_logsumexp(lib: Library, logits: Any, where: Any, axes: tuple[int, ...]) -> Any:
    """Return the logsumexp of the classes that `where` keeps; -inf if it keeps none."""
    if 0 in logits.shape and _is_empty(logits, axes):
        return lib.xp.sum(logits, axis=axes, keepdims=True) - lib.xp.inf
    if where is None:
        return _along(lib, normalization.logsumexp, logits, axes=axes)
    any_left = lib.xp.any(where, axis=axes, keepdims=True)
    totals = _along(lib, normalization.logsumexp, _masked(lib, logits, where, any_left), axes=axes)
    return lib.xp.where(any_left, totals, -lib.xp.inf)


def with_sign(function: Callable[..., Any], lib: Library, *arguments: Any, **options: Any) -> tuple[Any, Any]:
    """Return a logsumexp that a function gives, and the sign of the sum: 1, or 0 for -inf."""
    totals = function(lib, *arguments, **options)
    return totals, lib.without_gradient(lib.xp.where(totals > -lib.xp.inf, 1.0, lib.xp.exp(totals)))


def weighted_logsumexp(lib: Library, logits: Any, given: tuple[Any, Any], axes: tuple[int, ...]) -> Any:
    """Return the logarithm of a weighted sum of exponentials; NaN where the sum is negative."""
    totals, sign = weighted_logsumexp_and_sign(lib, logits, given, axes)
    return lib.nan_where(sign < 0, totals)


def weighted_logsumexp_and_sign(
    lib: Library, logits: Any, given: tuple[Any, Any], axes: tuple[int, ...]
) -> tuple[Any, Any]:
    """Return the logarithm of the magnitude of a weighted sum of the classes that `where` keeps, and its sign."""
    where, weights = given
    if 0 in logits.shape and _is_empty(logits, axes):
        nothing = lib.xp.sum(logits, axis=axes, keepdims=True)
        return nothing - lib.xp.inf, nothing
    weights = lib.convert(weights, logits.dtype)
    if where is not None:
        logits, weights = lib.xp.where(where, logits, 0), lib.xp.where(where, weights, 0)
    if len(axes) > 1:  # which are made one only if both arrays have them
        weights = lib.xp.broadcast_to(weights, tuple(logits.shape))
    totals, sign = _along(lib, weighted.logarithm_and_sign, logits, weights, axes=axes)
    return totals, lib.without_gradient(sign)


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
        return _along(lib, function, logits, axes=axes)
    any_left = lib.xp.any(where, axis=axes, keepdims=True)
    return lib.xp.where(where, _along(lib, function, _masked(lib, logits, where, any_left), axes=axes), excluded)


def of_kept_classes(
    function: Callable[..., Any],
    lib: Library,
    logits: Any,
    given: Comparison,
    axes: tuple[int, ...],
    into: Any = None,  # noqa: ARG001 - results need memory of their own
) -> Any:
    """Return what a function gives of the classes that `where` keeps, over the divisor: a value, gradients, or both.

    Values are 0 where it keeps no class, and gradients are 0 for classes that it excludes.
    """
    options = {} if given.reference_share is None else {"weight": given.reference_share}
    arrays = [logits]
    if given.reference_logits is not None:
        arrays.append(lib.convert(given.reference_logits, logits.dtype))
    any_left = None
    if given.where is not None:
        any_left = lib.xp.any(given.where, axis=axes, keepdims=True)
        arrays = [_masked(lib, array, given.where, any_left) for array in arrays]
    values = _along(lib, partial(function, **options), *arrays, axes=axes)

    def finished(value: Any) -> Any:
        if any_left is not None:
            kept = given.where if value.shape == logits.shape else any_left
            value = lib.xp.where(kept, value, 0)
        return value if isinstance(given.divisor, int) and given.divisor == 1 else value / given.divisor

    return tuple(map(finished, values)) if isinstance(values, tuple) else finished(values)


def _masked(lib: Library, logits: Any, where: Any, any_left: Any) -> Any:
    """Return logits with -inf for excluded classes; 0 in rows without other classes, where -inf would give NaN."""
    otherwise = lib.xp.where(any_left, -lib.xp.inf, lib.xp.zeros_like(any_left, dtype=logits.dtype))
    return lib.xp.where(where, logits, otherwise)


def _along(lib: Library, function: Callable[..., Any], *arrays: Any, axes: tuple[int, ...]) -> Any:
    if not axes:  # 0-d logits, a row of one class
        values = function(lib, *(lib.xp.reshape(array, (1,)) for array in arrays), axes=(0,))
        return trees.mapped(lambda value: lib.xp.reshape(value, ()), values)
    if can_merge(lib, arrays[0], axes):
        return along_one_axis(lib, function, arrays[0], axes, *arrays[1:])
    return function(lib, *arrays, axes=axes)


def _is_empty(logits: Any, axes: tuple[int, ...]) -> bool:
    return any(logits.shape[axis] == 0 for axis in axes)
