"""Kernels: functions of rows of logits, from whole rows or from the pieces of a row in several chunks."""

from collections.abc import Callable
from typing import Any, NamedTuple

from stable_softmax._core.layout import Result


class Pieces(NamedTuple):
    """How a kernel works on rows whose classes lie in several pieces, none of them empty."""

    #: (lib, logits, operands, axes=, first_class=) -> a part: arrays of length 1 along the class axis.
    part: Callable[..., Any]
    #: (lib, part, part) -> the part of both pieces.
    merged: Callable[..., Any]
    #: (lib, part, operands, axes=) -> the results with one entry for each row. Operands with an entry for each class
    #: are passed as None.
    rows: Any = None
    #: (lib, logits, part, operands, axes=, first_class=) -> the result with one entry for each class.
    entries: Any = None


class Kernel:
    """A function of rows of logits and of operands: a tree of further arguments, such as the criterion.

    All functions get the library of the arrays, and the logits in the dtype of the computation.
    """

    def __init__(
        self, whole: Callable[..., Any], *results: Result, pieces: Pieces | None = None, block_divisor: int = 1
    ) -> None:
        #: (lib, logits, operands, axes=, into=) -> one array, or a tuple of several results. The result with one
        #: entry for each class may be written into the memory `into`.
        self.whole = whole
        #: Shapes of the results, by the shape that results with one entry for each row are to have.
        self.results: dict[Result, tuple[Result, ...]] = {
            rows: tuple([rows if result == "rows" else result for result in results])
            for rows in ("rows", "examples", "total")
        }
        self.pieces = pieces
        #: By how much blocks should be smaller than the library's usual ones, where there are many temporary arrays.
        self.block_divisor = block_divisor
        #: The same kernel without pieces.
        self.on_whole_rows = self if pieces is None else Kernel(whole, *results, block_divisor=block_divisor)
