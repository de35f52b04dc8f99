"""Class ids: check their values, pick the entry that they point to, replace it.

Class ids come with an axis of length 1 in the place of the class axis.
"""

import math
from types import ModuleType
from typing import Any, NamedTuple

from array_api_compat import device

from stable_softmax._backends import is_eager, is_split, is_writable


class Place(NamedTuple):
    """Where in each row its class id points."""

    class_ids: Any
    #: Which of them are in range; None if all are.
    valid: Any
    #: The indices along each axis, if entries can be picked and replaced by these.
    indices: tuple[Any, ...] | None


def check_class_ids(
    xp: ModuleType,
    class_ids: Any,
    reference_answers: Any,
    shape: tuple[int, ...],
    axis: int,
    where: Any = None,
    ignored_id: int | None = None,
) -> None:
    """Raise for the first bad class id where values can be read for free; `shape` is that of the logits.

    An id must be in range, and point to a class that `where` leaves, unless it is the one to ignore.
    """
    if not is_eager(xp, class_ids) or not (where is None or is_eager(xp, where)):
        return
    if where is None and ignored_id is None and _all_in_range(xp, class_ids, shape[axis]):
        return
    good = in_range(class_ids, shape[axis]) if where is None else is_marked(xp, where, class_ids, shape, axis)
    if ignored_id is not None:
        good = good | (class_ids == ignored_id)
    if not xp.all(good):
        position, value = first_bad(xp, good, reference_answers)
        left = "" if where is None else " that where leaves"
        raise ValueError(
            f"reference_answers must be class ids in [0, {shape[axis]}){left}, but is {value} at position {position}"
        )


def first_bad(xp: ModuleType, good: Any, values: Any) -> tuple[tuple[int, ...], Any]:
    """Return position and value of the first entry that is not good."""
    position = _position(int(xp.argmin(xp.astype(xp.reshape(good, (-1,)), xp.int32))), values.shape)
    scalar = values[position]
    convert = float if xp.isdtype(values.dtype, "real floating") else int
    # PyTorch's int() overflows beyond int64, its item() does not; the standard has none.
    return position, scalar.item() if hasattr(scalar, "item") else convert(scalar)


def is_marked(xp: ModuleType, where: Any, class_ids: Any, shape: tuple[int, ...], axis: int) -> Any:
    """Return whether each row's class id is in range, and its entry in the mask is true."""
    if not is_eager(xp, class_ids):
        return xp.any(where & (_along(xp, shape, axis, class_ids) == class_ids), axis=axis, keepdims=True)
    valid = in_range(class_ids, shape[axis])
    return valid & xp.take_along_axis(xp.broadcast_to(where, shape), xp.where(valid, class_ids, 0), axis=axis)


def place_of(xp: ModuleType, shape: tuple[int, ...], class_ids: Any, axis: int) -> Place:
    """Find the places of class ids in rows, of which `shape` is the shape."""
    valid = in_range(class_ids, shape[axis])
    if not is_writable(xp, class_ids):
        return Place(class_ids, valid, None)
    if xp.count_nonzero(valid) == math.prod(valid.shape):  # faster than NumPy's all
        valid = None
    else:
        class_ids = xp.where(valid, class_ids, 0)
    indices = [class_ids if i == axis else _along(xp, shape, i, class_ids) for i in range(len(shape))]
    return Place(class_ids, valid, tuple(indices))


def entry(xp: ModuleType, rows: Any, place: Place, axis: int) -> Any:
    """Pick each row's entry at its place, NaN where the class id is out of range."""
    if place.indices is not None:
        picked = rows[place.indices]
    elif is_split(xp, rows, axis):
        picked = xp.sum(xp.where(is_entry(xp, rows, place.class_ids, axis), rows, 0), axis=axis, keepdims=True)
    else:
        picked = xp.take_along_axis(rows, xp.where(place.valid, place.class_ids, 0), axis=axis)
    return picked if place.valid is None else xp.where(place.valid, picked, xp.nan)


def with_entry(xp: ModuleType, rows: Any, place: Place, axis: int, value: Any) -> Any:
    """Return `rows`, perhaps overwritten, with `value` at each row's place, or anywhere in a row that has none."""
    if place.indices is None:
        return xp.where(is_entry(xp, rows, place.class_ids, axis), value, rows)
    rows[place.indices] = value
    return rows


def is_entry(xp: ModuleType, rows: Any, class_ids: Any, axis: int) -> Any:
    """Return where a class is that of the class id."""
    return _along(xp, rows.shape, axis, class_ids) == class_ids


def _along(xp: ModuleType, shape: tuple[int, ...], axis: int, class_ids: Any) -> Any:
    """Return the indices along one axis, in the shape that broadcasts against `shape`, and with the ids' dtype."""
    indices = xp.arange(shape[axis], dtype=class_ids.dtype, device=device(class_ids))
    return xp.reshape(indices, (1,) * axis + (-1,) + (1,) * (len(shape) - axis - 1))


def in_range(class_ids: Any, classes: int) -> Any:
    """Return where class ids lie in [0, classes)."""
    return (class_ids >= 0) & (class_ids < classes)


def _all_in_range(xp: ModuleType, class_ids: Any, classes: int) -> bool:
    """Return whether all class ids lie in [0, classes), without a temporary array."""
    return 0 in class_ids.shape or bool(xp.min(class_ids) >= 0 and xp.max(class_ids) < classes)


def _position(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Turn an index into the flattened array into an index into the array."""
    position: list[int] = []
    for length in reversed(shape):
        index, offset = divmod(index, length)
        position.insert(0, offset)
    return tuple(position)
