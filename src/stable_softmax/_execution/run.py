"""Runs a kernel on logits in memory, or chunk by chunk."""

from collections.abc import Callable
from itertools import repeat
from typing import Any

from stable_softmax._core.kernel import Kernel
from stable_softmax._core.layout import Layout, Result
from stable_softmax._execution.blocks import run_in_memory
from stable_softmax._execution.rows import sum_of_all
from stable_softmax._libraries.standard import Library


def run(
    kernel: Kernel, lib: Library, layout: Layout, logits: Any, operands: Any, rows: Result = "examples"
) -> tuple[Any, ...]:
    """Return the results of a kernel, in the dtype of the result.

    `rows` is the shape of results with one entry for each row. The operands are a tree: arrays that have as many
    dimensions as the logits and broadcast against them, and other values, which every block and chunk gets unchanged.
    """
    return lib.in_silence(_results, kernel, lib, layout, logits, operands, kernel.results[rows])


def _results(
    kernel: Kernel, lib: Library, layout: Layout, logits: Any, operands: Any, results: tuple[Result, ...]
) -> tuple[Any, ...]:
    if lib.has_chunks:
        from stable_softmax._execution import chunks

        values = chunks.run_on_chunks(kernel, layout, logits, operands, results)
    else:
        values = run_in_memory(kernel, lib, layout, logits, operands, results)
    return tuple(map(_finished, repeat(lib), repeat(layout), values, results))


def apply(function: Callable[..., Any], lib: Library, *operands: Any, like: Any = None) -> Any:
    """Return `function(lib, *operands)`, chunk by chunk where arrays have chunks, aligned with those of the first.

    The result is an array, or a tree with arrays where `like` has some.
    """
    if lib.has_chunks:
        from stable_softmax._execution import chunks

        return chunks.apply_to_chunks(function, operands, like)
    return lib.in_silence(function, lib, *operands)


def total(lib: Library, values: Any) -> Any:
    """Return the sum of all values as a 0-d array."""
    return lib.in_silence(_total, lib, values)


def _total(lib: Library, values: Any) -> Any:
    if lib.has_chunks:
        from stable_softmax._execution import chunks

        return chunks.total_of_chunks(values)
    return sum_of_all(lib, values, ())


def _finished(lib: Library, layout: Layout, value: Any, result: Result) -> Any:
    if result == "total":
        value = _total(lib, value)
    elif result == "examples":
        value = lib.squeeze(value, layout.axes)
    if value.dtype != layout.dtype:
        value = lib.convert(value, layout.dtype)
    return value if value.ndim else lib.result(value)
