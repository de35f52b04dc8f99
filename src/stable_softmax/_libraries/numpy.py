"""NumPy, whose values can be read, whose memory can be written to, and whose operations take long to start."""

import math
import operator
from functools import cache, lru_cache
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from stable_softmax._libraries.standard import Library, native_dtype, numpy_dtype_named

# Sums of at most this many terms count as short.
_SHORT = 48
# For more short rows than this, copying and adding up columns takes less time.
_MANY_ROWS = 256
_UNSIGNED = {"f": np.uint32, "d": np.uint64}
# For arrays of at most this many entries, the starts of rows are cached.
_SMALL = 4096
#: As `Library.in_silence`: `operator.call` with a setting of its own in each thread.
call_in_silence: Any = np.errstate(all="ignore")(operator.call)
_KINDS = {"bool": "b", "integral": "iu", "real floating": "f"}


class NumPy(Library):
    """NumPy, mostly with faster forms of operations for which its functions of the standard take microseconds."""

    reads_values = True
    writes = True
    caches_plans = True
    runs_on_one_thread = True
    short_rows = _SHORT

    in_silence = staticmethod(call_in_silence)
    limit = staticmethod(cache(lambda dtype, name: getattr(np.finfo(dtype), name)))  # may be beyond Python's floats

    def is_of_kind(self, dtype: Any, *kinds: str) -> bool:
        if not isinstance(dtype, np.dtype):
            return super().is_of_kind(dtype, *kinds)
        return any(dtype.kind in _KINDS[kind] for kind in kinds)

    def dtype_named(self, name: str) -> Any:
        return getattr(np, name) if hasattr(np, name) else numpy_dtype_named(name)

    def prepared(self, array: Any) -> Any:
        """Return an instance of a subclass as a plain NumPy array, in the byte order of the machine."""
        return array if type(array) is np.ndarray else self.from_numpy(array)

    def from_numpy(self, array: Any) -> Any:
        array = np.asarray(array)
        return array.astype(native_dtype(array.dtype), copy=False)

    def convert(self, values: Any, dtype: Any) -> Any:
        if values.dtype == dtype:
            return values
        return self.in_silence(values.astype, dtype)

    def result(self, values: Any) -> Any:
        return values[()]  # a scalar

    def clip(self, values: Any, smallest: float | None, largest: float | None) -> Any:
        values = values if smallest is None else np.maximum(values, smallest)
        return values if largest is None else np.minimum(values, largest)

    def reshape(self, array: Any, shape: tuple[int, ...]) -> Any:
        return array.reshape(shape)

    def expand_dims(self, array: Any, axis: int) -> Any:
        return array[(slice(None),) * axis + (None,)]

    def squeeze(self, array: Any, axes: tuple[int, ...]) -> Any:
        return array.squeeze(axes)

    def indices_along(self, length: int, like: Any, dtype: Any) -> Any:
        del like
        return np.arange(length, dtype=dtype)

    def positions_of(self, rows: Any, indices: Any, axis: int) -> Any:
        """Return the positions in the flattened rows."""
        starts = (_kept_starts if rows.size <= _SMALL else _starts_of_rows)(rows.shape, axis)
        return starts + (indices if axis == rows.ndim - 1 else indices * math.prod(rows.shape[axis + 1 :]))

    def pick(self, rows: Any, positions: Any) -> Any:
        if rows.flags.c_contiguous:
            return rows.take(positions)
        return rows[np.unravel_index(positions, rows.shape)]

    def put(self, rows: Any, positions: Any, values: Any) -> Any:
        if rows.flags.c_contiguous:
            rows.put(positions, values)
        else:
            rows[np.unravel_index(positions, rows.shape)] = values
        return rows

    def is_any(self, values: Any) -> bool:
        return bool(np.count_nonzero(values))

    def lie_within(self, values: Any, largest: float, smallest: float = 0.0) -> bool:
        unsigned = _UNSIGNED.get(values.dtype.char)
        if unsigned is None:
            return super().lie_within(values, largest, smallest)
        if values.size == 0:
            return True
        # As unsigned integers, positive numbers keep their order, below negative numbers, -0.0 and NaN.
        bits = values.view(unsigned)
        is_enough = smallest == 0 or values.item(bits.argmin()) >= smallest
        return is_enough and 0 < values.item(bits.argmax()) <= largest

    def starts_within(self, values: Any, largest: float) -> bool:
        return values.size == 0 or abs(values.item(0)) <= largest

    def are_in_range(self, class_ids: Any, classes: int) -> bool:
        # As unsigned integers, the negative ones are the largest.
        ids = class_ids.view(np.uint64)
        return class_ids.size == 0 or ids.item(ids.argmax()) < classes

    def maximum(self, rows: Any, axes: tuple[int, ...]) -> Any:
        if axes != (rows.ndim - 1,) or rows.size == 0 or not rows.flags.c_contiguous:
            return np.maximum.reduce(rows, axis=axes, keepdims=True)
        # `maximum.reduce` along the last axis takes 40 ns more for each row.
        starts = (_kept_starts if rows.size <= _SMALL else _starts_of_rows)(rows.shape, rows.ndim - 1)
        return np.maximum.reduceat(rows.ravel(), starts.ravel()).reshape(starts.shape)

    def sum(self, terms: Any, axis: int) -> Any:
        """Return the sum over an axis of at most `longest_sum` terms, kept with length 1.

        The order of the additions depends only on the number of terms and on whether the axis is the last.
        """
        if terms.shape[axis] > _SHORT:
            # Takes 30 ns less for each row than `add.reduce`, and a third of the time for each term.
            return np.einsum("...i->...", terms)[..., None]
        if axis != terms.ndim - 1:
            columns = terms if axis == 0 else np.moveaxis(terms, axis, 0)
            return _sum_of_columns(columns).reshape(*terms.shape[:axis], 1, *terms.shape[axis + 1 :])
        if terms.size > _MANY_ROWS * terms.shape[axis]:
            columns = terms.reshape(-1, terms.shape[axis]).T.copy()
            return _sum_of_columns(columns).reshape(*terms.shape[:axis], 1)
        return np.add.reduce(terms, axis=axis, keepdims=True)

    def sum_of_all(self, values: Any) -> Any:
        return np.add.reduce(values.reshape(-1))  # by halves, down to 128 terms

    def adds_at_once(self, terms: Any, axis: int) -> bool:
        return terms.shape[axis] <= _SHORT or terms.shape[axis] <= self.longest_sum(terms, axis)

    def longest_sum(self, terms: Any, axis: int) -> int:
        # `einsum` adds four vector registers at a time, one after another; the limit is for the shortest registers.
        return 1024 // int(terms.itemsize) if self.sums_neighbours(terms, axis) else _SHORT

    def sums_neighbours(self, terms: Any, axis: int) -> bool:
        return axis == terms.ndim - 1 and self.are_neighbours(terms, axis) and terms.dtype.char in "fd"

    def fold(self, terms: Any, axis: int) -> tuple[Any, Any]:
        length, along = terms.shape[axis] // 4, (slice(None),) * axis
        parts = terms[(*along, slice(0, 4 * length), ...)]
        parts = parts.reshape(*terms.shape[:axis], 4, length, *terms.shape[axis + 1 :])
        return np.add.reduce(parts, axis=axis), terms[(*along, slice(4 * length, None), ...)]

    def strides_of(self, array: Any) -> tuple[int, ...]:
        return tuple(array.strides)

    def are_neighbours(self, array: Any, axis: int) -> bool:
        return bool(array.strides[axis] == array.itemsize)

    def with_neighbours(self, array: Any) -> Any:
        return array if self.are_neighbours(array, -1) else np.ascontiguousarray(array)

    def is_in_fixed_order(self, logits: Any, _operands: Any, axis: int) -> bool:
        return logits.flags.c_contiguous and axis == logits.ndim - 1

    def in_fixed_order(self, logits: Any, operands: Any, axis: int) -> tuple[Any, Any]:
        """Return logits whose results have the same order in memory for any number of rows.

        Logits are copied if NumPy would store results with another axis than the class axis closest together: if rows
        overlap or share memory. Arrays with gaps between all entries are also copied: whether their exponentials use
        vector instructions depends on the addresses of the arrays.
        """
        if logits.flags.c_contiguous:
            return logits, operands
        steps = [stride for stride, length in zip(logits.strides, logits.shape, strict=True) if length > 1]
        if logits.itemsize not in steps or is_unsteady(logits, logits.strides, axis):
            logits = np.ascontiguousarray(logits)
        return logits, operands

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        del like
        return np.empty(shape, dtype=dtype)


def is_unsteady(array: Any, strides: tuple[int, ...], axis: int) -> bool:
    """Whether a library may store what it computes from an array with another axis than this one closest together."""
    is_last = axis == array.ndim - 1
    unsteady = [
        length > 1 and (stride <= 0 or (is_last and i != axis and stride <= strides[axis]))
        for i, (length, stride) in enumerate(zip(array.shape, strides, strict=True))
    ]
    return True in unsteady


def _starts_of_rows(shape: tuple[int, ...], axis: int) -> Any:
    """Return the positions of the first class of each row in the flattened rows."""
    after = math.prod(shape[axis + 1 :])
    rows = (*shape[:axis], 1, *shape[axis + 1 :])
    starts = np.arange(math.prod(shape[:axis])) * (shape[axis] * after)
    places = (starts[:, None] + np.arange(after)).reshape(rows)
    places.flags.writeable = False  # since they are kept
    return places


_kept_starts = lru_cache(maxsize=128)(_starts_of_rows)


def _sum_of_columns(columns: Any) -> Any:
    """Return the sum over the first axis, in the order of `numpy.add.reduce` along a contiguous last axis.

    For up to 128 terms, these are eight sums of every eighth term, which are added as a tree; then the remaining terms.
    """
    eights = columns.shape[0] // 8
    if not eights:
        return np.add.reduce(columns, axis=0)
    sums = columns[:8]
    if eights > 1:
        sums = np.add.reduce(columns[: 8 * eights].reshape(eights, 8, *columns.shape[1:]), axis=0)
    for _ in range(3):
        sums = sums[::2] + sums[1::2]
    for column in columns[8 * eights :]:
        sums += column
    return sums


LIBRARY = NumPy(xp)
