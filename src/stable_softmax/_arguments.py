"""What a caller may pass: namespaces, dtypes, shapes and axes. Reads metadata only, never values."""

import math
import operator
from functools import cache
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeAlias

from array_api_compat import array_namespace, is_array_api_obj

Reduction: TypeAlias = Literal["none", "mean", "sum"]
Axis: TypeAlias = int | tuple[int, ...] | None


class Rows(NamedTuple):
    """Logits in the dtype that the work is done in, with their class axes and the result's dtype."""

    logits: Any
    axes: tuple[int, ...]
    dtype: Any


def namespace_of(**arrays: Any) -> ModuleType:
    """Return the array namespace that all `arrays` share."""
    for name, array in arrays.items():
        if not is_array_api_obj(array):
            raise TypeError(
                f"{name} must be an array of a library that array-api-compat supports "
                f"(NumPy, JAX, PyTorch, Dask, ...), not {_type_name(array)}"
            )
    try:
        return array_namespace(*arrays.values())
    except TypeError as error:
        came = ", ".join(f"{name} is {_type_name(array)}" for name, array in arrays.items())
        raise TypeError(f"all arrays must come from one array library, but {came}") from error


def rows_of(xp: ModuleType, logits: Any, axis: Axis, dtype: Any) -> Rows:
    """Check `logits`, `axis` and `dtype`, and promote the logits to the dtype to work in."""
    axes = _normalized_axes(axis, logits.ndim)
    if not all(isinstance(length, int) for length in logits.shape):
        raise ValueError(
            f"logits must have a known shape, not {logits.shape}; under Dask, call compute_chunk_sizes() first"
        )
    if math.prod([logits.shape[i] for i in axes]) == 0:
        shape = tuple(logits.shape)
        raise ValueError(f"logits must have at least one class along axis {axis}, but its shape is {shape}")
    floating = _floating_dtype(xp, logits)
    if dtype is not None and not _is_real_floating(xp, dtype):
        raise TypeError(f"dtype must be a real floating-point dtype of {xp.__name__}, not {dtype!r}")
    result = floating if dtype is None else xp.empty(0, dtype=dtype).dtype
    return Rows(_converted(xp, logits, _working_dtype(xp, floating, result)), axes, result)


def class_ids_of(xp: ModuleType, reference_answers: Any, logits: Any, axis: int) -> Any:
    """Check the dtype and shape of class ids, and give them an axis of length 1 at `axis`."""
    if not xp.isdtype(reference_answers.dtype, "integral"):
        raise TypeError(f"reference_answers must be class ids of an integer dtype, not {reference_answers.dtype}")
    expected = logits.shape[:axis] + logits.shape[axis + 1 :]
    if reference_answers.shape != expected:
        raise ValueError(
            f"reference_answers must have shape {tuple(expected)}, which is logits' shape {tuple(logits.shape)} "
            f"without axis {axis}, not {tuple(reference_answers.shape)}"
        )
    # The small dtypes cannot hold every class count, and PyTorch indexes with int64 only. Ids that wrap around here
    # become negative: they were out of range before, and still are.
    return xp.expand_dims(_converted(xp, reference_answers, _default_dtype(xp, "integral")), axis=axis)


def vector_of(xp: ModuleType, vector: Any, logits: Any) -> Any:
    """Check a vector that must match the logits, and convert it to their dtype."""
    if not xp.isdtype(vector.dtype, ("real floating", "integral")):
        raise TypeError(f"vector must have a real floating-point or integer dtype, not {vector.dtype}")
    if vector.shape != logits.shape:
        raise ValueError(f"vector must have logits' shape {tuple(logits.shape)}, not {tuple(vector.shape)}")
    return _converted(xp, vector, logits.dtype)


def check_single_axis(axis: object) -> None:
    """Refuse the axes of a normalization that a loss does not take."""
    if axis is None or isinstance(axis, tuple):
        raise TypeError(f"axis must be an integer, not {axis!r}")


def check_reduction(reduction: str) -> None:
    """Refuse anything but the three reductions."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', not {reduction!r}")


def _normalized_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    if ndim == 0:
        raise ValueError("logits must have at least one dimension, but its shape is ()")
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, tuple) else (axis,)
    try:
        axes = [operator.index(i) for i in given]
    except TypeError:
        raise TypeError(f"axis must be an integer, a tuple of integers or None, not {axis!r}") from None
    if not axes:
        raise ValueError("axis must name at least one dimension, but is ()")
    if any(not -ndim <= i < ndim for i in axes):
        raise ValueError(f"axis must lie in [{-ndim}, {ndim}) for logits of {ndim} dimensions, but is {axis!r}")
    normalized = tuple(i % ndim for i in axes)
    if len(set(normalized)) < len(normalized):
        raise ValueError(f"axis must not name a dimension twice, but is {axis!r}")
    return normalized


def _floating_dtype(xp: ModuleType, logits: Any) -> Any:
    if xp.isdtype(logits.dtype, "real floating"):
        return logits.dtype
    if xp.isdtype(logits.dtype, "integral"):
        return _default_dtype(xp, "real floating")
    raise TypeError(f"logits must have a real floating-point or integer dtype, not {logits.dtype}")


@cache
def _working_dtype(xp: ModuleType, floating: Any, result: Any) -> Any:
    """Return the dtype to work in: at least single precision, and what logits and result have."""
    return xp.result_type(floating, result, xp.float32)


def _converted(xp: ModuleType, array: Any, dtype: Any) -> Any:
    """Return the array itself if it has the dtype: some libraries take long to find out that nothing is to do."""
    return array if array.dtype == dtype else xp.astype(array, dtype)


def _default_dtype(xp: ModuleType, kind: str) -> Any:
    return xp.__array_namespace_info__().default_dtypes()[kind]


def _is_real_floating(xp: ModuleType, dtype: Any) -> bool:
    try:
        return bool(xp.isdtype(dtype, "real floating"))
    except (TypeError, AttributeError):  # not a dtype at all, or one of another library
        return False


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
