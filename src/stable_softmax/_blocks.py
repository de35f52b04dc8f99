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
    *class_ids: Any,
    axes: tuple[int, ...],
    keep_classes: bool | tuple[bool, ...],
) -> Any:
    """Return `kernel(xp, logits, *class_ids)`, which keeps the class axes `axes`, or reduces them to length 1.

    If `keep_classes` is a tuple, the kernel returns as many arrays.

    A Dask array stays lazy. Its classes are gathered into one chunk, so that each task holds whole rows, and the
    kernel runs on the chunks in the namespace of the library that holds them.
    """
    if not is_dask_array(logits):
        return kernel(xp, logits, *class_ids)

    def on_chunk(*chunk: Any) -> Any:
        return kernel(array_namespace(*chunk), *chunk)

    def declared(keep: bool) -> dict[str, Any]:
        chunks = tuple((1,) if i in axes and not keep else sizes for i, sizes in enumerate(rows.chunks))
        return {"chunks": chunks, "dtype": rows.dtype, "meta": rows._meta}

    rows = logits.rechunk(dict.fromkeys(axes, -1))
    if isinstance(keep_classes, bool):
        return rows.map_blocks(on_chunk, *class_ids, **declared(keep_classes))
    together = rows.map_blocks(on_chunk, *class_ids, **declared(keep=True))
    return tuple(together.map_blocks(itemgetter(i), **declared(keep)) for i, keep in enumerate(keep_classes))
