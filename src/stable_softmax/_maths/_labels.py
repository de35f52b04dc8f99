"""Class ids: pick the entry that they point to, replace it.

Class ids come with an axis of length 1 in the place of the class axis.
"""

from types import ModuleType
from typing import Any, NamedTuple

from stable_softmax._libraries import is_eager, is_indexable, is_split
from stable_softmax._libraries._operations import all_in_range, entries_along, indices_along, is_known, nan_where


class Place(NamedTuple):
    """Where in each row its class id points."""

    class_ids: Any
    #: Which of them are in range; None if all are.
    valid: Any
    #: The indices along each axis, if entries can be picked and replaced by these.
    indices: tuple[Any, ...] | None


def is_marked(xp: ModuleType, where: Any, class_ids: Any, shape: tuple[int, ...], axis: int) -> Any:
    """Return whether each row's class id is in range, and its entry in the mask is true."""
    if not is_eager(xp, class_ids):
        return xp.any(where & (_along(xp, shape, axis, class_ids) == class_ids), axis=axis, keepdims=True)
    valid = in_range(class_ids, shape[axis])
    return valid & entries_along(xp, xp.broadcast_to(where, shape), xp.where(valid, class_ids, 0), axis)


def place_of(xp: ModuleType, rows: Any, class_ids: Any, axis: int) -> Place:
    """Find the places of class ids in rows, or in others of the same shape and kind."""
    shape = rows.shape
    if not (is_indexable(xp, class_ids) and is_indexable(xp, rows)):
        return Place(class_ids, in_range(class_ids, shape[axis]), None)
    valid = None
    if not is_eager(xp, class_ids) or not all_in_range(xp, class_ids, shape[axis]):
        valid = in_range(class_ids, shape[axis])
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
        picked = entries_along(xp, rows, xp.where(place.valid, place.class_ids, 0), axis)
    return picked if place.valid is None else nan_where(xp, ~place.valid, picked)


def with_entry(xp: ModuleType, rows: Any, place: Place, axis: int, value: Any) -> Any:
    """Return `rows`, perhaps overwritten, with `value` at each row's place, or anywhere in a row that has none."""
    if place.indices is None:
        return xp.where(is_entry(xp, rows, place.class_ids, axis), value, rows)
    rows[place.indices] = value
    return rows


def is_entry(xp: ModuleType, rows: Any, class_ids: Any, axis: int) -> Any:
    """Return where a class is that of the class id."""
    length = rows.shape[axis]
    if is_known(xp, length) and length < 2**31:  # compilers compare twice as many small integers at once
        class_ids = xp.where(in_range(class_ids, length), xp.astype(class_ids, xp.int32), -1)
    return _along(xp, rows.shape, axis, class_ids) == class_ids


def ones_along(xp: ModuleType, rows: Any, axis: int) -> Any:
    """Return a 1 for each class, in the shape that broadcasts against the rows, and with their dtype."""
    return xp.ones_like(_reshaped(xp, indices_along(xp, rows.shape[axis], rows, rows.dtype), rows.ndim, axis))


def _along(xp: ModuleType, shape: tuple[int, ...], axis: int, class_ids: Any) -> Any:
    """Return the indices along one axis, in the shape that broadcasts against `shape`, and with the ids' dtype."""
    return _reshaped(xp, indices_along(xp, shape[axis], class_ids, class_ids.dtype), len(shape), axis)


def _reshaped(xp: ModuleType, array: Any, ndim: int, axis: int) -> Any:
    return xp.reshape(array, (1,) * axis + (-1,) + (1,) * (ndim - axis - 1))


def relative_ids(xp: ModuleType, class_ids: Any, first_class: Any) -> Any:
    """Return class ids less that of the first class, and -1 for those before it, since differences may wrap around.

    A first class whose value could not be read may be negative: no class id is any of its classes.
    """
    if isinstance(first_class, int) and first_class == 0:
        return class_ids
    return xp.where((class_ids >= first_class) & (first_class >= 0), class_ids - first_class, -1)


def in_range(class_ids: Any, classes: int) -> Any:
    """Return where class ids lie in [0, classes)."""
    return (class_ids >= 0) & (class_ids < classes)
