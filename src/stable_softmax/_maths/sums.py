"""Sums along axes whose rounding error grows with the logarithm of the number of terms."""

from typing import Any

from stable_softmax._libraries.standard import Library
from stable_softmax._maths.axes import along_one_axis, can_merge


def accurate_sum(lib: Library, terms: Any, axes: tuple[int, ...]) -> Any:
    """Return the sum over `axes`, keeping each with length 1.

    Some libraries add one term after another: 10^6 equal float32 terms then lose five of the seven digits. Along one
    axis of eager arrays, the order of the additions depends on the number of terms, and on whether the axis is the
    last, but not on the other axes: the sum of a row has the same bits in any batch.
    """
    if len(axes) > 1:
        axes = tuple(axis for axis in axes if terms.shape[axis] != 1) or axes[:1]
        if can_merge(lib, terms, axes):
            return along_one_axis(lib, accurate_sum, terms, axes)
    if lib.adds_as_tree:
        return lib.tree_sum(terms, axes)
    for axis in axes:
        if lib.adds_at_once(terms, axis):
            terms = lib.sum(terms, axis)
        elif lib.sums_neighbours(terms, axis):
            terms = _sum_in_blocks(lib, terms, axis)
        else:
            terms = _sum_by_folding(lib, terms, axis)
    return terms


def sum_of_products(lib: Library, first: Any, second: Any, axes: tuple[int, ...]) -> Any:
    """Return the sum of the products over `axes`, keeping each with length 1."""
    return accurate_sum(lib, lib.rounded_product(first, second), axes)


def sum_and_error(first: Any, second: Any) -> tuple[Any, Any]:
    """Return the rounded sum and its rounding error (Knuth 1997, The Art of Computer Programming 2, theorem 4.2.2B)."""
    total = first + second
    shared = total - first
    return total, (first - (total - shared)) + (second - shared)


def difference_and_error(first: Any, second: Any) -> tuple[Any, Any]:
    """Return the rounded difference and its rounding error."""
    total = first - second
    shared = total - first
    return total, (first - (total - shared)) - (second + shared)


def sum_without_maximum(lib: Library, exponentials: Any, axes: tuple[int, ...], small: Any = True) -> Any:
    """Return the sum without one maximal term; all terms lie in [0, 1], and the maximal ones are exactly 1.

    Where `small` is false, the sum may have an absolute error like that of 1 plus the sum. It may overwrite the terms.
    """
    if lib.reads_values:
        total = accurate_sum(lib, exponentials, axes)
        # If the total is below 2, only one term is maximal. Otherwise, subtracting 1 costs at most one bit.
        single = (total < 2) & small
        if not lib.is_any(single):
            return total - 1
        ones = lib.xp.floor(exponentials)
        others = lib.in_place(lib.xp.subtract, exponentials, ones)
        return lib.xp.where(single, accurate_sum(lib, others, axes), total - 1)
    # Inside a sum, compilers vectorize this better than `where`.
    ones = lib.xp.floor(exponentials)
    number = lib.xp.sum(ones, axis=axes, keepdims=True)
    return accurate_sum(lib, exponentials - ones, axes) + (number - 1)


def _sum_in_blocks(lib: Library, terms: Any, axis: int) -> Any:
    """Return the sum over an axis from the sums of blocks, which are again added in blocks."""
    while not lib.adds_at_once(terms, axis):
        terms = _block_sums(lib, terms, axis, lib.longest_sum(terms, axis))
    return lib.sum(terms, axis)


def _sum_by_folding(lib: Library, terms: Any, axis: int) -> Any:
    """Return the sum over an axis by adding equal parts of it to each other, until few terms are left."""
    left_over = []
    while not lib.adds_at_once(terms, axis):
        terms, rest = lib.fold(terms, axis)
        if rest.shape[axis]:
            left_over.append(lib.sum(rest, axis))
    return sum(left_over, lib.sum(terms, axis))


def _block_sums(lib: Library, terms: Any, axis: int, length: int) -> Any:
    """Return the sums of successive blocks of a length along `axis`; the last block may be shorter."""
    before, after = terms.shape[:axis], terms.shape[axis + 1 :]
    blocks, remainder = divmod(terms.shape[axis], length)
    along = (slice(None),) * axis
    whole = lib.xp.reshape(terms[(*along, slice(blocks * length), ...)], (*before, blocks, length, *after))
    sums = lib.xp.squeeze(lib.sum(whole, axis + 1), axis=axis + 1)
    if not remainder:
        return sums
    last = lib.sum(terms[(*along, slice(blocks * length, None), ...)], axis)
    return lib.xp.concat([sums, last], axis=axis)
