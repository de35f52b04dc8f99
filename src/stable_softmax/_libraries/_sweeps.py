"""A function of all rows from that of some rows at a time, as each library repeats a function."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from stable_softmax._libraries import is_jax, is_torch
from stable_softmax._libraries._operations import is_known


def swept(
    xp: ModuleType,
    function: Callable[..., tuple[list[Any], list[Any]]],
    arrays: tuple[Any, ...],
    in_rows: tuple[bool, ...],
    size: int,
) -> tuple[list[Any], list[Any]]:
    """Return `function(None, *arrays)`: arrays of rows, and sums over rows, from blocks of nearly `size` rows.

    Of `arrays`, each block gets its rows of those that `in_rows` tells, and the others whole; and first, the sums over
    the blocks before, which it adds to and may overwrite. For derivatives, blocks are computed again, and not kept.
    All rows are one block where their number is unknown, while a program is traced.
    """
    if is_jax(xp):
        from stable_softmax._libraries import _jax

        return _jax.swept(function, arrays, in_rows, size)
    evaluate = _recomputed(xp, function)
    length = next(array.shape[0] for array, is_cut in zip(arrays, in_rows, strict=True) if is_cut)
    number = max(1, -(-length // size)) if is_known(xp, length) else 1
    rows: list[list[Any]] = []
    sums: Any = None
    for i in range(number):
        block = slice(length * i // number, length * (i + 1) // number)
        cut = [a[block, ...] if is_cut else a for a, is_cut in zip(arrays, in_rows, strict=True)]
        values, sums = evaluate(sums, *cut)
        rows.append(values)
    return [xp.concat(blocks) for blocks in zip(*rows, strict=True)], sums


def _recomputed(xp: ModuleType, function: Callable[..., Any]) -> Callable[..., Any]:
    if not is_torch(xp):
        return function
    from stable_softmax._libraries import _torch

    return lambda *arrays: _torch.recomputed(function, *arrays)
