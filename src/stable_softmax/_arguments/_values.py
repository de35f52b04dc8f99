"""Values that can be read for free: answers, class weights and numbers that are out of range, and where."""

import math
from numbers import Real
from types import ModuleType
from typing import Any

from stable_softmax import _execution
from stable_softmax._arguments._arrays import bits_of, is_of_kind, wider_dtype
from stable_softmax._execution._plan import Layout
from stable_softmax._libraries import is_array, is_eager, warns
from stable_softmax._libraries._operations import all_in_range, limit, nan_where, without_gradient
from stable_softmax._maths._conversion import converted
from stable_softmax._maths._labels import in_range, is_marked
from stable_softmax._maths._targets import Criterion

#: Targets that a subtraction was to leave at 0 may be this far below it.
_LEAST_TARGET = -1e-3


def checked_criterion(
    xp: ModuleType, criterion: Criterion, reference_answers: Any, layout: Layout, relative: bool
) -> Criterion:
    """Raise for the first bad answer or weight where values can be read for free; elsewhere, make it NaN in the end.

    Only the ratios of relative weights matter, which therefore may lie beyond the dtype that the work is done in.
    """
    if criterion.class_ids is not None:
        _check_class_ids(xp, criterion, reference_answers, layout)
    else:
        criterion = criterion._replace(probabilities=_checked_probabilities(xp, criterion, layout.working))
    if criterion.class_weights is None:
        return criterion
    dtype = layout.working
    if relative and is_of_kind(xp, criterion.class_weights.dtype, "real floating"):
        dtype = wider_dtype(xp, dtype, criterion.class_weights.dtype)
    return criterion._replace(class_weights=_checked_weights(xp, criterion.class_weights, dtype))


def _check_class_ids(xp: ModuleType, criterion: Criterion, reference_answers: Any, layout: Layout) -> None:
    """Refuse an id that is out of range, or that `where` excludes, unless it is the one to ignore."""
    class_ids, where, ignored_id = criterion.class_ids, criterion.where, criterion.ignored_id
    if not is_eager(xp, class_ids) or not (where is None or is_eager(xp, where)):
        return
    shape, axis = layout.shape, layout.axes[0]
    if where is None and ignored_id is None and all_in_range(xp, class_ids, shape[axis]):
        return
    good = in_range(class_ids, shape[axis]) if where is None else is_marked(xp, where, class_ids, shape, axis)
    if ignored_id is not None:
        good = good | (class_ids == ignored_id)
    if not xp.all(good):
        position, value = first_false(xp, good, reference_answers)
        kept = "" if where is None else " that where keeps"
        remedy = "; PyTorch's default is ignore_index=-100" if value == -100 and ignored_id is None else ""
        raise ValueError(
            f"reference_answers must be class ids in [0, {shape[axis]}){kept}, "
            f"but is {value} at position {position}{remedy}"
        )


def _checked_probabilities(xp: ModuleType, criterion: Criterion, dtype: Any) -> Any:
    """Return the target probabilities; raise for the first negative one that `where` keeps, or make them NaN."""
    probabilities, where = criterion.probabilities, criterion.where
    if bits_of(xp, probabilities.dtype) <= 8:  # which PyTorch has no comparison for
        probabilities = converted(xp, probabilities, dtype)
    if not (is_eager(xp, probabilities) and (where is None or is_eager(xp, where))):
        return _execution.on_each(_without_negative, xp, probabilities, where)
    if 0 in probabilities.shape or xp.min(probabilities) >= _LEAST_TARGET:
        return probabilities
    is_negative = _is_negative(probabilities, where)
    if xp.any(is_negative):
        position, value = first_false(xp, ~is_negative, probabilities)
        raise ValueError(
            f"reference_answers must be target probabilities, not below {_LEAST_TARGET}, but is {value:.4g} "
            f"at position {position}; are logits and reference_answers swapped, or are these logarithms?"
        )
    return probabilities


def _without_negative(xp: ModuleType, probabilities: Any, where: Any) -> Any:
    return converted(xp, nan_where(xp, _is_negative(probabilities, where), probabilities), probabilities.dtype)


def _is_negative(probabilities: Any, where: Any) -> Any:
    """Return which of the target probabilities that `where` keeps are negative by more than rounding."""
    is_negative = probabilities < _LEAST_TARGET
    return is_negative if where is None else is_negative & where


def _checked_weights(xp: ModuleType, class_weights: Any, dtype: Any) -> Any:
    """Return the weights in a dtype; raise for the first bad one, or make them NaN."""
    is_integral = is_of_kind(xp, class_weights.dtype, "integral")
    if is_integral or wider_dtype(xp, dtype, class_weights.dtype) == dtype:
        class_weights = converted(xp, class_weights, dtype)
    good = (class_weights >= 0) & (class_weights <= limit(xp, dtype, "max"))
    if not is_eager(xp, class_weights):
        return converted(xp, nan_where(xp, ~good, class_weights), dtype)
    if not xp.all(good):
        position, value = first_false(xp, good, xp.reshape(class_weights, (-1,)))
        own, rule, remedy = class_weights.dtype, "be finite and not negative", ""
        if 0 <= value <= xp.finfo(own).max:
            rule = f"lie in the range of {_name_of(dtype)}, which the work is done in"
            remedy = f": scale them, or pass dtype={_name_of(own)!r}"
        raise ValueError(f"class_weights must {rule}, but is {value} at position {position}{remedy}")
    return converted(xp, class_weights, dtype)


def _name_of(dtype: Any) -> str:
    """Return the name of a dtype without its library's."""
    return str(dtype).rpartition(".")[2]


def checked_number(xp: ModuleType, name: str, value: Any, layout: Layout, largest: float) -> Any:
    """Check a number from 0 to `largest`: a float, or an array where its value cannot be read for free."""
    if not is_array(value) or isinstance(value, Real):
        return _checked_float(name, value, largest)
    if not is_of_kind(xp, value.dtype, "real floating", "integral"):
        raise TypeError(f"{name} must be a real number, not an array of {value.dtype}")
    if is_eager(xp, value):
        known = _checked_float(name, float(without_gradient(xp, value)), largest)
        if warns(xp):  # and has no derivatives
            return known
    number = xp.reshape(converted(xp, value, layout.working), (1,) * len(layout.shape))
    return nan_where(xp, (number < 0) | (number > largest), number)


def _checked_float(name: str, value: Any, largest: float) -> float:
    number = as_float(value)
    if 0 <= number <= largest and number < math.inf:
        return number
    raise ValueError(f"{name} must lie in [0, {largest:.4g}], but is {value}")


def as_float(value: Any) -> float:
    """Return a real number as a float: infinity for an integer beyond all of them."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def first_false(xp: ModuleType, condition: Any, values: Any) -> tuple[tuple[int, ...], Any]:
    """Return position and value of the first entry where a condition does not hold."""
    position = _position(int(xp.argmin(xp.astype(xp.reshape(condition, (-1,)), xp.int32))), values.shape)
    scalar = values[position]
    convert = float if xp.isdtype(values.dtype, "real floating") else int
    # PyTorch's int() overflows beyond int64, its item() does not; the standard has none.
    return position, scalar.item() if hasattr(scalar, "item") else convert(scalar)


def _position(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Turn an index into the flattened array into an index into the array."""
    position: list[int] = []
    for length in reversed(shape):
        index, offset = divmod(index, length)
        position.insert(0, offset)
    return tuple(position)
