"""Runs a kernel lazily on the chunks of Dask arrays, with the library of the chunks."""

import math
from collections.abc import Callable
from functools import partial, reduce
from itertools import accumulate
from operator import itemgetter
from typing import Any

from dask import config
from dask.array import reduction
from dask.utils import parse_bytes

from stable_softmax._core import trees
from stable_softmax._core.kernel import Kernel, Pieces
from stable_softmax._core.layout import Layout, Result
from stable_softmax._execution.blocks import run_in_memory
from stable_softmax._execution.rows import stored_results, sum_of_all
from stable_softmax._libraries import library_of
from stable_softmax._libraries.refusals import refuse_masked
from stable_softmax._libraries.standard import Library


def run_on_chunks(
    kernel: Kernel, layout: Layout, logits: Any, operands: Any, results: tuple[Result, ...]
) -> tuple[Any, ...]:
    """Return the results of all chunks, put together; for a total, the sum of each chunk.

    Each task holds whole rows, unless the class axis is cut and the kernel works on pieces of rows.
    """
    if kernel.pieces and len(layout.axes) == 1 and logits.numblocks[layout.axes[0]] > 1:
        return _run_on_pieces(kernel.pieces, layout, logits, operands, results)
    logits = _with_whole_rows(logits, layout)
    on_rows = partial(_results_of_chunk, kernel, layout, results)
    together = _map_chunks(on_rows, logits, operands, **_metadata("classes", logits, layout))
    return _separate_results(together, results, logits, layout)


def apply_to_chunks(function: Callable[..., Any], operands: tuple[Any, ...], like: Any) -> Any:
    """Return a function of each chunk of the operands: an array, or a tree with arrays where `like` has some."""
    if like is None:
        return _map_chunks(function, *operands)
    first = trees.arrays_of(operands)[0]
    declared = {"dtype": first.dtype, "meta": first._meta}

    def arrays(lib: Library, *chunk: Any) -> Any:
        return tuple(trees.arrays_of(function(lib, *chunk)))

    together = _map_chunks(arrays, *operands, **declared)
    parts = [together.map_blocks(itemgetter(i), **declared) for i in range(len(trees.arrays_of(like)))]
    return trees.rebuilt(trees.without_arrays(like), parts)


def total_of_chunks(values: Any) -> Any:
    """Return the sum of all values as a 0-d array, from the sums of the chunks."""

    def total(chunk: Any, **_: Any) -> Any:
        return _on_chunk(sum_of_all)(chunk, (1,) * chunk.ndim)

    return reduction(values, total, total, keepdims=True, dtype=values.dtype).reshape(())


def _results_of_chunk(
    kernel: Kernel, layout: Layout, results: tuple[Result, ...], lib: Library, logits: Any, operands: Any
) -> tuple[Any, ...]:
    own = layout._replace(shape=tuple(logits.shape))
    return stored_results(lib, run_in_memory(kernel, lib, own, logits, operands, results), layout, results)


def _with_whole_rows(logits: Any, layout: Layout) -> Any:
    """Return the logits in chunks of whole rows, of fewer rows where chunks would exceed Dask's `array.chunk-size`."""
    whole = logits.rechunk(dict.fromkeys(layout.axes, -1))
    size = math.prod(max(sizes, default=0) for sizes in whole.chunks) * logits.dtype.itemsize
    if whole.numblocks == logits.numblocks or size <= parse_bytes(config.get("array.chunk-size")):
        return whole
    return logits.rechunk(dict.fromkeys(range(logits.ndim), "auto") | dict.fromkeys(layout.axes, -1))


def _run_on_pieces(
    pieces: Pieces, layout: Layout, logits: Any, operands: Any, results: tuple[Result, ...]
) -> tuple[Any, ...]:
    """Return the results of whole rows, from parts of their chunks along the class axis, which are merged as a tree.

    Results for each row come from the merged part, and results for each class from it and a chunk. No chunk is kept in
    memory between its two uses.
    """
    (axis,) = layout.axes
    first_classes = [0, *accumulate(logits.chunks[axis])]
    declared = _metadata("classes", logits, layout)

    def part(lib: Library, logits: Any, operands: Any, number: int) -> Any:
        options = {"axes": layout.axes, "first_class": first_classes[number]}
        return pieces.part(lib, lib.convert(logits, layout.working), operands, **options)

    def entries(lib: Library, logits: Any, part: Any, operands: Any, number: int) -> Any:
        options = {"axes": layout.axes, "first_class": first_classes[number]}
        values = pieces.entries(lib, lib.convert(logits, layout.working), part, operands, **options)
        return lib.convert(values, layout.dtype)

    def of_rows(lib: Library, part: Any, operands: Any) -> Any:
        values = pieces.rows(lib, part, operands, axes=layout.axes)
        return stored_results(lib, values if isinstance(values, tuple) else (values,), layout, by_row)

    rows = _merged_as_tree(pieces.merged, _map_chunks(part, logits, operands, axis=axis, **declared), axis)
    by_row = tuple(result for result in results if result != "classes")
    taken = []
    if by_row:
        without_classes = trees.mapped(lambda array: array if array.shape[axis] == 1 else None, operands)
        together = _map_chunks(of_rows, rows, without_classes, **_metadata("rows", logits, layout))
        taken = list(_separate_results(together, by_row, logits, layout))
    if "classes" in results:
        taken.insert(results.index("classes"), _map_chunks(entries, logits, rows, operands, axis=axis, **declared))
    return tuple(taken)


def _map_chunks(function: Callable[..., Any], *operands: Any, axis: Any = None, **declared: Any) -> Any:
    """Return `function(lib, *operands)` of each chunk of the operands' arrays, aligned with those of the first array.

    If `axis` is given, the function also gets the number of the chunk along it.
    """
    first, *others = trees.arrays_of(operands)
    tree = trees.without_arrays(operands)

    def on_chunk(*arrays: Any, **number: int) -> Any:
        return _on_chunk(function)(*trees.rebuilt(tree, list(arrays)), **number)

    def on_numbered_chunk(*arrays: Any, block_id: tuple[int, ...]) -> Any:
        return on_chunk(*arrays, number=block_id[axis])

    aligned = (_aligned(array, first) for array in others)
    return first.map_blocks(on_chunk if axis is None else on_numbered_chunk, *aligned, **declared)


def _merged_as_tree(merged: Callable[..., Any], parts: Any, axis: int) -> Any:
    def merge(parts: Any, **_: Any) -> Any:
        if not isinstance(parts, list):  # an empty array, from which Dask infers the kind of the result
            return parts
        return reduce(_on_chunk(merged), parts)

    return reduction(
        parts, _unchanged, merge, axis=axis, keepdims=True, combine=merge, concatenate=False, dtype=parts.dtype
    )


def _unchanged(part: Any, **_: Any) -> Any:
    return part


def _metadata(result: Result, logits: Any, layout: Layout) -> dict[str, Any]:
    """Return chunks, dtype and meta of a result, which Dask cannot infer."""
    dtype = layout.dtype if result == "classes" else layout.working
    chunks = list(logits.chunks)
    for i, sizes in enumerate(logits.chunks):
        if result != "classes" and i in layout.axes:
            chunks[i] = (1,)
        elif result == "total":
            chunks[i] = (1,) * len(sizes)
    return {"chunks": tuple(chunks), "dtype": dtype, "meta": logits._meta.astype(dtype)}


def _separate_results(together: Any, results: tuple[Result, ...], logits: Any, layout: Layout) -> tuple[Any, ...]:
    """Return an array for each result, from one array whose chunks are tuples of the results."""
    return tuple(
        together.map_blocks(itemgetter(i), **_metadata(result, logits, layout)) for i, result in enumerate(results)
    )


def _on_chunk(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function without its argument `lib`, for which it gets the library of the chunk."""

    def on_chunk(*chunk: Any, **options: Any) -> Any:
        arrays = trees.arrays_of(chunk)
        for array in arrays:
            refuse_masked("a chunk", array)  # Dask may not know that its chunks are masked
        lib = library_of(*arrays)
        return lib.in_silence(function, lib, *chunk, **options)

    return on_chunk


def _aligned(value: Any, array: Any) -> Any:
    """Return an array in the chunks of another, but whole along axes where their lengths differ."""
    lengths = zip(value.shape, array.shape, array.chunks, strict=True)
    return value.rechunk(tuple(sizes if own == other else (own,) for own, other, sizes in lengths))
