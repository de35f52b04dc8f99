"""Namespaces, dtypes, shapes and axes: metadata only, but for what NumPy has to become an array of another library."""

import operator
from collections.abc import Callable
from functools import lru_cache, wraps
from types import ModuleType
from typing import Any

import numpy as np

from stable_softmax._arguments._types import Axis
from stable_softmax._execution._plan import Layout
from stable_softmax._libraries import is_array, is_numpy, namespace, takes_numpy
from stable_softmax._libraries._operations import (
    computed_dtype,
    dtype_object,
    native_dtype,
    on_one_mesh,
    without_empty_chunks,
)
from stable_softmax._libraries._refusals import check_is_array, type_name_of

_NUMPY = (np.ndarray, np.generic)
_NUMPY_KINDS = {"bool": "b", "integral": "iu", "real floating": "f"}


def together(required: dict[str, Any], **optional: Any) -> tuple[Any, ...]:
    """Return the array namespace that arrays share, and each array as that library has it; None stays None."""
    arrays = (*required.values(), *optional.values())
    types = {type(array) for array in arrays if array is not None}
    if types == {np.ndarray} and all(array is not None for array in required.values()):  # as most often
        return namespace(arrays[0]), *arrays
    given = required | {name: array for name, array in optional.items() if array is not None}
    for name, array in given.items():
        if type(array) is not np.ndarray:
            check_is_array(name, array)
    xp = _namespace(given)
    for name, array in given.items():
        _check_known_shape(name, array)
    given = on_one_mesh(xp, given)
    return xp, *(_native(xp, given[name]) if name in given else None for name in (*required, *optional))


def kept_for_numpy(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the results of a function of a namespace and of what is no array.

    Those for other libraries depend on their settings, too, such as JAX's of 64 bits.
    """
    keeping = lru_cache(maxsize=512, typed=True)(function)

    @wraps(function)
    def call(xp: ModuleType, *arguments: Any) -> Any:
        if is_numpy(xp):
            try:
                return keeping(xp, *arguments)
            except TypeError:  # of what is wrong or cannot be hashed, about which the function says more
                pass
        return function(xp, *arguments)

    call.cache_info = keeping.cache_info  # type: ignore[attr-defined]
    return call


def layout_of(xp: ModuleType, logits: Any, axis: Axis, dtype: Any) -> Layout:
    """Check shape and dtype of `logits`, `axis` and `dtype`, and find the dtype to work in."""
    shape = tuple(logits.shape)
    axes = _normalized_axes(axis, len(shape))
    return Layout(shape, axes, *_dtypes(xp, logits.dtype, dtype))


def layout_along(xp: ModuleType, logits: Any, axis: Any, dtype: Any) -> Layout:
    """Return the layout along one class axis."""
    try:
        index_of(axis)
    except TypeError:
        raise TypeError(f"axis must be an integer, not {axis!r}{remedy_for_index(axis)}") from None
    return layout_of(xp, logits, axis, dtype)


def where_of(xp: ModuleType, where: Any, layout: Layout) -> Any:
    """Check a mask of classes, and give it as many dimensions as the logits have."""
    if not is_of_kind(xp, where.dtype, "bool"):
        raise TypeError(f"where must be an array of booleans, not {where.dtype}")
    missing = len(layout.shape) - where.ndim
    lengths = zip(where.shape, layout.shape[missing:], strict=True) if missing >= 0 else [(0, 1)]
    if any(given not in (1, length) for given, length in lengths):
        is_of_examples = tuple(where.shape) == tuple(n for i, n in enumerate(layout.shape) if i not in layout.axes)
        remedy = "; ignore_index leaves examples out of a loss" if is_of_examples else ""
        raise ValueError(f"where must broadcast to logits' shape {layout.shape}, not {tuple(where.shape)}{remedy}")
    return xp.reshape(where, (1,) * missing + tuple(where.shape))


def is_of_kind(xp: ModuleType, dtype: Any, *kinds: str) -> bool:
    """Return whether a dtype is of one of these kinds of the array API standard."""
    if isinstance(dtype, np.dtype) and is_numpy(xp):  # whose own answer takes a microsecond
        return any(dtype.kind in _NUMPY_KINDS[kind] for kind in kinds)
    try:
        return bool(xp.isdtype(dtype, kinds))
    except (TypeError, ValueError, AttributeError):  # not a dtype at all, or one of another library
        return False


@kept_for_numpy
def default_dtype(xp: ModuleType, kind: str) -> Any:
    """Return the dtype that the library gives to numbers of a kind."""
    return xp.__array_namespace_info__().default_dtypes()[kind]


def _check_known_shape(name: str, array: Any) -> None:
    unknown = [length for length in array.shape if length is None or length != length]  # None in the standard
    if unknown:
        remedy = ": call compute_chunk_sizes() first" if unknown[0] is not None else ""  # NaN in Dask
        raise ValueError(f"{name} must have a known shape, not {tuple(array.shape)}{remedy}")


def _namespace(given: dict[str, Any]) -> ModuleType:
    others = [array for array in given.values() if not is_of_numpy(array)]
    try:
        xp = namespace(*(others or given.values()))
    except TypeError as error:
        raise TypeError(_mixed(given)) from error
    if 0 < len(others) < len(given) and not takes_numpy(xp):
        raise TypeError(_mixed(given))
    return xp


def _mixed(given: dict[str, Any]) -> str:
    came = ", ".join(f"{name} is {type_name_of(array)}" for name, array in given.items())
    return f"all arrays must come from one array library, but {came}: convert them to one"


def _native(xp: ModuleType, array: Any) -> Any:
    """Return an array of the namespace as the work takes it, and NumPy's own type for one that is derived from it."""
    if type(array) is np.ndarray and is_numpy(xp):
        return array
    if not is_of_numpy(array):
        return without_empty_chunks(xp, array)
    if takes_numpy(xp) and array.dtype.kind in "iu":
        # JAX cuts integers to those that it has. Class ids that are out of range have to stay so.
        own, limits = np.iinfo(array.dtype), xp.iinfo(default_dtype(xp, "integral"))
        if own.max > limits.max:
            array = np.clip(array, max(own.min, limits.min), limits.max)
    array = np.asarray(array)
    try:
        return xp.asarray(array.astype(native_dtype(array.dtype), copy=False))
    except (TypeError, ValueError, NotImplementedError):
        return array  # of a dtype that the library has not, which is said where the dtype is looked at


def is_of_numpy(array: object) -> bool:
    return isinstance(array, _NUMPY)


@kept_for_numpy
def _dtypes(xp: ModuleType, given: Any, dtype: Any) -> tuple[Any, Any]:
    """Return the dtype to work in, and that of the result."""
    floating = _floating_dtype(xp, given)
    result = floating if dtype is None else _result_dtype(xp, dtype)
    return _working_dtype(xp, floating, result), result


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


def _floating_dtype(xp: ModuleType, dtype: Any) -> Any:
    if _is_floating(xp, dtype):
        return computed_dtype(xp, dtype)
    if is_of_kind(xp, dtype, "integral"):
        return default_dtype(xp, "real floating")
    raise TypeError(f"logits must have a real floating-point or integer dtype, not {dtype}{_wider(dtype)}")


def _result_dtype(xp: ModuleType, dtype: Any) -> Any:
    named = native_dtype(_named(xp, dtype) if isinstance(dtype, str) else dtype)
    # An array, or NumPy itself: JAX would take their `dtype`, and warn. Of dtypes, only scalar types have that.
    is_dtype = not hasattr(named, "dtype") or isinstance(named, type)
    if named is not None and is_dtype and _is_floating(xp, named):
        return dtype_object(xp, named)
    library = xp.__name__.removeprefix("array_api_compat.")
    raise TypeError(f"dtype must be a real floating-point dtype of {library}, or its name, not {dtype!r}")


def _named(xp: ModuleType, name: str) -> Any:
    """Return what the library has under a name, or the dtype that NumPy knows by it, such as "f4"."""
    if hasattr(xp, name) or not (is_numpy(xp) or takes_numpy(xp)):
        return getattr(xp, name, None)
    try:
        return np.dtype(name)
    except (TypeError, ValueError, SyntaxError):  # all of which NumPy raises for what is no name
        return None


def _is_floating(xp: ModuleType, dtype: Any) -> bool:
    """Return whether a dtype is real floating, and holds more than the eight bits of numbers that are only stored."""
    return is_of_kind(xp, dtype, "real floating") and bits_of(xp, dtype) > 8


def _working_dtype(xp: ModuleType, floating: Any, result: Any) -> Any:
    """Return the dtype to work in: at least single precision, and what logits and result have."""
    widest = wider_dtype(xp, floating, result)
    return widest if bits_of(xp, widest) >= 32 else dtype_object(xp, xp.float32)


def wider_dtype(xp: ModuleType, first: Any, second: Any) -> Any:
    """Return the wider of two real floating dtypes, and the first of two that are as wide."""
    return second if bits_of(xp, second) > bits_of(xp, first) else first


def bits_of(xp: ModuleType, dtype: Any) -> int:
    # What NumPy knows of a dtype is there at once, also for dtypes that its finfo does not take.
    return dtype.itemsize * 8 if isinstance(dtype, np.dtype) else int(xp.finfo(dtype).bits)
