"""Runs a row kernel over the blocks of an array that is kept in blocks."""

from collections.abc import Callable
from operator import itemgetter
from types import ModuleType
from typing import Any

from array_api_compat import array_namespace, is_dask_array


def run(
    kernel: Callable[..., Any],
    xp: ModuleType,
    logits: Any,
    *others: Any,
    axes: tuple[int, ...],
    keep_classes: bool | tuple[bool, ...],
    **options: Any,
) -> Any:
    """Return `kernel(xp, logits, *others, axes=axes, **options)`, which keeps the class axes or reduces them.

    All arrays have as many dimensions, and are of the logits' length along each, or of length 1.

    If `keep_classes` is a tuple, the kernel returns as many arrays.

    A Dask array stays lazy. Its classes are gathered into one chunk, so that each task holds whole rows, and the
    kernel runs on the chunks in the namespace of the library that holds them.
    """
    if not is_dask_array(logits):
        return kernel(xp, logits, *others, axes=axes, **options)

    def on_chunk(*chunk: Any) -> Any:
        return kernel(array_namespace(*chunk), *chunk, axes=axes, **options)

    def declared(keep: bool) -> dict[str, Any]:
        chunks = tuple((1,) if i in axes and not keep else sizes for i, sizes in enumerate(rows.chunks))
        return {"chunks": chunks, "dtype": rows.dtype, "meta": rows._meta}

    def aligned(array: Any) -> Any:
        return array.rechunk(
            tuple((1,) if n == 1 else sizes for n, sizes in zip(array.shape, rows.chunks, strict=True))
        )

    rows = logits.rechunk(dict.fromkeys(axes, -1))
    others = tuple(map(aligned, others))
    if isinstance(keep_classes, bool):
        return rows.map_blocks(on_chunk, *others, **declared(keep_classes))
    together = rows.map_blocks(on_chunk, *others, **declared(keep=True))
    return tuple(together.map_blocks(itemgetter(i), **declared(keep)) for i, keep in enumerate(keep_classes))
