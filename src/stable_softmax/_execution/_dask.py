"""Runs a kernel on the chunks of Dask arrays, lazily, in the namespace of the library that holds the chunks."""

from collections.abc import Callable
from operator import attrgetter, itemgetter
from typing import Any

from array_api_compat import array_namespace

from stable_softmax._execution._plan import Layout, Result
from stable_softmax._libraries._refusals import refuse_masked


def run_on_chunks(
    on_part: Callable[..., tuple[Any, ...]],
    layout: Layout,
    logits: Any,
    others: tuple[Any, ...],
    results: tuple[Result, ...],
) -> tuple[Any, ...]:
    """Return what the chunks give, put together; of a total, each chunk's share.

    Classes are gathered into one chunk, so that each task holds whole rows.
    """

    def on_chunk(*chunk: Any) -> Any:
        return on_part(_namespace(chunk), *chunk, axes=layout.axes)

    def declared(result: Result) -> dict[str, Any]:
        dtype = layout.dtype if result == "classes" else layout.working
        chunks = list(logits.chunks)
        for i, sizes in enumerate(logits.chunks):
            if result == "total":
                chunks[i] = (1,) * len(sizes)
            elif result != "classes" and i in layout.axes:
                chunks[i] = (1,)
        return {"chunks": tuple(chunks), "dtype": dtype, "meta": logits._meta.astype(dtype)}

    logits = logits.rechunk(dict.fromkeys(layout.axes, -1))
    together = logits.map_blocks(on_chunk, *(_aligned(array, logits) for array in others), **declared("classes"))
    return tuple(together.map_blocks(itemgetter(i), **declared(result)) for i, result in enumerate(results))


def on_each_chunk(function: Callable[..., Any], array: Any, others: tuple[Any, ...]) -> Any:
    """Return the function of each chunk of an array, and of those chunks of the others that belong to it."""

    def on_chunk(*chunk: Any) -> Any:
        return function(_namespace(chunk), *chunk)

    return array.map_blocks(on_chunk, *(_aligned(other, array) for other in others))


def on_parts_of_chunks(function: Callable[..., Any], parts: tuple[Any, ...]) -> Any:
    """Return the function of the chunks of one part, an array; or of several, a part."""
    kind, absent = type(parts[0]), dict.fromkeys(parts[0]._fields)  # without the arrays, which are no part of the task
    names = [name for name in absent if getattr(parts[0], name) is not None]
    arrays = [getattr(part, name) for part in parts for name in names]

    def on_chunk(*chunk: Any) -> Any:
        rows = [chunk[i : i + len(names)] for i in range(0, len(chunk), len(names))]
        given = [kind(**absent | dict(zip(names, row, strict=True))) for row in rows]
        return function(_namespace(chunk), *given)

    declared = {"dtype": arrays[0].dtype, "meta": arrays[0]._meta}
    together = arrays[0].map_blocks(on_chunk, *(_aligned(array, arrays[0]) for array in arrays[1:]), **declared)
    if len(parts) == 1:
        return together
    return kind(**absent | {name: together.map_blocks(attrgetter(name), **declared) for name in names})


def _namespace(chunk: tuple[Any, ...]) -> Any:
    arrays = [array for array in chunk if hasattr(array, "ndim")]
    for array in arrays:
        refuse_masked("a chunk", array)  # Dask may not know of the mask
    return array_namespace(*arrays)


def _aligned(value: Any, array: Any) -> Any:
    """Return an array in the chunks of another, but whole where its length is another; and no array as it is."""
    if not hasattr(value, "rechunk"):
        return value
    lengths = zip(value.shape, array.shape, array.chunks, strict=True)
    return value.rechunk(tuple(sizes if own == other else (own,) for own, other, sizes in lengths))
