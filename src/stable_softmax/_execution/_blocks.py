"""Runs a kernel on arrays in memory, as many rows at a time as a processor's cache can hold with temporary arrays."""

from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np

from stable_softmax._execution._plan import BLOCK_BYTES, Layout, Part, Result, blocks_of, is_short, part_of
from stable_softmax._execution._workers import for_each, get_workers
from stable_softmax._libraries import is_numpy
from stable_softmax._libraries._operations import block_factor, empty, strides_of


def run_on_blocks(
    on_part: Callable[..., tuple[Any, ...]],
    xp: ModuleType,
    layout: Layout,
    logits: Any,
    others: tuple[Any, ...],
    results: tuple[Result, ...],
) -> tuple[Any, ...]:
    """Return what the parts give, put together; of a total, each block's share."""
    _keep_freed_memory()
    strides = strides_of(logits)
    blocks = list(enumerate(blocks_of(layout, strides, block_factor(xp))))
    in_columns = is_numpy(xp) and is_short(layout, strides)
    if len(blocks) == 1 and not in_columns:  # what it returns is the result
        return on_part(xp, logits, *others, axes=layout.axes)
    on_block = partial(_on_columns, on_part, layout.working) if in_columns else on_part
    in_place = "classes" in results and not in_columns and len(layout.axes) == 1 and layout.dtype == layout.working
    outputs = tuple(_output(xp, logits, layout, result, len(blocks)) for result in results)

    def fill(numbered: tuple[int, Part]) -> None:
        number, block = numbered
        parts = [part_of(array, block) for array in (logits, *others)]
        places = [
            output[number, ...] if result == "total" else part_of(output, block)
            for output, result in zip(outputs, results, strict=True)
        ]
        into = {"into": places[results.index("classes")]} if in_place else {}
        for place, value in zip(places, on_block(xp, *parts, axes=layout.axes, **into), strict=True):
            if value is not place:
                place[...] = xp.reshape(value, place.shape)

    for_each(fill, blocks, get_workers() if is_numpy(xp) else 1)
    return outputs


@cache
def _keep_freed_memory() -> None:
    """Let the C library keep what a block's temporary arrays take (of NumPy's size), for those of the next block.

    glibc gives freed memory back to the system, and pays for new pages, beyond twice the largest piece that it has seen
    freed. In a new process that is less than a few blocks, and the pages then cost several times as much as the work.
    """
    np.empty(8 * BLOCK_BYTES, dtype=np.uint8)  # never touched, and freed at once


def _on_columns(
    on_part: Callable[..., Any], working: Any, xp: ModuleType, logits: Any, *others: Any, axes: tuple[int, ...]
) -> tuple[Any, ...]:
    """Run with the class axis first, which makes few long operations of many short ones."""
    (axis,) = axes
    dimensions = tuple(range(logits.ndim))
    first = (axis, *dimensions[:axis], *dimensions[axis + 1 :])
    back = (*dimensions[1 : axis + 1], 0, *dimensions[axis + 1 :])
    columns = [_contiguous(xp, logits, first, working), *(_contiguous(xp, other, first) for other in others)]
    return tuple(xp.permute_dims(value, back) for value in on_part(xp, *columns, axes=(0,)))


def _contiguous(xp: ModuleType, array: Any, order: tuple[int, ...], dtype: Any = None) -> Any:
    if not hasattr(array, "ndim"):
        return array
    copy = xp.empty([array.shape[i] for i in order], dtype=dtype or array.dtype)
    copy[...] = xp.permute_dims(array, order)
    return copy


def _output(xp: ModuleType, logits: Any, layout: Layout, result: Result, blocks: int) -> Any:
    if result == "classes" and 0 not in strides_of(logits):
        return xp.empty_like(logits, dtype=layout.dtype)
    if result == "classes":
        return empty(xp, logits.shape, layout.dtype, logits)
    shape = tuple(1 if i in layout.axes else length for i, length in enumerate(logits.shape))
    return empty(xp, (blocks,) if result == "total" else shape, layout.working, logits)
