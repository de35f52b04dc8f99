"""What a caller may pass: namespaces, dtypes, shapes and axes. Reads metadata only, never values."""

import math
import operator
from functools import cache
from numbers import Real
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj

from stable_softmax._conversion import converted

Reduction: TypeAlias = Literal["none", "mean", "sum"]
Axis: TypeAlias = int | tuple[int, ...] | None


class Rows(NamedTuple):
    """Logits as they came, with their class axes and dtypes."""

    logits: Any
    axes: tuple[int, ...]
    #: That the work is done in.
    working: Any
    #: Of the result.
    dtype: Any


def namespace_of(**arrays: Any) -> ModuleType:
    """Return the array namespace that all `arrays` share."""
    for name, array in arrays.items():
        if not is_array_api_obj(array):
            raise TypeError(
                f"{name} must be an array of a library that array-api-compat supports "
                f"(NumPy, JAX, PyTorch, Dask, ...), not {_type_name(array)}"
            )
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError(f"{name} must not be a masked array: pass its data, and the mask's inverse as where")
    try:
        return array_namespace(*arrays.values())
    except TypeError as error:
        came = ", ".join(f"{name} is {_type_name(array)}" for name, array in arrays.items())
        raise TypeError(f"all arrays must come from one array library, but {came}") from error


def rows_of(xp: ModuleType, logits: Any, axis: Axis, dtype: Any) -> Rows:
    """Check `logits`, `axis` and `dtype`, and find the dtype to work in."""
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
    return Rows(logits, axes, _working_dtype(xp, floating, result), result)


def holds_class_ids(xp: ModuleType, reference_answers: Any) -> bool:
    """Return whether reference answers are class ids, and not probabilities."""
    if _is_of_kind(xp, reference_answers.dtype, "integral"):
        return True
    if _is_of_kind(xp, reference_answers.dtype, "real floating"):
        return False
    raise TypeError(
        "reference_answers must be class ids of an integer dtype or probabilities of a real floating dtype, "
        f"not {reference_answers.dtype}"
    )


def class_ids_of(xp: ModuleType, reference_answers: Any, rows: Rows) -> Any:
    """Check the shape of class ids, and give them an axis of length 1 in the place of the class axis."""
    logits, axis = rows.logits, rows.axes[0]
    expected = logits.shape[:axis] + logits.shape[axis + 1 :]
    if reference_answers.shape != expected:
        raise ValueError(
            f"reference_answers must have shape {tuple(expected)}, which is logits' shape {tuple(logits.shape)} "
            f"without axis {axis}, not {tuple(reference_answers.shape)}"
        )
    # The small dtypes cannot hold every class count, and PyTorch indexes with int64 only. Ids that wrap around here
    # become negative: they were out of range before, and still are.
    return xp.expand_dims(converted(xp, reference_answers, _default_dtype(xp, "integral")), axis=axis)


def check_probabilities(reference_answers: Any, rows: Rows) -> None:
    """Check the shape of target probabilities."""
    if reference_answers.shape != rows.logits.shape:
        raise ValueError(
            f"reference_answers must have logits' shape {tuple(rows.logits.shape)} when they are probabilities, "
            f"as of dtype {reference_answers.dtype}, not {tuple(reference_answers.shape)}"
        )


def where_of(xp: ModuleType, where: Any, rows: Rows) -> Any:
    """Check a mask of classes, and give it as many dimensions as the logits have."""
    logits = rows.logits
    if not _is_of_kind(xp, where.dtype, "bool"):
        raise TypeError(f"where must be an array of booleans, not {where.dtype}")
    missing = logits.ndim - where.ndim
    lengths = zip(where.shape, logits.shape[missing:], strict=True) if missing >= 0 else [(0, 1)]
    if any(given not in (1, length) for given, length in lengths):
        raise ValueError(f"where must broadcast to logits' shape {tuple(logits.shape)}, not {tuple(where.shape)}")
    return xp.reshape(where, (1,) * missing + tuple(where.shape))


def class_weights_of(xp: ModuleType, class_weights: Any, rows: Rows) -> Any:
    """Check the dtype and shape of class weights, and give them the dtype to work in, and as many dimensions."""
    if not _is_of_kind(xp, class_weights.dtype, ("real floating", "integral")):
        raise TypeError(f"class_weights must have a real floating-point or integer dtype, not {class_weights.dtype}")
    axis, classes = rows.axes[0], rows.logits.shape[rows.axes[0]]
    if class_weights.shape != (classes,):
        raise ValueError(
            f"class_weights must have shape ({classes},), one for each class, not {tuple(class_weights.shape)}"
        )
    shape = tuple(classes if i == axis else 1 for i in range(rows.logits.ndim))
    return xp.reshape(converted(xp, class_weights, rows.working), shape)


def check_vector(xp: ModuleType, vector: Any, rows: Rows) -> None:
    """Check dtype and shape of a vector that must match the logits."""
    if not _is_of_kind(xp, vector.dtype, ("real floating", "integral")):
        raise TypeError(f"vector must have a real floating-point or integer dtype, not {vector.dtype}")
    if vector.shape != rows.logits.shape:
        raise ValueError(f"vector must have logits' shape {tuple(rows.logits.shape)}, not {tuple(vector.shape)}")


def check_single_axis(axis: object) -> None:
    """Refuse the axes of a normalization that a loss does not take."""
    if axis is None or isinstance(axis, tuple):
        raise TypeError(f"axis must be an integer, not {axis!r}")


def check_reduction(reduction: object) -> None:
    """Refuse anything but the three reductions."""
    name = reduction if isinstance(reduction, str) else ""  # an array would be compared entry by entry
    if name not in ("none", "mean", "sum"):
        meant = "; did you mean 'mean'?" if name in ("avg", "average", "batchmean") else ""
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', not {reduction!r}{meant}")


def number_of(name: str, value: Any, largest: float) -> float:
    """Check an option that is a number from 0 to `largest`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, not {value!r}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond all floats
        number = math.inf
    if not 0 <= number <= largest:
        accepted = "lie in [0, 1]" if largest == 1 else "be finite and not negative"
        raise ValueError(f"{name} must {accepted}, but is {value}")
    return number


def ignored_id_of(xp: ModuleType, ignore_index: object, reference_answers: Any) -> int | None:
    """Check the class id to ignore, and return the integer that it is once the ids have the default dtype, if any."""
    try:
        ignored = operator.index(ignore_index)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"ignore_index must be an integer, not {ignore_index!r}") from None
    if not holds_class_ids(xp, reference_answers):
        raise ValueError(
            f"ignore_index needs class ids, but reference_answers are probabilities of dtype {reference_answers.dtype}"
        )
    limits = xp.iinfo(reference_answers.dtype)
    if not limits.min <= ignored <= limits.max:
        return None
    modulus = 1 << xp.iinfo(_default_dtype(xp, "integral")).bits
    return (ignored + modulus // 2) % modulus - modulus // 2


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
    if _is_of_kind(xp, logits.dtype, "real floating"):
        return logits.dtype
    if _is_of_kind(xp, logits.dtype, "integral"):
        return _default_dtype(xp, "real floating")
    raise TypeError(f"logits must have a real floating-point or integer dtype, not {logits.dtype}")


@cache  # NumPy takes a microsecond for the answer
def _is_of_kind(xp: ModuleType, dtype: Any, kind: str | tuple[str, ...]) -> bool:
    return bool(xp.isdtype(dtype, kind))


@cache
def _working_dtype(xp: ModuleType, floating: Any, result: Any) -> Any:
    """Return the dtype to work in: at least single precision, and what logits and result have."""
    return xp.result_type(floating, result, xp.float32)


def _default_dtype(xp: ModuleType, kind: str) -> Any:
    return xp.__array_namespace_info__().default_dtypes()[kind]


def _is_real_floating(xp: ModuleType, dtype: Any) -> bool:
    # An array, or NumPy itself: JAX would take their `dtype`, and warn. Of dtypes, only scalar types have that.
    if hasattr(dtype, "dtype") and not isinstance(dtype, type):
        return False
    try:
        return bool(xp.isdtype(dtype, "real floating"))
    except (TypeError, AttributeError):  # not a dtype at all, or one of another library
        return False


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
