"""What is computed of rows of logits: from whole rows, or from the pieces of them that lie in several chunks."""

from collections.abc import Callable
from typing import Any, NamedTuple

from stable_softmax._core.layout import Result


class Pieces(NamedTuple):
    """How a kernel works where the classes of a row lie in several pieces, none of them empty."""

    #: (lib, logits, operands, axes=, first_class=) -> a part, with arrays of length 1 along the class axis.
    part: Callable[..., Any]
    #: (lib, part, part) -> the part that they are together.
    merged: Callable[..., Any]
    #: (lib, part, operands, axes=) -> what the kernel returns for each row. Of operands with an entry for each class
    #: and example, it gets None.
    rows: Any = None
    #: (lib, logits, part, operands, axes=, first_class=) -> what the kernel returns for each class.
    entries: Any = None


class Kernel:
    """A function of rows of logits and of operands: a tree of what goes with the logits, such as the criterion.

    All functions get the library that the arrays are of, and the logits in the dtype that the work is done in.
    """

    def __init__(self, whole: Callable[..., Any], *results: Result, pieces: Pieces | None = None) -> None:
        #: (lib, logits, operands, axes=, into=) -> an array, or a tuple of them if there are several results. The one
        #: with an entry for each class may be returned in given memory.
        self.whole = whole
        #: "rows" or "classes", by what becomes of those with an entry for each row.
        self.results: dict[Result, tuple[Result, ...]] = {
            rows: tuple([rows if result == "rows" else result for result in results])
            for rows in ("rows", "examples", "total")
        }
        self.pieces = pieces
        #: The same, but for pieces.
        self.on_whole_rows = self if pieces is None else Kernel(whole, *results)
