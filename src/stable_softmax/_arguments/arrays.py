"""Dtypes, shapes and axes of arrays, and the layout that they give: metadata only, but for reshaping a mask."""

import operator
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import numpy as np

from stable_softmax._arguments.types import Axis
from stable_softmax._core.layout import Layout
from stable_softmax._libraries import is_array
from stable_softmax._libraries.remedies import holds_objects
from stable_softmax._libraries.standard import Library, native_dtype


def cached_if_possible(function: Callable[..., Any]) -> Callable[..., Any]:
    """Cache a function of a library and of values that are not arrays, if its results depend on nothing else."""
    keeping = lru_cache(maxsize=512, typed=True)(lambda lib, _settings, *arguments: function(lib, *arguments))

    @wraps(function)
    def call(lib: Library, *arguments: Any) -> Any:
        if lib.caches_plans:
            try:
                return keeping(lib, lib.settings, *arguments)
            except (TypeError, ValueError):  # for arguments that are wrong, not hashable, or symbols of several scopes
                pass
        return function(lib, *arguments)

    call.cache_info = keeping.cache_info  # type: ignore[attr-defined]
    return call


@cached_if_possible
def layout_of(lib: Library, shape: tuple[int, ...], logits_dtype: Any, axis: Axis, dtype: Any) -> Layout:
    """Check shape and dtype of logits, `axis` and `dtype`, and choose the dtype of the computation."""
    axes = normalized_axes(axis, len(shape))
    if None in [shape[i] for i in axes]:
        raise ValueError(f"logits must have a known number of classes along axis {axis}, but its shape is {shape}")
    floating = _floating_dtype(lib, logits_dtype)
    result = floating if dtype is None else _result_dtype(lib, dtype)
    return Layout(shape, axes, _working_dtype(lib, floating, result), result)


def at_least(lib: Library, layout: Layout, name: str, dtype: Any) -> Layout:
    """Return the layout with a dtype of the computation that is no narrower than that of another array."""
    return layout._replace(working=wider_dtype(lib, layout.working, _floating_dtype(lib, dtype, name)))


def layout_along(lib: Library, shape: tuple[int, ...], logits_dtype: Any, axis: Any, dtype: Any) -> Layout:
    """Return the layout along one class axis."""
    try:
        index_of(axis)
    except TypeError:
        raise TypeError(f"axis must be an integer, not {axis!r}{remedy_for_index(axis)}") from None
    return layout_of(lib, shape, logits_dtype, axis, dtype)


def where_of(lib: Library, where: Any, layout: Layout) -> Any:
    """Check a mask of classes, and return it with as many dimensions as the logits."""
    if not lib.is_of_kind(where.dtype, "bool"):
        remedy = ": pass where != 0" if lib.is_of_kind(where.dtype, "integral", "real floating") else ""
        raise TypeError(f"where must be an array of booleans, not {where.dtype}{remedy}")
    missing = len(layout.shape) - where.ndim
    lengths = zip(where.shape, layout.shape[missing:], strict=True) if missing >= 0 else [(0, 1)]
    if any(given not in (1, length) for given, length in lengths):
        is_of_examples = tuple(where.shape) == tuple(n for i, n in enumerate(layout.shape) if i not in layout.axes)
        remedy = "; ignore_index leaves examples out of a loss" if is_of_examples else ""
        raise ValueError(f"where must broadcast to logits' shape {layout.shape}, not {tuple(where.shape)}{remedy}")
    for _ in range(missing):
        where = lib.expand_dims(where, 0)
    return where


def weights_of(lib: Library, weights: Any, layout: Layout) -> tuple[Any, Layout]:
    """Check the dtype of the weights of terms, and return them with as many dimensions as the logits, and the layout.

    The dtype of the computation is no narrower than theirs, unless they are integers.
    """
    if lib.is_of_kind(weights.dtype, "bool"):
        raise TypeError("weights must have a real floating-point or integer dtype, not bool: pass a mask as where")
    own = at_least(lib, layout, "weights", weights.dtype)
    for _ in range(len(layout.shape) - weights.ndim):
        weights = lib.expand_dims(weights, 0)
    return weights, layout if lib.is_of_kind(weights.dtype, "integral") else own


def broadcast_shape(name: str, shape: tuple[Any, ...], logits_shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the shape that logits and another array of this name and shape broadcast to."""
    ndim = max(len(shape), len(logits_shape))
    given, own = ((1,) * (ndim - len(lengths)) + lengths for lengths in (shape, logits_shape))
    lengths = [other if length == 1 else length for length, other in zip(own, given, strict=True)]
    if any(other not in (1, length) for length, other in zip(lengths, given, strict=True)):
        raise ValueError(f"{name} must broadcast with logits' shape {logits_shape}, but its shape is {shape}")
    return tuple(lengths)


def normalized_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    if type(axis) is int and -ndim <= axis < ndim:
        return (axis % ndim,)
    if axis is None:
        return tuple(range(ndim))
    if ndim == 0:
        raise ValueError("logits must have at least one dimension, unless axis is None, but its shape is ()")
    given = axis if isinstance(axis, tuple) else (axis,)
    try:
        axes = [index_of(i) for i in given]
    except TypeError:
        raise TypeError(
            f"axis must be an integer, a tuple of integers or None, not {axis!r}{remedy_for_index(axis)}"
        ) from None
    if not axes:
        raise ValueError("axis must name at least one dimension, but is ()")
    if any(not -ndim <= i < ndim for i in axes):
        raise ValueError(f"axis must lie in [{-ndim}, {ndim}) for logits of {ndim} dimensions, but is {axis!r}")
    normalized = tuple(i % ndim for i in axes)
    if len(set(normalized)) < len(normalized):
        raise ValueError(f"axis must not name a dimension twice, but is {axis!r}")
    return normalized


def not_real_error(name: str, dtype: Any, remedy: str = "") -> TypeError:
    """Return the error for an array that must hold real numbers, with advice for dtypes that stand for such."""
    if holds_objects(dtype):
        remedy = f': pass {name}.astype("float64")'
    elif "float" in str(dtype):  # of the array library or not, this package does not compute with it
        remedy = ": convert them to float32"
    return TypeError(f"{name} must have a real floating-point or integer dtype, not {dtype}{remedy}")


def name_of_dtype(dtype: Any) -> str:
    """Return the name of a dtype, or of a scalar type, without that of its library."""
    return str(dtype).rpartition(".")[2].rstrip("'>")


def remedy_for_index(axis: object) -> str:
    if isinstance(axis, str) and axis in ("none", "mean", "sum"):
        return ": reduction is a keyword"
    return ": make it static under jit" if is_array(axis) else ""


def plain_index(value: Any) -> Any:
    """Return an integer as a Python int, and any other value unchanged, to be refused later."""
    try:
        return index_of(value)
    except TypeError:
        return value


def index_of(value: Any) -> int:
    """Return an integer as a Python int; raise TypeError for any other value, including booleans."""
    if isinstance(value, bool | np.bool_):
        raise TypeError
    return operator.index(value)


def _floating_dtype(lib: Library, dtype: Any, name: str = "logits") -> Any:
    if _is_floating(lib, dtype):
        return lib.computed_dtype(dtype)
    if lib.is_of_kind(dtype, "integral"):
        return lib.default_dtype("real floating")
    raise not_real_error(name, dtype)


def _result_dtype(lib: Library, dtype: Any) -> Any:
    if dtype is float and not _is_floating(lib, float):  # JAX has a meaning of its own for it
        dtype = "float64"
    named = native_dtype(lib.dtype_named(dtype) if isinstance(dtype, str) else dtype)
    # JAX would take the `dtype` of an array or of the NumPy module, and warn. Among dtypes, only scalar types have one.
    is_dtype = not hasattr(named, "dtype") or isinstance(named, type)
    if named is not None and is_dtype and _is_floating(lib, named):
        return lib.dtype_object(named)
    remedy = _remedy_for_result(lib, dtype)
    raise TypeError(f"dtype must be a real floating-point dtype of {lib.name}, or its name, not {dtype!r}{remedy}")


def _remedy_for_result(lib: Library, dtype: Any) -> str:
    """Return advice for a dtype of another library of which this library has the same."""
    name = name_of_dtype(dtype)
    own = lib.dtype_named(name) if isinstance(dtype, type) or not is_array(dtype) else None
    return f": pass dtype={name!r}" if own is not None and _is_floating(lib, own) and name != dtype else ""


def _is_floating(lib: Library, dtype: Any) -> bool:
    """Whether a dtype is real floating with more than 8 bits: narrower ones are for storage only."""
    return lib.is_of_kind(dtype, "real floating") and lib.bits_of(dtype) > 8


def _working_dtype(lib: Library, floating: Any, result: Any) -> Any:
    """Return the dtype of the computation: at least float32, and at least that of logits and result."""
    widest = wider_dtype(lib, floating, result)
    return widest if lib.bits_of(widest) >= 32 else lib.dtype_object(lib.xp.float32)


def wider_dtype(lib: Library, first: Any, second: Any) -> Any:
    """Return the wider of two real floating dtypes; the first if both have the same width."""
    return second if lib.bits_of(second) > lib.bits_of(first) else first
