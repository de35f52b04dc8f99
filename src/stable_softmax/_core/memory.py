"""Memory of temporary arrays, which is to be used again."""

from functools import cache

import numpy as np

from stable_softmax._core.layout import BLOCK_BYTES


@cache
def keep_freed_memory(factor: int) -> None:
    """Make the C library keep the memory of a block's temporary arrays for the next block.

    glibc returns freed memory to the system beyond twice the largest piece that was freed before, pieces of more than
    32 MiB aside. In a new process, that is less than a few blocks, and new pages then take several times as long as the
    computation.
    """
    np.empty(min(8 * factor * BLOCK_BYTES, 31 << 20), dtype=np.uint8)  # never touched, and freed at once
