"""Runs a kernel on arrays in memory, in blocks of rows that fit the processor's cache with temporary arrays."""

import math
from typing import Any

from stable_softmax._core import layout as layouts
from stable_softmax._core import trees
from stable_softmax._core.kernel import Kernel
from stable_softmax._core.layout import Block, Layout, Result, block_of, blocks_of, is_short
from stable_softmax._core.memory import keep_freed_memory
from stable_softmax._execution.rows import run_on_rows, stored_results, sum_of_all
from stable_softmax._execution.workers import for_each, get_workers
from stable_softmax._libraries.standard import Library


def run_in_memory(
    kernel: Kernel, lib: Library, layout: Layout, logits: Any, operands: Any, results: tuple[Result, ...]
) -> tuple[Any, ...]:
    """Return an array for each result, from whole arrays or from blocks; for a total, the terms to add."""
    if lib.writes and math.prod(layout.shape) > layouts.SMALL and not lib.records(logits, *trees.arrays_of(operands)):
        return _run_on_blocks(kernel, lib, layout, logits, operands, results)
    return run_on_rows(kernel, lib, layout, logits, operands, layout.axes)


def _run_on_blocks(
    kernel: Kernel, lib: Library, layout: Layout, logits: Any, operands: Any, results: tuple[Result, ...]
) -> tuple[Any, ...]:
    """Return the results of all blocks, put together; for a total, the sum of each block."""
    factor, strides = max(1, lib.block_factor() // kernel.block_divisor), lib.strides_of(logits)
    keep_freed_memory(factor)
    blocks = list(enumerate(blocks_of(layout, strides, factor)))
    in_columns = is_short(layout, strides, lib.short_rows)
    if len(blocks) == 1 and not in_columns:  # no copy into an output is needed
        return stored_results(lib, run_on_rows(kernel, lib, layout, logits, operands, layout.axes), layout, results)
    in_place = "classes" in results and not in_columns and len(layout.axes) == 1 and layout.dtype == layout.working
    outputs = tuple(_empty_result(lib, logits, layout, result, len(blocks)) for result in results)
    run_on_block: Any = _run_on_columns if in_columns else run_on_rows

    def fill(numbered: tuple[int, Block]) -> None:
        number, block = numbered
        parts = trees.mapped(lambda array: block_of(array, block), (logits, operands))
        places = [
            output[number, ...] if result == "total" else block_of(output, block)
            for output, result in zip(outputs, results, strict=True)
        ]
        into = {"into": places[results.index("classes")]} if in_place else {}
        values = run_on_block(kernel, lib, layout, *parts, layout.axes, **into)
        for place, value, result in zip(places, values, results, strict=True):
            if result == "total":
                place[...] = sum_of_all(lib, value, ())
            elif value is not place:
                place[...] = value  # in the dtype of the result

    for_each(fill, blocks, get_workers() if lib.runs_on_one_thread else 1)
    return outputs


def _run_on_columns(
    kernel: Kernel, lib: Library, layout: Layout, logits: Any, operands: Any, axes: tuple[int, ...]
) -> tuple[Any, ...]:
    """Run a kernel with the class axis first: few long operations instead of many short ones."""
    (axis,) = axes
    dimensions = tuple(range(logits.ndim))
    first = (axis, *dimensions[:axis], *dimensions[axis + 1 :])
    back = (*dimensions[1 : axis + 1], 0, *dimensions[axis + 1 :])
    columns = trees.mapped(lambda array: _contiguous_copy(lib, array, first, array.dtype), operands)
    values = run_on_rows(kernel, lib, layout, _contiguous_copy(lib, logits, first, layout.working), columns, (0,))
    return tuple(lib.xp.permute_dims(value, back) for value in values)


def _contiguous_copy(lib: Library, array: Any, order: tuple[int, ...], dtype: Any) -> Any:
    copy = lib.empty(tuple(array.shape[i] for i in order), dtype, array)
    copy[...] = lib.xp.permute_dims(array, order)
    return copy


def _empty_result(lib: Library, logits: Any, layout: Layout, result: Result, blocks: int) -> Any:
    if result == "classes" and 0 not in lib.strides_of(logits):
        return lib.xp.empty_like(logits, dtype=layout.dtype)
    if result == "classes":
        return lib.empty(logits.shape, layout.dtype, logits)
    shape = tuple(1 if i in layout.axes else length for i, length in enumerate(logits.shape))
    return lib.empty((blocks,) if result == "total" else shape, layout.working, logits)
