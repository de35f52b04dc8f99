"""Runs a kernel on whole rows, of arrays in memory or traced by a compiler."""

from typing import Any

from stable_softmax._core import trees
from stable_softmax._core.kernel import Kernel
from stable_softmax._core.layout import Layout, Result
from stable_softmax._libraries.standard import Library
from stable_softmax._maths.sums import accurate_sum


def run_on_rows(
    kernel: Kernel, lib: Library, layout: Layout, logits: Any, operands: Any, axes: tuple[int, ...], **into: Any
) -> tuple[Any, ...]:
    """Return an array for each result, perhaps in the memory `into`; for a total, the terms to add."""
    if lib.writes and len(axes) == 1 and not lib.is_in_fixed_order(logits, operands, axes[0]):
        if not _is_arranged(lib, logits, axes[0]):
            return _run_on_views(kernel, lib, layout, logits, operands, axes, **into)
        logits, operands = lib.in_fixed_order(logits, operands, axes[0])
    if logits.dtype != layout.working:
        logits = lib.convert(logits, layout.working)
    values = kernel.whole(lib, logits, operands, axes=axes, **into)
    return values if isinstance(values, tuple) else (values,)


def _is_arranged(lib: Library, logits: Any, axis: int) -> bool:
    """Whether the class axis is the last if and only if its entries are adjacent in memory.

    Sums can then choose the order of additions by the axis alone. The memory layout of temporary arrays would be no
    guide: it depends on the number of rows.
    """
    return logits.shape[axis] <= 1 or lib.are_neighbours(logits, axis) == (axis == logits.ndim - 1)


def _run_on_views(
    kernel: Kernel, lib: Library, layout: Layout, logits: Any, operands: Any, axes: tuple[int, ...], into: Any = None
) -> tuple[Any, ...]:
    """Return the results from views whose class axis is arranged as `_is_arranged` asks."""
    (axis,) = axes
    is_last = axis == logits.ndim - 1

    def arranged(array: Any) -> Any:
        return array[..., None] if is_last else lib.xp.moveaxis(array, axis, -1)

    memory = {} if into is None else {"into": arranged(into)}
    axes = axes if is_last else (logits.ndim - 1,)
    values = run_on_rows(kernel, lib, layout, arranged(logits), trees.mapped(arranged, operands), axes, **memory)
    return tuple(
        into if value is memory.get("into") else value[..., 0] if is_last else lib.xp.moveaxis(value, -1, axis)
        for value in values
    )


def stored_results(
    lib: Library, values: tuple[Any, ...], layout: Layout, results: tuple[Result, ...]
) -> tuple[Any, ...]:
    """Return the results of a block or a chunk in the form that is stored; for a total, their sum."""

    def kept(value: Any, result: Result) -> Any:
        if result == "classes":
            return lib.convert(value, layout.dtype)
        if result == "total":
            return sum_of_all(lib, value, (1,) * len(layout.shape))
        return value

    return tuple([kept(value, result) for value, result in zip(values, results, strict=True)])


def sum_of_all(lib: Library, values: Any, shape: tuple[int, ...]) -> Any:
    """Return the sum of all values, in a shape that has one entry."""
    total = lib.sum_of_all(values)
    if total is None:
        if lib.reads_values:
            values = lib.reshape(values, (-1,))
        total = accurate_sum(lib, values, tuple(range(values.ndim)))
    return lib.reshape(total, shape)
