"""Runs a row kernel over an array block by block: the chunks of a Dask array, or what fits a processor's cache."""

import math
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from operator import itemgetter
from types import ModuleType
from typing import Any, Literal, TypeAlias

from array_api_compat import array_namespace, device, is_dask_array

from stable_softmax._arguments import Rows
from stable_softmax._backends import in_blocks, strides_of
from stable_softmax._conversion import converted
from stable_softmax._sums import accurate_sum
from stable_softmax._workers import for_each

#: What a kernel returns: the shape of the logits, or length 1 along the class axes; or the sum of the latter.
Result: TypeAlias = Literal["classes", "rows", "total"]
Kernel: TypeAlias = Callable[..., tuple[Any, ...]]

# Of the dtype that the work is done in.
_BYTES = 1 << 20
# Up to so many classes, contiguous rows are short enough to be worth copying.
_SHORT = 48


def run(
    kernel: Callable[..., Any],
    xp: ModuleType,
    rows: Rows,
    *others: Any,
    results: tuple[Result, ...],
    **options: Any,
) -> Any:
    """Return `kernel(xp, logits, *others, axes=axes, **options)`, with the logits in the dtype to work in.

    All arrays have as many dimensions, and are of the logits' length along each, or of length 1.

    What keeps the classes is converted to the result's dtype; the rest is kept in the dtype that the work is done in.
    The kernel returns a tuple if there are several results.
    """

    def on_block(xp: ModuleType, logits: Any, *others: Any, axes: tuple[int, ...]) -> tuple[Any, ...]:
        values = kernel(xp, converted(xp, logits, rows.working), *others, axes=axes, **options)
        values = values if isinstance(values, tuple) else (values,)
        return tuple(_finished(xp, value, result, rows) for value, result in zip(values, results, strict=True))

    if is_dask_array(rows.logits):
        values = _on_chunks(on_block, rows, others, results)
    elif in_blocks(xp, rows.logits):
        values = _on_blocks(on_block, xp, rows, others, results)
    else:
        values = on_block(xp, rows.logits, *others, axes=rows.axes)
    values = tuple(
        _total(xp, value) if result == "total" else value for value, result in zip(values, results, strict=True)
    )
    return values if len(values) > 1 else values[0]


def _finished(xp: ModuleType, value: Any, result: Result, rows: Rows) -> Any:
    if result == "classes":
        return converted(xp, value, rows.dtype)
    return value if result == "rows" else _sum_of_all(xp, value)


def _total(xp: ModuleType, values: Any) -> Any:
    return xp.reshape(_sum_of_all(xp, values), ())


def _sum_of_all(xp: ModuleType, values: Any) -> Any:
    return accurate_sum(xp, values, tuple(range(values.ndim)))


def _on_chunks(on_block: Kernel, rows: Rows, others: tuple[Any, ...], results: tuple[Result, ...]) -> tuple[Any, ...]:
    """Run on the chunks of a Dask array, lazily, in the namespace of the library that holds them.

    Classes are gathered into one chunk, so that each task holds whole rows.
    """

    def on_chunk(*chunk: Any) -> Any:
        return on_block(array_namespace(*chunk), *chunk, axes=rows.axes)

    def aligned(array: Any) -> Any:
        lengths = zip(array.shape, logits.chunks, strict=True)
        return array.rechunk(tuple((1,) if length == 1 else sizes for length, sizes in lengths))

    def declared(result: Result) -> dict[str, Any]:
        dtype = rows.dtype if result == "classes" else rows.working
        chunks = list(logits.chunks)
        for i, sizes in enumerate(logits.chunks):
            if result == "total":
                chunks[i] = (1,) * len(sizes)
            elif result == "rows" and i in rows.axes:
                chunks[i] = (1,)
        return {"chunks": tuple(chunks), "dtype": dtype, "meta": logits._meta.astype(dtype)}

    logits = rows.logits.rechunk(dict.fromkeys(rows.axes, -1))
    together = logits.map_blocks(on_chunk, *map(aligned, others), **declared("classes"))
    return tuple(together.map_blocks(itemgetter(i), **declared(result)) for i, result in enumerate(results))


def _on_blocks(
    on_block: Kernel, xp: ModuleType, rows: Rows, others: tuple[Any, ...], results: tuple[Result, ...]
) -> tuple[Any, ...]:
    """Run on as many rows at a time as a processor's cache can hold with all temporary arrays."""
    _keep_freed_memory(xp)
    arrays = tuple(map(xp.asarray, (rows.logits, *others)))
    blocks = list(enumerate(_blocks_of(arrays[0], rows)))
    run_block = _on_columns if _is_short(arrays[0], rows.axes) else _on_rows
    if len(blocks) == 1 and run_block is _on_rows:  # what it returns is the result
        return on_block(xp, *arrays, axes=rows.axes)
    outputs = tuple(_output(xp, arrays[0], rows, result, len(blocks)) for result in results)

    def fill(numbered: tuple[int, tuple[slice, ...]]) -> None:
        number, block = numbered
        parts = [_part(array, block) for array in arrays]
        for output, result, value in zip(outputs, results, run_block(on_block, xp, rows, parts), strict=True):
            if result == "total":
                output[number] = xp.reshape(value, ())
            else:
                _part(output, block)[...] = value

    for_each(fill, blocks)
    return outputs


@cache
def _keep_freed_memory(xp: ModuleType) -> None:
    """Let the C library keep what a block's temporary arrays take, for those of the next block.

    glibc gives freed memory back to the system, and pays for new pages, beyond twice the largest piece that it has seen
    freed. In a new process that is less than a few blocks, and the pages then cost several times as much as the work.
    """
    xp.empty(8 * _BYTES, dtype=xp.uint8)  # never touched, and freed at once


def _on_rows(on_block: Kernel, xp: ModuleType, rows: Rows, parts: list[Any]) -> tuple[Any, ...]:
    return on_block(xp, *parts, axes=rows.axes)


def _on_columns(on_block: Kernel, xp: ModuleType, rows: Rows, parts: list[Any]) -> tuple[Any, ...]:
    """Run with the class axis first, which makes few long operations of many short ones."""
    (axis,) = rows.axes
    dimensions = tuple(range(parts[0].ndim))
    first = (axis, *dimensions[:axis], *dimensions[axis + 1 :])
    back = (*dimensions[1 : axis + 1], 0, *dimensions[axis + 1 :])
    dtypes = (rows.working, *(part.dtype for part in parts[1:]))
    columns = [_contiguous(xp, xp.permute_dims(part, first), dtype) for part, dtype in zip(parts, dtypes, strict=True)]
    return tuple(xp.permute_dims(value, back) for value in on_block(xp, *columns, axes=(0,)))


def _is_short(logits: Any, axes: tuple[int, ...]) -> bool:
    """Whether rows are short and contiguous in memory."""
    if len(axes) > 1 or logits.shape[axes[0]] > _SHORT:
        return False
    strides = strides_of(logits)
    smallest = min(abs(stride) for stride, length in zip(strides, logits.shape, strict=True) if length > 1)
    return abs(strides[axes[0]]) == smallest


def _contiguous(xp: ModuleType, array: Any, dtype: Any) -> Any:
    copy = xp.empty(array.shape, dtype=dtype, device=device(array))
    copy[...] = array
    return copy


def _output(xp: ModuleType, logits: Any, rows: Rows, result: Result, blocks: int) -> Any:
    if result == "classes" and 0 not in strides_of(logits):
        return xp.empty_like(logits, dtype=rows.dtype)
    if result == "classes":
        return xp.empty(logits.shape, dtype=rows.dtype, device=device(logits))
    shape = tuple(1 if i in rows.axes else length for i, length in enumerate(logits.shape))
    return xp.empty((blocks,) if result == "total" else shape, dtype=rows.working, device=device(logits))


def _blocks_of(logits: Any, rows: Rows) -> Iterator[tuple[slice, ...]]:
    """Yield the indices of blocks of whole rows, near each other in memory."""
    strides = strides_of(logits)
    steps = list(logits.shape)
    elements = _BYTES // rows.working.itemsize
    size = math.prod(logits.shape)
    for axis in sorted(set(range(logits.ndim)) - set(rows.axes), key=lambda i: -abs(strides[i])):
        size //= logits.shape[axis]
        steps[axis] = min(logits.shape[axis], _off_powers_of_two(max(1, elements // size)))
        if steps[axis] > 1:
            break
    return product(
        *(
            [slice(i, i + step) for i in range(0, length, step)]
            for length, step in zip(logits.shape, steps, strict=True)
        )
    )


def _off_powers_of_two(rows: int) -> int:
    """Return nearly as many: columns that are a power of two apart would share few places of the nearest cache."""
    return rows if rows < 64 else rows // 32 * 32 - 16


def _part(array: Any, block: tuple[slice, ...]) -> Any:
    """Return what a block holds of an array, which may have length 1 where the logits have not."""
    return array[tuple(slice(None) if length == 1 else part for length, part in zip(array.shape, block, strict=True))]
