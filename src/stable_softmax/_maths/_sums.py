"""Sums along axes whose rounding error grows with the logarithm of the number of terms."""

from types import ModuleType
from typing import Any

from stable_softmax._libraries import is_eager
from stable_softmax._libraries._operations import computed_in_place, is_any, is_known, rounded_product
from stable_softmax._libraries._reductions import (
    adds_as_tree,
    folded,
    has_neighbours,
    longest_sum,
    padded,
    sum_along,
    sums_in_order,
)
from stable_softmax._maths._axes import along_one_axis, can_merge

# PyTorch's compiler adds up so many terms one after another.
_FEW = 16


def accurate_sum(xp: ModuleType, terms: Any, axes: tuple[int, ...]) -> Any:
    """Return the sum over `axes`, keeping each with length 1.

    Some libraries add one term after another: 10^6 equal float32 terms then lose five of the seven digits. Along one
    axis of eager arrays, the order of the additions depends on the number of terms, and on whether the axis is the
    last, but not on the other axes: the sum of a row has the same bits in all company.
    """
    if len(axes) > 1:
        axes = tuple(axis for axis in axes if terms.shape[axis] != 1) or axes[:1]
        if can_merge(xp, terms, axes):
            return along_one_axis(xp, accurate_sum, terms, axes)
    if not is_eager(xp, terms):
        if sums_in_order(xp, terms):
            return _compiled_sum(xp, terms, axes)
        if adds_as_tree(xp):
            return xp.sum(terms, axis=axes, keepdims=True)
    for axis in axes:
        terms = _sum_in_blocks(xp, terms, axis) if has_neighbours(xp, terms, axis) else _sum_by_folding(xp, terms, axis)
    return terms


def sum_of_products(xp: ModuleType, first: Any, second: Any, axes: tuple[int, ...]) -> Any:
    """Return the sum of the products over `axes`, keeping each with length 1."""
    return accurate_sum(xp, rounded_product(xp, first, second), axes)


def sum_without_maximum(xp: ModuleType, exponentials: Any, axes: tuple[int, ...], small: Any = True) -> Any:
    """Return the sum over all but one of the maximal terms; all lie in [0, 1], and the maximal ones are exactly 1.

    It may be as accurate only as 1 plus the sum, where small sums are not asked for.
    """
    if is_eager(xp, exponentials):
        total = accurate_sum(xp, exponentials, axes)
        # Below 2, there is one maximal term. From 2 on, subtracting 1 costs at most one bit.
        single = (total < 2) & small
        if not is_any(xp, single):
            return total - 1
        ones = xp.floor(exponentials)
        others = computed_in_place(xp, xp.subtract, exponentials, ones)
        return xp.where(single, accurate_sum(xp, others, axes), total - 1)
    # Compilers vectorize this within a sum better than a selection.
    ones = xp.floor(exponentials)
    number = xp.sum(ones, axis=axes, keepdims=True)
    return accurate_sum(xp, exponentials - ones, axes) + (number - 1)


def _compiled_sum(xp: ModuleType, terms: Any, axes: tuple[int, ...]) -> Any:
    """Return the sum over `axes`, whose lengths may be unknown, by a compiler that adds up one vector after another."""
    lengths = [max(_FEW, longest_sum(xp, terms, axis)) for axis in axes]
    long = [not is_known(xp, terms.shape[i]) or terms.shape[i] > n for i, n in zip(axes, lengths, strict=True)]
    if True in long and terms.dtype == xp.float32:  # pragma: no cover - traced, never run
        # In blocks, other operations would not be part of the same loop.
        return xp.astype(xp.sum(terms, axis=axes, keepdims=True, dtype=xp.float64), terms.dtype)
    for axis, length in zip(axes, lengths, strict=True):
        while is_known(xp, terms.shape[axis]) and terms.shape[axis] > length:
            terms = padded(terms, axis, -terms.shape[axis] % length)
            blocks = (*terms.shape[:axis], terms.shape[axis] // length, length, *terms.shape[axis + 1 :])
            terms = xp.sum(xp.reshape(terms, blocks), axis=axis + 1)
        terms = xp.sum(terms, axis=axis, keepdims=True)
    return terms


def _sum_in_blocks(xp: ModuleType, terms: Any, axis: int) -> Any:
    """Return the sum over an axis as sums of blocks, then of blocks of these sums."""
    while terms.shape[axis] > (length := longest_sum(xp, terms, axis)):
        terms = _block_sums(xp, terms, axis, length)
    return sum_along(xp, terms, axis)


def _sum_by_folding(xp: ModuleType, terms: Any, axis: int) -> Any:
    """Return the sum over an axis by adding its parts to the first of them, until few terms are left."""
    left_over = []
    while is_known(xp, terms.shape[axis]) and terms.shape[axis] > longest_sum(xp, terms, axis):
        terms, rest = folded(xp, terms, axis)
        if rest.shape[axis]:
            left_over.append(sum_along(xp, rest, axis))
    return sum(left_over, sum_along(xp, terms, axis))


def _block_sums(xp: ModuleType, terms: Any, axis: int, length: int) -> Any:
    """Return the sums of the successive blocks of a length along `axis`; the last block may be shorter."""
    before, after = terms.shape[:axis], terms.shape[axis + 1 :]
    blocks, remainder = divmod(terms.shape[axis], length)
    along = (slice(None),) * axis
    whole = xp.reshape(terms[(*along, slice(blocks * length), ...)], (*before, blocks, length, *after))
    sums = xp.squeeze(sum_along(xp, whole, axis + 1), axis=axis + 1)
    if not remainder:
        return sums
    last = sum_along(xp, terms[(*along, slice(blocks * length, None), ...)], axis)
    return xp.concat([sums, last], axis=axis)
