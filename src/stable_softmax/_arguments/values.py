"""Checks of values: labels, class weights and numbers that are out of range, and at which position."""

import math
from numbers import Real
from typing import Any

from stable_softmax._arguments.arrays import name_of_dtype, wider_dtype
from stable_softmax._core.layout import Layout
from stable_softmax._execution.run import apply
from stable_softmax._libraries import is_array
from stable_softmax._libraries.standard import Library
from stable_softmax._maths.labels import in_range, is_marked

#: Targets that a subtraction should have made 0 may be this far below it.
_LEAST_TARGET = -1e-3


def check_class_ids(
    lib: Library,
    class_ids: Any,
    where: Any,
    ignored_id: int | None,
    example_weights: Any,
    reference_answers: Any,
    layout: Layout,
) -> bool:
    """Raise for the first class id that is out of range or that `where` excludes, unless its example is to be ignored.

    Return whether values could be read.
    """
    # The library of the labels alone: they stay readable while PyTorch differentiates with respect to logits.
    if lib.has_forms:
        lib = lib.for_arrays(*given_of(class_ids, where, example_weights))
    if not lib.reads_values:
        return False
    shape, axis = layout.shape, layout.axes[0]
    if where is None and ignored_id is None and lib.are_in_range(class_ids, shape[axis]):
        return True
    good = in_range(class_ids, shape[axis]) if where is None else is_marked(lib, where, class_ids, shape, axis)
    if ignored_id is not None:
        good = good | (class_ids == ignored_id)
    if example_weights is not None:
        good = good | (example_weights == 0)
    if not lib.xp.all(good):
        position, value = first_false(lib, good, reference_answers)
        kept = "" if where is None else " that where keeps"
        remedy = "; PyTorch's default is ignore_index=-100" if value == -100 and ignored_id is None else ""
        raise ValueError(
            f"reference_answers must be class ids in [0, {shape[axis]}){kept}, "
            f"but is {value} at position {position}{remedy}"
        )
    return True


def checked_probabilities(lib: Library, probabilities: Any, where: Any, example_weights: Any, dtype: Any) -> Any:
    """Return target probabilities; raise for the first negative one that counts, or make it NaN."""
    if lib.bits_of(probabilities.dtype) <= 8:  # PyTorch cannot compare these
        probabilities = lib.convert(probabilities, dtype)
    own = lib.for_arrays(*given_of(probabilities, where, example_weights))
    if not own.reads_values:
        return apply(_without_negative, lib, probabilities, where, example_weights)
    if 0 in probabilities.shape or own.xp.min(probabilities) >= _LEAST_TARGET:
        return probabilities
    is_negative = _is_negative(probabilities, where, example_weights)
    if own.xp.any(is_negative):
        position, value = first_false(own, ~is_negative, probabilities)
        raise ValueError(
            f"reference_answers must be target probabilities, not below {_LEAST_TARGET}, but is {value:.4g} "
            f"at position {position}; are logits and reference_answers swapped, or are these logarithms?"
        )
    return probabilities


def _without_negative(lib: Library, probabilities: Any, where: Any, example_weights: Any) -> Any:
    is_negative = _is_negative(probabilities, where, example_weights)
    return lib.convert(lib.nan_where(is_negative, probabilities), probabilities.dtype)


def _is_negative(probabilities: Any, where: Any, example_weights: Any) -> Any:
    """Return where target probabilities that count are negative by more than rounding."""
    is_negative = probabilities < _LEAST_TARGET
    if where is not None:
        is_negative = is_negative & where
    return is_negative if example_weights is None else is_negative & (example_weights != 0)


def given_of(*arrays: Any) -> list[Any]:
    """Return the arrays that are given."""
    return [array for array in arrays if array is not None]


def checked_weights(lib: Library, name: str, weights: Any, dtype: Any, is_relative: bool, has_dtype: bool) -> Any:
    """Return weights in a dtype; raise for the first bad one, or make it NaN.

    Relative weights matter only by their ratios, and may lie outside the range of the dtype. `has_dtype` says whether
    the caller can choose the dtype.
    """
    if is_relative and lib.is_of_kind(weights.dtype, "real floating"):
        dtype = wider_dtype(lib, dtype, weights.dtype)
    is_integral = lib.is_of_kind(weights.dtype, "integral")
    if is_integral or wider_dtype(lib, dtype, weights.dtype) == dtype:
        weights = lib.convert(weights, dtype)
    good = (weights >= 0) & (weights <= lib.limit(dtype, "max"))
    if not lib.for_arrays(weights).reads_values:
        return lib.convert(lib.nan_where(~good, weights), dtype)
    if not lib.xp.all(good):
        position, value = first_false(lib, good, weights)
        own, rule, remedy = weights.dtype, "be finite and not negative", ""
        if 0 <= value <= lib.xp.finfo(own).max:
            rule = f"lie in the range of {name_of_dtype(dtype)}, the dtype of the computation"
            wider = f"pass dtype={name_of_dtype(own)!r}" if has_dtype else f"convert logits to {name_of_dtype(own)}"
            remedy = f": scale them, or {wider}"
        raise ValueError(f"{name} must {rule}, but is {value} at position {position}{remedy}")
    return lib.convert(weights, dtype)


def checked_number(lib: Library, name: str, value: Any, layout: Layout, largest: float) -> Any:
    """Return a number, checked to lie in [0, largest]; NaN if it does not, but its value cannot be read."""
    if not is_array(value) or isinstance(value, Real):
        return _checked_float(name, value, largest)
    if not lib.is_of_kind(value.dtype, "real floating", "integral"):
        raise TypeError(f"{name} must be a real number, not an array of {value.dtype}")
    if lib.for_arrays(value).reads_values:
        known = _checked_float(name, float(lib.without_gradient(value)), largest)
        if not lib.differentiates:
            return known
    number = lib.xp.reshape(lib.convert(value, layout.working), (1,) * len(layout.shape))
    return lib.nan_where((number < 0) | (number > largest), number)


def _checked_float(name: str, value: Any, largest: float) -> float:
    number = as_float(value)
    if 0 <= number <= largest and number < math.inf:
        return number
    raise ValueError(f"{name} must lie in [0, {largest:.4g}], but is {value}")


def as_float(value: Any) -> float:
    """Return a real number as a float; infinity for an integer that is too large."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def first_false(lib: Library, condition: Any, values: Any) -> tuple[tuple[int, ...], Any]:
    """Return position and value of the first entry for which a condition is false."""
    position = _position(
        int(lib.xp.argmin(lib.xp.astype(lib.xp.reshape(condition, (-1,)), lib.xp.int32))), values.shape
    )
    scalar = values[position]
    convert = float if lib.xp.isdtype(values.dtype, "real floating") else int
    # In PyTorch, int() overflows beyond int64, but item() does not; the standard has no item().
    return position, scalar.item() if hasattr(scalar, "item") else convert(scalar)


def _position(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the position in an array that an index into the flattened array stands for."""
    position: list[int] = []
    for length in reversed(shape):
        index, offset = divmod(index, length)
        position.insert(0, offset)
    return tuple(position)
