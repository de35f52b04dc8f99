"""Sums along axes whose rounding error grows with the logarithm of the number of terms."""

from types import ModuleType
from typing import Any

from stable_softmax._libraries import is_eager
from stable_softmax._libraries._operations import computed_in_place, is_any, is_known, rounded_product
from stable_softmax._libraries._reductions import padded, pairwise_length, sum_along, sums_in_order
from stable_softmax._maths._axes import along_one_axis, can_merge

# So many terms are added one after another. More are added as sums of eight, then as sums of eight such sums.
# A sum of n terms can round n - 1 times in one direction, of which the accuracy contract allows some 2 log2(n) + 16.
_FEW = 16
_BLOCK = 8


def accurate_sum(xp: ModuleType, terms: Any, axes: tuple[int, ...]) -> Any:
    """Return the sum over `axes`, keeping each with length 1.

    NumPy adds several numbers at a time only along the axis that is contiguous in memory. Along any other, 10^6 equal
    float32 terms lose five of the seven digits. XLA and GPU libraries sum as a tree.
    """
    if len(axes) > 1:
        axes = tuple(axis for axis in axes if terms.shape[axis] != 1) or axes[:1]
        if can_merge(xp, terms, axes):
            return along_one_axis(xp, accurate_sum, terms, axes)
    if not is_eager(xp, terms):
        return _compiled_sum(xp, terms, axes) if sums_in_order(xp, terms) else xp.sum(terms, axis=axes, keepdims=True)
    (axis,) = axes
    while terms.shape[axis] > max(_FEW, pairwise := pairwise_length(xp, terms, axis)):
        terms = _block_sums(xp, terms, axis, max(_BLOCK, pairwise))
    return sum_along(xp, terms, axis)


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
    lengths = [max(_FEW, pairwise_length(xp, terms, axis)) for axis in axes]
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
