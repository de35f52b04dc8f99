"""Namespaces, dtypes, shapes and axes: metadata only, but for what NumPy has to become an array of another library."""

import operator
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import numpy as np

from stable_softmax._arguments.types import Axis
from stable_softmax._core.layout import Layout
from stable_softmax._libraries import is_array, library_of
from stable_softmax._libraries.refusals import check_is_array, type_name_of
from stable_softmax._libraries.standard import Library, native_dtype

_NUMPY = (np.ndarray, np.generic)
_NUMPY_OR_NONE = {np.ndarray, type(None)}


def common_library(required: dict[str, Any], **optional: Any) -> tuple[Any, ...]:
    """Return the library that arrays share, and each array as that library has it; None stays None."""
    arrays = (*required.values(), *optional.values())
    if {*map(type, required.values())} == {np.ndarray} and {*map(type, optional.values())} <= _NUMPY_OR_NONE:
        return library_of(arrays[0]), *arrays  # as most often
    given = required | {name: array for name, array in optional.items() if array is not None}
    for name, array in given.items():
        if type(array) is not np.ndarray:
            check_is_array(name, array)
    lib = _library_of(given)
    for name, array in given.items():
        _check_known_shape(name, array)
    given = lib.on_one_mesh({name: _own(lib, array) for name, array in given.items()})
    own = [given.get(name) for name in (*required, *optional)]
    return lib.for_arrays(*given.values()), *own


def kept_if_possible(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the results of a function of a library and of what is no array, where these depend on nothing else.

    Those of other libraries may depend on their settings, too, such as JAX's of 64 bits.
    """
    keeping = lru_cache(maxsize=512, typed=True)(function)

    @wraps(function)
    def call(lib: Library, *arguments: Any) -> Any:
        if lib.keeps_plans:
            try:
                return keeping(lib, *arguments)
            except TypeError:  # of what is wrong or cannot be hashed, about which the function says more
                pass
        return function(lib, *arguments)

    call.cache_info = keeping.cache_info  # type: ignore[attr-defined]
    return call


def layout_of(lib: Library, logits: Any, axis: Axis, dtype: Any) -> Layout:
    """Check shape and dtype of `logits`, `axis` and `dtype`, and find the dtype to work in."""
    shape = tuple(logits.shape)
    axes = _normalized_axes(axis, len(shape))
    return Layout(shape, axes, *_dtypes(lib, logits.dtype, dtype))


def layout_along(lib: Library, logits: Any, axis: Any, dtype: Any) -> Layout:
    """Return the layout along one class axis."""
    try:
        index_of(axis)
    except TypeError:
        raise TypeError(f"axis must be an integer, not {axis!r}{remedy_for_index(axis)}") from None
    return layout_of(lib, logits, axis, dtype)


def where_of(lib: Library, where: Any, layout: Layout) -> Any:
    """Check a mask of classes, and give it as many dimensions as the logits have."""
    if not lib.is_of_kind(where.dtype, "bool"):
        raise TypeError(f"where must be an array of booleans, not {where.dtype}")
    missing = len(layout.shape) - where.ndim
    lengths = zip(where.shape, layout.shape[missing:], strict=True) if missing >= 0 else [(0, 1)]
    if any(given not in (1, length) for given, length in lengths):
        is_of_examples = tuple(where.shape) == tuple(n for i, n in enumerate(layout.shape) if i not in layout.axes)
        remedy = "; ignore_index leaves examples out of a loss" if is_of_examples else ""
        raise ValueError(f"where must broadcast to logits' shape {layout.shape}, not {tuple(where.shape)}{remedy}")
    return lib.xp.reshape(where, (1,) * missing + tuple(where.shape))


def _check_known_shape(name: str, array: Any) -> None:
    unknown = [length for length in array.shape if length is None or length != length]  # None in the standard
    if unknown:
        remedy = ": call compute_chunk_sizes() first" if unknown[0] is not None else ""  # NaN in Dask
        raise ValueError(f"{name} must have a known shape, not {tuple(array.shape)}{remedy}")


def _library_of(given: dict[str, Any]) -> Library:
    others = [array for array in given.values() if not is_of_numpy(array)]
    try:
        lib = library_of(*(others or given.values()))
    except TypeError as error:
        raise TypeError(_mixed(given)) from error
    if 0 < len(others) < len(given) and not lib.takes_numpy:
        raise TypeError(_mixed(given))
    return lib


def _mixed(given: dict[str, Any]) -> str:
    came = ", ".join(f"{name} is {type_name_of(array)}" for name, array in given.items())
    return f"all arrays must come from one array library, but {came}: convert them to one"


def _own(lib: Library, array: Any) -> Any:
    """Return an array of the library as the work takes it, and NumPy's as one of the library."""
    return lib.from_numpy(array) if is_of_numpy(array) and lib.takes_numpy else lib.own(array)


def is_of_numpy(array: object) -> bool:
    return isinstance(array, _NUMPY)


@kept_if_possible
def _dtypes(lib: Library, given: Any, dtype: Any) -> tuple[Any, Any]:
    """Return the dtype to work in, and that of the result."""
    floating = _floating_dtype(lib, given)
    result = floating if dtype is None else _result_dtype(lib, dtype)
    return _working_dtype(lib, floating, result), result


def _normalized_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
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


def _wider(dtype: Any) -> str:
    """Return what to do about floating-point numbers that the library, or only this one, does not work with."""
    return ": convert them to float32" if "float" in str(dtype) else ""


def remedy_for_index(axis: object) -> str:
    if isinstance(axis, str) and axis in ("none", "mean", "sum"):
        return ": reduction is a keyword"
    return ": make it static under jit" if is_array(axis) else ""


def plain_index(value: Any) -> Any:
    """Return an integer as Python's own, and anything else as it is, to be refused."""
    try:
        return index_of(value)
    except TypeError:
        return value


def index_of(value: Any) -> int:
    """Return an integer as Python's own; a TypeError comes for anything else, booleans included."""
    if isinstance(value, bool | np.bool_):
        raise TypeError
    return operator.index(value)


def _floating_dtype(lib: Library, dtype: Any) -> Any:
    if _is_floating(lib, dtype):
        return lib.computed_dtype(dtype)
    if lib.is_of_kind(dtype, "integral"):
        return lib.default_dtype("real floating")
    raise TypeError(f"logits must have a real floating-point or integer dtype, not {dtype}{_wider(dtype)}")


def _result_dtype(lib: Library, dtype: Any) -> Any:
    named = native_dtype(lib.dtype_named(dtype) if isinstance(dtype, str) else dtype)
    # An array, or NumPy itself: JAX would take their `dtype`, and warn. Of dtypes, only scalar types have that.
    is_dtype = not hasattr(named, "dtype") or isinstance(named, type)
    if named is not None and is_dtype and _is_floating(lib, named):
        return lib.dtype_object(named)
    raise TypeError(f"dtype must be a real floating-point dtype of {lib.name}, or its name, not {dtype!r}")


def _is_floating(lib: Library, dtype: Any) -> bool:
    """Return whether a dtype is real floating, and holds more than the eight bits of numbers that are only stored."""
    return lib.is_of_kind(dtype, "real floating") and lib.bits_of(dtype) > 8


def _working_dtype(lib: Library, floating: Any, result: Any) -> Any:
    """Return the dtype to work in: at least single precision, and what logits and result have."""
    widest = wider_dtype(lib, floating, result)
    return widest if lib.bits_of(widest) >= 32 else lib.dtype_object(lib.xp.float32)


def wider_dtype(lib: Library, first: Any, second: Any) -> Any:
    """Return the wider of two real floating dtypes, and the first of two that are as wide."""
    return second if lib.bits_of(second) > lib.bits_of(first) else first
