"""Class ids: check their values, pick the entry that they point to, replace it.

Class ids come with an axis of length 1 in the place of the class axis.
"""

from types import ModuleType
from typing import Any

from array_api_compat import device

from stable_softmax._backends import is_eager, is_split, is_writable


def check_class_ids(xp: ModuleType, class_ids: Any, reference_answers: Any, classes: int) -> None:
    """Raise for the first class id outside [0, classes), where values can be read for free."""
    if not is_eager(class_ids):
        return
    outside = ~in_range(class_ids, classes)
    if xp.any(outside):
        first = int(xp.argmax(xp.astype(xp.reshape(outside, (-1,)), xp.int32)))
        position = _position(first, reference_answers.shape)
        scalar = reference_answers[position]
        value = getattr(scalar, "item", scalar.__int__)()  # PyTorch's int() overflows beyond int64, its item() does not
        raise ValueError(
            f"reference_answers must be class ids in [0, {classes}), but is {value} at position {position}"
        )


def entry(xp: ModuleType, rows: Any, class_ids: Any, axis: int) -> Any:
    """Pick each row's entry at its class id, NaN where the id is out of range."""
    valid = in_range(class_ids, rows.shape[axis])
    if is_split(rows, axis):
        picked = xp.sum(xp.where(_is_entry(xp, rows, class_ids, axis), rows, 0), axis=axis, keepdims=True)
    else:
        picked = xp.take_along_axis(rows, xp.where(valid, class_ids, 0), axis=axis)
    return xp.where(valid, picked, xp.nan)


def with_entry(xp: ModuleType, rows: Any, class_ids: Any, axis: int, value: Any) -> Any:
    """Return `rows` with `value` in each row's entry at its class id. May overwrite `rows`."""
    if not (is_writable(rows) and is_writable(class_ids)):
        return xp.where(_is_entry(xp, rows, class_ids, axis), value, rows)
    index = [_along(xp, rows, i, class_ids) for i in range(rows.ndim)]
    # An id out of range, which a Dask chunk may hold, makes the row NaN elsewhere: any entry will do.
    index[axis] = xp.clip(class_ids, min=0, max=rows.shape[axis] - 1)
    rows[tuple(index)] = value
    return rows


def _is_entry(xp: ModuleType, rows: Any, class_ids: Any, axis: int) -> Any:
    return _along(xp, rows, axis, class_ids) == class_ids


def _along(xp: ModuleType, rows: Any, axis: int, class_ids: Any) -> Any:
    """Return the indices along one axis, in the shape that broadcasts against `rows`, and with the ids' dtype."""
    indices = xp.arange(rows.shape[axis], dtype=class_ids.dtype, device=device(class_ids))
    return xp.reshape(indices, (1,) * axis + (-1,) + (1,) * (rows.ndim - axis - 1))


def in_range(class_ids: Any, classes: int) -> Any:
    """Return where class ids lie in [0, classes)."""
    return (class_ids >= 0) & (class_ids < classes)


def _position(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Turn an index into the flattened array into an index into the array."""
    position: list[int] = []
    for length in reversed(shape):
        index, offset = divmod(index, length)
        position.insert(0, offset)
    return tuple(position)
