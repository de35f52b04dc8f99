"""Runs a kernel on the chunks of Dask arrays, lazily, in the namespace of the library that holds the chunks."""

import math
from collections.abc import Callable, Iterator
from functools import partial, reduce
from itertools import accumulate
from operator import attrgetter, itemgetter
from typing import Any

from array_api_compat import array_namespace

from stable_softmax._execution._plan import Layout, Result
from stable_softmax._libraries._operations import unreported
from stable_softmax._libraries._refusals import refuse_masked


def run_on_chunks(
    on_rows: Callable[..., tuple[Any, ...]],
    layout: Layout,
    logits: Any,
    others: tuple[Any, ...],
    results: tuple[Result, ...],
) -> tuple[Any, ...]:
    """Return what the chunks give, put together; of a total, each chunk's share.

    Each task holds whole rows.
    """
    logits = _with_whole_rows(logits, layout)
    aligned = (_aligned(array, logits) for array in others)
    together = logits.map_blocks(_of_chunks(on_rows), *aligned, **_declared("classes", logits, layout))
    return _taken_apart(together, results, logits, layout)


def _with_whole_rows(logits: Any, layout: Layout) -> Any:
    """Return the logits with no cut along the class axes, and the rows cut finer where chunks would grow too large.

    That is beyond `array.chunk-size` of Dask's configuration.
    """
    from dask import config
    from dask.utils import parse_bytes

    whole = logits.rechunk(dict.fromkeys(layout.axes, -1))
    size = math.prod(max(sizes, default=0) for sizes in whole.chunks) * logits.dtype.itemsize
    if whole.numblocks == logits.numblocks or size <= parse_bytes(config.get("array.chunk-size")):
        return whole
    return logits.rechunk(dict.fromkeys(range(logits.ndim), "auto") | dict.fromkeys(layout.axes, -1))


def is_in_pieces(logits: Any, layout: Layout) -> bool:
    """Whether the one class axis is cut into several chunks."""
    return len(layout.axes) == 1 and logits.numblocks[layout.axes[0]] > 1


def run_on_pieces(
    on_piece: Callable[..., Any],
    merged: Callable[..., Any],
    on_rows: Callable[..., tuple[Any, ...]],
    on_entries: Callable[..., Any],
    layout: Layout,
    logits: Any,
    others: tuple[Any, ...],
    results: tuple[Result, ...],
) -> tuple[Any, ...]:
    """Return what whole rows give, whose chunks along the class axis become parts, and these one part, as a tree.

    What has an entry for each row comes from that part, and what has one for each class from it and a chunk. Each chunk
    is let go after each look at it.
    """
    (axis,) = layout.axes
    aligned = [_aligned(array, logits) for array in others]
    first_classes = [0, *accumulate(logits.chunks[axis])]

    def on_chunk(*chunk: Any, block_id: tuple[int, ...], function: Callable[..., Any]) -> Any:
        return _of_chunks(function)(*chunk, first_class=first_classes[block_id[axis]])

    on_each_chunk = partial(logits.map_blocks, on_chunk, **_declared("classes", logits, layout))
    rows = _merged_as_tree(merged, on_each_chunk(*aligned, function=on_piece), axis)
    taken = []
    if results != ("classes",):
        by_row = (_aligned(_without_classes(array, axis), rows) for array in others)
        together = rows.map_blocks(_of_chunks(on_rows), *by_row, **_declared("rows", logits, layout))
        taken = list(_taken_apart(together, tuple(r for r in results if r != "classes"), logits, layout))
    if "classes" in results:
        taken.insert(results.index("classes"), on_each_chunk(rows, *aligned, function=on_entries))
    return tuple(taken)


def _merged_as_tree(merged: Callable[..., Any], parts: Any, axis: int) -> Any:
    from dask.array import reduction

    def merge(parts: Any, **_: Any) -> Any:
        if not isinstance(parts, list):  # an empty array, from which Dask takes what kind of array will come
            return parts
        return reduce(_of_chunks(merged), parts)

    return reduction(
        parts, _as_it_is, merge, axis=axis, keepdims=True, combine=merge, concatenate=False, dtype=parts.dtype
    )


def _as_it_is(part: Any, **_: Any) -> Any:
    return part


def _without_classes(array: Any, axis: int) -> Any:
    """Return an array, or what is none; None instead of one with entries for each class."""
    return None if hasattr(array, "ndim") and array.shape[axis] != 1 else array


def _declared(result: Result, logits: Any, layout: Layout) -> dict[str, Any]:
    """Return what Dask has to be told of a result that comes chunk by chunk."""
    dtype = layout.dtype if result == "classes" else layout.working
    chunks = list(logits.chunks)
    for i, sizes in enumerate(logits.chunks):
        if result != "classes" and i in layout.axes:
            chunks[i] = (1,)
        elif result == "total":
            chunks[i] = (1,) * len(sizes)
    return {"chunks": tuple(chunks), "dtype": dtype, "meta": logits._meta.astype(dtype)}


def _taken_apart(together: Any, results: tuple[Result, ...], logits: Any, layout: Layout) -> tuple[Any, ...]:
    """Return an array for each result, from one whose chunks are tuples of all."""
    return tuple(
        together.map_blocks(itemgetter(i), **_declared(result, logits, layout)) for i, result in enumerate(results)
    )


def on_each_chunk(function: Callable[..., Any], array: Any, others: tuple[Any, ...]) -> Any:
    """Return the function of each chunk of an array, and of those chunks of the others that belong to it."""
    return array.map_blocks(_of_chunks(function), *(_aligned(other, array) for other in others))


def on_parts_of_chunks(function: Callable[..., Any], parts: tuple[Any, ...], like: Any) -> Any:
    """Return the function of the chunks of parts: an array, or a named tuple with arrays where `like` has some."""
    kinds = [(type(part), _names_of(part)) for part in parts]  # without the arrays, which are no part of the task
    arrays = [getattr(part, name) for part in parts for name in _names_of(part)]

    def on_chunk(*chunk: Any) -> Any:
        remaining = iter(chunk)
        given = [_part(kind, {name: next(remaining) for name in names}) for kind, names in kinds]
        return _of_chunks(function)(*given)

    declared = {"dtype": arrays[0].dtype, "meta": arrays[0]._meta}
    together = arrays[0].map_blocks(on_chunk, *(_aligned(array, arrays[0]) for array in arrays[1:]), **declared)
    if like is None:
        return together
    fields = {name: together.map_blocks(attrgetter(name), **declared) for name in _names_of(like)}
    return _part(type(like), fields)


def _names_of(part: Any) -> list[str]:
    return [name for name in part._fields if getattr(part, name) is not None]


def _part(kind: Any, fields: dict[str, Any]) -> Any:
    return kind(**dict.fromkeys(kind._fields) | fields)


def total_of_chunks(sum_of_all: Callable[..., Any], values: Any) -> Any:
    """Return the sum of all values, as an array without dimensions, from the sums of the chunks."""
    from dask.array import reduction

    def total(chunk: Any, **_: Any) -> Any:
        return _of_chunks(sum_of_all)(chunk)

    return reduction(values, total, total, keepdims=True, dtype=values.dtype).reshape(())


def _of_chunks(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function(xp, *chunk)` without the namespace, which is that of the chunks, or of the parts, themselves."""

    def on_chunk(*chunk: Any, **options: Any) -> Any:
        arrays = [array for array in _leaves(chunk) if hasattr(array, "ndim")]
        for array in arrays:
            refuse_masked("a chunk", array)  # Dask may not know of the mask
        xp = array_namespace(*arrays)
        with unreported(xp):
            return function(xp, *chunk, **options)

    return on_chunk


def _leaves(values: tuple[Any, ...]) -> Iterator[Any]:
    for value in values:
        yield from _leaves(value) if isinstance(value, tuple) else (value,)


def _aligned(value: Any, array: Any) -> Any:
    """Return an array in the chunks of another, but whole where its length is another; and no array as it is."""
    if not hasattr(value, "rechunk"):
        return value
    lengths = zip(value.shape, array.shape, array.chunks, strict=True)
    return value.rechunk(tuple(sizes if own == other else (own,) for own, other, sizes in lengths))
