"""Maxima, sums and softmax along axes, as each library does them fast; and how accurate its sums are."""

from types import ModuleType
from typing import Any

import numpy as np

from stable_softmax._libraries import is_dask, is_jax, is_numpy, is_torch

#: Up to so many classes, NumPy's rows are short.
SHORT = 48
# Of more short rows than this, adding up columns takes less time, although these are copied.
_MANY_ROWS = 256


def maximum_along(xp: ModuleType, rows: Any, axes: tuple[int, ...]) -> Any:
    """Return the maximum over axes, each of which is kept with length 1."""
    if not is_numpy(xp):
        return xp.max(rows, axis=axes, keepdims=True)
    if axes != (rows.ndim - 1,) or rows.size == 0 or not rows.flags.c_contiguous:
        return np.maximum.reduce(rows, axis=axes, keepdims=True)
    # A reduction along the last axis takes 40 ns more for each row.
    maxima = np.maximum.reduceat(rows.reshape(-1), np.arange(0, rows.size, rows.shape[-1]))
    return maxima.reshape(*rows.shape[:-1], 1)


def sum_along(xp: ModuleType, terms: Any, axis: int) -> Any:
    """Return the sum over an axis of at most `longest_sum` terms, which is kept with length 1.

    In NumPy, the order of the additions depends on nothing but the number of the terms, and on whether the axis is the
    last.
    """
    if not is_numpy(xp):
        return xp.sum(terms, axis=axis, keepdims=True)
    if terms.shape[axis] > SHORT:
        # 30 ns less for each row than the sum, and a third of the time for each term.
        return np.einsum("...i->...", terms)[..., None]
    if axis != terms.ndim - 1:
        columns = terms if axis == 0 else np.moveaxis(terms, axis, 0)
        return _sum_of_columns(columns).reshape(*terms.shape[:axis], 1, *terms.shape[axis + 1 :])
    if terms.size > _MANY_ROWS * terms.shape[axis]:
        columns = terms.reshape(-1, terms.shape[axis]).T.copy()
        return _sum_of_columns(columns).reshape(*terms.shape[:axis], 1)
    return np.add.reduce(terms, axis=axis, keepdims=True)


def longest_sum(xp: ModuleType, terms: Any, axis: int) -> int:
    """Return how many terms `sum_along` adds nearly as a tree, or as few that their order does not matter."""
    if is_numpy(xp):
        # Four of the shortest vector registers are added up one after another.
        return 1024 // int(terms.itemsize) if has_neighbours(xp, terms, axis) else SHORT
    if is_torch(xp):
        # Its registers are added up one after another, and are filled in rounds of 16. Along another axis than the
        # last, which rows share a register is a matter of their number.
        return 128 if has_neighbours(xp, terms, axis) else 1
    return 8


def has_neighbours(xp: ModuleType, terms: Any, axis: int) -> bool:
    """Whether an axis is the last, and its entries lie next to each other in memory: libraries add these fast."""
    if axis != terms.ndim - 1:
        return False
    if is_numpy(xp):
        return bool(terms.strides[axis] == terms.itemsize and terms.dtype.char in "fd")
    return is_torch(xp) and bool(terms.stride(axis) == 1)


def adds_as_tree(xp: ModuleType) -> bool:
    """Whether a library that no values are read of is known to add nearly as a tree. Others add in order."""
    return is_jax(xp) or is_torch(xp) or is_dask(xp) or xp.__name__ == "array_api_compat.cupy"


def sums_in_order(xp: ModuleType, terms: Any) -> bool:
    """Return whether a compiler is at work that adds up what a vector register holds, one after another."""
    if not is_torch(xp):
        return False
    from stable_softmax._libraries import _torch

    return _torch.is_compiled_for_cpu(terms)


def padded(terms: Any, axis: int, number: int) -> Any:
    """Return PyTorch's terms, with so many zeros after them."""
    from stable_softmax._libraries import _torch

    return _torch.padded(terms, axis, number)


def softmax_of(xp: ModuleType, logits: Any, axes: tuple[int, ...], into: Any = None) -> Any:
    """Return the probabilities in one pass of the library's own, where that is faster than several; otherwise None."""
    if not is_torch(xp):
        return None
    from stable_softmax._libraries import _torch

    return _torch.softmax(logits, axes, into)


def folded(xp: ModuleType, terms: Any, axis: int) -> tuple[Any, Any]:
    """Return the sums of some equal parts of the entries along an axis, and the entries that are left over."""
    number = 4 if is_numpy(xp) else 2
    length = terms.shape[axis] // number
    before, after = terms.shape[:axis], terms.shape[axis + 1 :]

    def part(first: int, last: int | None) -> Any:
        return terms[(*(slice(None) for _ in before), slice(first, last), ...)]

    rest = part(number * length, None)
    if is_numpy(xp):
        parts = part(0, number * length).reshape(*before, number, length, *after)
        return np.add.reduce(parts, axis=axis), rest
    return part(0, length) + part(length, 2 * length), rest


def _sum_of_columns(columns: Any) -> Any:
    """Return the sum over the first axis, in the order of `numpy.add.reduce` along a last axis of contiguous memory.

    Up to 128 terms, these are eight sums of every eighth term, which are added as a tree, and then what is left over.
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
