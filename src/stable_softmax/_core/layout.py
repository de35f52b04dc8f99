"""What is known of logits without their values, and which parts of them are worked on together."""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any, Literal, NamedTuple, TypeAlias

#: What a result has: the shape of the logits; or length 1 along the class axes, which are kept ("rows") or not
#: ("examples"); or it is the sum of the latter.
Result: TypeAlias = Literal["classes", "rows", "examples", "total"]
Block: TypeAlias = tuple[slice, ...]

# Below, dividing the work would cost more than it saves.
_SMALL = 4096
# Of the dtype that the work is done in.
BLOCK_BYTES = 3 << 19


class Layout(NamedTuple):
    """What the shape and dtype of logits, and the arguments about them, come to."""

    shape: tuple[int, ...]
    #: That hold the classes.
    axes: tuple[int, ...]
    #: The dtype that the work is done in.
    working: Any
    #: Of the result.
    dtype: Any

    @property
    def has_classes(self) -> bool:
        """Whether there is any class."""
        return not any(self.shape[axis] == 0 for axis in self.axes)


def is_large(layout: Layout) -> bool:
    """Whether logits are worth working on in parts."""
    return math.prod(layout.shape) > _SMALL


def blocks_of(layout: Layout, strides: tuple[int, ...], factor: int = 1) -> Iterator[Block]:
    """Yield the indices of blocks of whole rows, near each other in memory, and so many times the usual size."""
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
    """Return what a block has of an array, which may have length 1 where the logits have not."""
    return array[tuple(slice(None) if length == 1 else cut for length, cut in zip(array.shape, block, strict=True))]


def is_short(layout: Layout, strides: tuple[int, ...], length: int) -> bool:
    """Whether rows have up to so many classes, which are nearest each other in memory."""
    if len(layout.axes) > 1 or layout.shape[layout.axes[0]] > length:
        return False
    smallest = min(abs(stride) for stride, length in zip(strides, layout.shape, strict=True) if length > 1)
    return abs(strides[layout.axes[0]]) == smallest


def _off_powers_of_two(rows: int) -> int:
    """Return nearly as many: columns that are a power of two apart would share few places of the nearest cache."""
    return rows if rows < 64 else rows // 32 * 32 - 16
