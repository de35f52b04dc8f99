"""Layout of logits: what is known without their values, and the blocks that they are processed in."""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any, Literal, NamedTuple, TypeAlias

#: Shape of a result: "classes", one entry for each logit; "rows", class axes of length 1; "examples", without them;
#: "total", their sum.
Result: TypeAlias = Literal["classes", "rows", "examples", "total"]
Block: TypeAlias = tuple[slice, ...]

# Arrays of at most this many elements are processed whole.
SMALL = 4096
# Memory of a block's logits in the dtype of the computation.
BLOCK_BYTES = 3 << 19


class Layout(NamedTuple):
    """Shape of logits, their class axes, and the dtypes of the computation and of the result."""

    shape: tuple[int, ...]
    #: The class axes.
    axes: tuple[int, ...]
    #: The dtype of the computation.
    working: Any
    #: The dtype of the result.
    dtype: Any

    @property
    def has_classes(self) -> bool:
        """Whether rows have at least one class."""
        return not any(self.shape[axis] == 0 for axis in self.axes)


def blocks_of(layout: Layout, strides: tuple[int, ...], factor: int = 1) -> Iterator[Block]:
    """Yield the indices of blocks of whole rows close together in memory, `factor` times as large as usual."""
    shape, steps = layout.shape, list(layout.shape)
    elements = factor * BLOCK_BYTES // layout.working.itemsize
    size = math.prod(shape)
    for axis in sorted(set(range(len(shape))) - set(layout.axes), key=lambda i: -abs(strides[i])):
        size //= shape[axis]
        steps[axis] = min(shape[axis], _off_powers_of_two(max(1, elements // size)))
        if steps[axis] > 1:
            break
    return product(
        *([slice(i, i + step) for i in range(0, length, step)] for length, step in zip(shape, steps, strict=True))
    )


def block_of(array: Any, block: Block) -> Any:
    """Return a block of an array, which may have length 1 along axes where the logits do not."""
    return array[tuple(slice(None) if length == 1 else cut for length, cut in zip(array.shape, block, strict=True))]


def is_short(layout: Layout, strides: tuple[int, ...], length: int) -> bool:
    """Whether rows have at most `length` classes, and these are closest together in memory."""
    if len(layout.axes) > 1 or layout.shape[layout.axes[0]] > length:
        return False
    smallest = min(abs(stride) for stride, length in zip(strides, layout.shape, strict=True) if length > 1)
    return abs(strides[layout.axes[0]]) == smallest


def _off_powers_of_two(rows: int) -> int:
    """Return nearly as many rows: columns a power of two apart would share few sets of the first-level cache."""
    return rows if rows < 64 else rows // 32 * 32 - 16
