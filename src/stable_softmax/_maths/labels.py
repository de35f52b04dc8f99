"""Class ids: picking and replacing the entries of rows at the label.

Class ids have an axis of length 1 in place of the class axis.
"""

from typing import Any, NamedTuple

from stable_softmax._libraries.standard import Library


class Place(NamedTuple):
    """The place in each row that its class id points to."""

    #: Positions in arrays of the shape of the rows.
    positions: Any
    #: Mask of the class ids in range; None if all are.
    valid: Any


def is_marked(lib: Library, where: Any, class_ids: Any, shape: tuple[int, ...], axis: int) -> Any:
    """Return a mask of the rows whose class id is in range and kept by `where`."""
    if not lib.reads_values:
        return lib.xp.any(where & (_along(lib, shape, axis, class_ids) == class_ids), axis=axis, keepdims=True)
    valid = in_range(class_ids, shape[axis])
    return valid & lib.entries_along(lib.xp.broadcast_to(where, shape), lib.xp.where(valid, class_ids, 0), axis)


def place_of(lib: Library, rows: Any, class_ids: Any, axis: int, are_valid: bool = False) -> Place:
    """Return the places that class ids point to in arrays like the rows; an invalid id points to an arbitrary place.

    `are_valid` says that no class id is invalid.
    """
    if are_valid or (lib.reads_values and lib.are_in_range(class_ids, rows.shape[axis])):
        return Place(lib.positions_of(rows, class_ids, axis), None)
    valid = in_range(class_ids, rows.shape[axis])
    return Place(lib.positions_of(rows, lib.xp.where(valid, class_ids, 0), axis), valid)


def entry(lib: Library, rows: Any, place: Place) -> Any:
    """Return each row's entry at its place, or NaN where the class id is out of range."""
    picked = lib.pick(rows, place.positions)
    return picked if place.valid is None else lib.nan_where(~place.valid, picked)


def ones_along(lib: Library, rows: Any, axis: int) -> Any:
    """Return ones along the class axis, in a shape that broadcasts against the rows, and in their dtype."""
    return lib.xp.ones_like(_reshaped(lib, lib.indices_along(rows.shape[axis], rows, rows.dtype), rows.ndim, axis))


def _along(lib: Library, shape: tuple[int, ...], axis: int, class_ids: Any) -> Any:
    """Return the indices along an axis, in a shape that broadcasts against `shape`, in the dtype of the class ids."""
    return _reshaped(lib, lib.indices_along(shape[axis], class_ids, class_ids.dtype), len(shape), axis)


def _reshaped(lib: Library, array: Any, ndim: int, axis: int) -> Any:
    return lib.xp.reshape(array, (1,) * axis + (-1,) + (1,) * (ndim - axis - 1))


def relative_ids(lib: Library, class_ids: Any, first_class: Any) -> Any:
    """Return class ids minus that of the first class; -1 for those before it, since the difference may wrap around.

    A first class that could not be checked may be negative: all class ids then become -1.
    """
    if isinstance(first_class, int) and first_class == 0:
        return class_ids
    return lib.xp.where((class_ids >= first_class) & (first_class >= 0), class_ids - first_class, -1)


def in_range(class_ids: Any, classes: int) -> Any:
    """Return a mask of the class ids that lie in [0, classes)."""
    return (class_ids >= 0) & (class_ids < classes)
