"""Runs a row kernel over logits: whole, in blocks that fit a processor's cache, or in the chunks of a Dask array."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from stable_softmax._execution import _blocks, _dask
from stable_softmax._execution._plan import Layout, Result, is_large
from stable_softmax._libraries import is_dask, is_eager, is_writable, runs_in_parts
from stable_softmax._libraries._operations import are_neighbours, native, steady, unreported
from stable_softmax._maths._conversion import converted
from stable_softmax._maths._pieces import Pieces
from stable_softmax._maths._sums import accurate_sum


def run(
    kernel: Callable[..., Any],
    xp: ModuleType,
    layout: Layout,
    logits: Any,
    *others: Any,
    results: tuple[Result, ...],
    pieces: Pieces | None = None,
) -> Any:
    """Return `kernel(xp, logits, *others, axes=axes)`, with the logits in the dtype to work in.

    The others are arrays with as many dimensions as the logits, of their length along each or of length 1, or what
    every part gets as it is. The results have the dtype of the result; the kernel returns a tuple if there are several.
    It may get memory for the one that has an entry for each class, as `into`. Where rows lie in several chunks, the
    pieces' functions take its place if they are given; otherwise rows are gathered.
    """
    if is_dask(xp) and pieces and _dask.is_in_pieces(logits, layout):
        values = _dask.run_on_pieces(
            partial(_part_of_chunk, pieces, layout),
            pieces.merged,
            partial(_results_of_part, pieces, layout, tuple(r for r in results if r != "classes")),
            partial(_entries_of_chunk, pieces, layout),
            layout,
            logits,
            others,
            results,
        )
    elif is_dask(xp):
        on_chunk = partial(_results_of_chunk, kernel, layout, results)
        values = _dask.run_on_chunks(on_chunk, layout, logits, others, results)
    else:
        with unreported(xp):
            values = _results_of_array(kernel, layout, results, xp, logits, *others)
    values = tuple([_whole(xp, value, result, layout) for value, result in zip(values, results, strict=True)])
    return values if len(values) > 1 else values[0]


def on_each(function: Callable[..., Any], xp: ModuleType, array: Any, *others: Any) -> Any:
    """Return `function(xp, array, *others)`, an array of the shape of `array`, to each part of which others belong."""
    if is_dask(xp):
        return _dask.on_each_chunk(function, array, others)
    with unreported(xp):
        return function(xp, array, *others)


def on_parts(function: Callable[..., Any], xp: ModuleType, *parts: Any, like: Any = None) -> Any:
    """Return `function(xp, *parts)` of named tuples of arrays, which all have one shape.

    It is an array, or a named tuple that has arrays where `like` has anything but None.
    """
    if is_dask(xp):
        return _dask.on_parts_of_chunks(function, parts, like)
    with unreported(xp):
        return function(xp, *parts)


def total(xp: ModuleType, values: Any) -> Any:
    """Return the sum of all values, as an array without dimensions."""
    if is_dask(xp):
        return _dask.total_of_chunks(_sum_of_all, values)
    with unreported(xp):
        return xp.reshape(_sum_of_all(xp, values), ())


def _sum_of_all(xp: ModuleType, values: Any) -> Any:
    """Return the sum of all values, with as many dimensions as they have, each of length 1."""
    shape = (1,) * values.ndim
    if is_eager(xp, values):
        values = xp.reshape(values, (-1,))
    return xp.reshape(accurate_sum(xp, values, tuple(range(values.ndim))), shape)


def _results_of_array(
    kernel: Callable[..., Any], layout: Layout, results: tuple[Result, ...], xp: ModuleType, logits: Any, *others: Any
) -> tuple[Any, ...]:
    """Return the results for an array in memory, whole or from blocks; of a total, the values to add."""
    if runs_in_parts(xp, logits, *others) and is_large(layout):
        on_block = partial(_results_of_block, kernel, layout, results)
        return _blocks.run_on_blocks(on_block, xp, layout, logits, others, results)
    return _kernel_results(kernel, layout, xp, logits, *others, axes=layout.axes)


def _results_of_chunk(
    kernel: Callable[..., Any], layout: Layout, results: tuple[Result, ...], xp: ModuleType, logits: Any, *others: Any
) -> tuple[Any, ...]:
    own = layout._replace(shape=tuple(logits.shape))
    values = _results_of_array(kernel, own, results, xp, logits, *others)
    return _kept(xp, values, layout, results)


def _kernel_results(
    kernel: Callable[..., Any],
    layout: Layout,
    xp: ModuleType,
    logits: Any,
    *others: Any,
    axes: tuple[int, ...],
    **into: Any,
) -> tuple[Any, ...]:
    if len(axes) == 1 and is_writable(xp, logits):
        if not _is_arranged(xp, logits, axes[0]):
            return _rearranged_results(kernel, layout, xp, logits, *others, axes=axes, **into)
        logits, others = steady(xp, logits, others, axes[0])
    values = kernel(xp, converted(xp, logits, layout.working), *others, axes=axes, **into)
    return values if isinstance(values, tuple) else (values,)


def _is_arranged(xp: ModuleType, logits: Any, axis: int) -> bool:
    """Whether the class axis is the last if and only if its entries lie next to each other in memory.

    Sums then know from the axis alone in which order to add. They could not know it from the memory of temporary
    arrays, which depends on the number of rows.
    """
    return logits.shape[axis] <= 1 or are_neighbours(xp, logits, axis) == (axis == logits.ndim - 1)


def _rearranged_results(
    kernel: Callable[..., Any], layout: Layout, xp: ModuleType, *arrays: Any, axes: tuple[int, ...], into: Any = None
) -> tuple[Any, ...]:
    """Return the results from views that are arranged."""
    (axis,) = axes
    is_last = axis == arrays[0].ndim - 1

    def arranged(array: Any) -> Any:
        if not hasattr(array, "ndim"):
            return array
        return array[..., None] if is_last else xp.moveaxis(array, axis, -1)

    memory = {} if into is None else {"into": arranged(into)}
    views = [arranged(array) for array in arrays]
    axes = axes if is_last else (views[0].ndim - 1,)
    values = _kernel_results(kernel, layout, xp, *views, axes=axes, **memory)
    return tuple(
        into if value is memory.get("into") else value[..., 0] if is_last else xp.moveaxis(value, -1, axis)
        for value in values
    )


def _results_of_block(
    kernel: Callable[..., Any],
    layout: Layout,
    results: tuple[Result, ...],
    xp: ModuleType,
    *arrays: Any,
    **options: Any,
) -> tuple[Any, ...]:
    values = _kernel_results(kernel, layout, xp, *arrays, **options)
    return _kept(xp, values, layout, results)


def _part_of_chunk(pieces: Pieces, layout: Layout, xp: ModuleType, logits: Any, *others: Any, **options: Any) -> Any:
    return pieces.part(xp, converted(xp, logits, layout.working), *others, axes=layout.axes, **options)


def _results_of_part(
    pieces: Pieces, layout: Layout, results: tuple[Result, ...], xp: ModuleType, part: Any, *others: Any
) -> tuple[Any, ...]:
    values = pieces.rows(xp, part, *others, axes=layout.axes)
    return _kept(xp, values if isinstance(values, tuple) else (values,), layout, results)


def _entries_of_chunk(pieces: Pieces, layout: Layout, xp: ModuleType, logits: Any, *others: Any, **options: Any) -> Any:
    values = pieces.entries(xp, converted(xp, logits, layout.working), *others, axes=layout.axes, **options)
    return converted(xp, values, layout.dtype)


def _kept(xp: ModuleType, values: tuple[Any, ...], layout: Layout, results: tuple[Result, ...]) -> tuple[Any, ...]:
    """Return what is kept of a part: its results, or its share of a total."""

    def kept(value: Any, result: Result) -> Any:
        if result == "classes":
            return converted(xp, value, layout.dtype)
        if result == "total":
            return xp.reshape(_sum_of_all(xp, value), (1,) * len(layout.shape))
        return value

    return tuple([kept(value, result) for value, result in zip(values, results, strict=True)])


def _whole(xp: ModuleType, value: Any, result: Result, layout: Layout) -> Any:
    if result == "total":
        value = total(xp, value)
    if result == "examples":
        value = xp.squeeze(value, axis=layout.axes)
    return native(xp, converted(xp, value, layout.dtype))
