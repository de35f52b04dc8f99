"""Logits in a file as blocks of rows, one row for each example, rounded to a dtype."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stable_softmax.command_line.files import Stored
from stable_softmax.command_line.output import UnusableError
from stable_softmax.reference.bounds import PRECISIONS, rounded

#: How many logits a block has, 16 MiB in float64; a row is never cut.
BLOCK_ENTRIES = 1 << 21

#: One slice for each axis of the examples.
Pieces = tuple[slice, ...]


@dataclass(frozen=True)
class Logits:
    """Logits in a file, and how to take them."""

    stored: Stored
    #: Where the classes are, at least 0.
    axis: int
    #: What the logits are rounded to.
    dtype: str

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.stored.shape[self.axis]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the examples: that of the logits without the axis of the classes."""
        return without(self.stored.shape, self.axis)

    @property
    def count(self) -> int:
        """The number of examples."""
        return math.prod(self.shape)

    @property
    def working_dtype(self) -> str:
        """The dtype to compute in: float32 for narrower logits, as autocast does it."""
        return "float64" if self.dtype == "float64" else "float32"

    @property
    def coarsest_dtype(self) -> str:
        """The dtype with the fewest bits that the logits have gone through, as far as the file tells."""
        return min(self.dtype, _floating(self.stored.dtype), key=lambda name: PRECISIONS[name].significant_bits)

    @property
    def chunks(self) -> tuple[int, ...]:
        """The lengths of the pieces that the examples are stored in."""
        return without(getattr(self.stored.values, "chunks", (1,) * len(self.stored.shape)), self.axis)

    def pieces(self, chunks: tuple[int, ...]) -> Iterator[Pieces]:
        """Cut the examples, in C order, into blocks, where possible at the bounds of chunks."""
        return _runs(self.shape, max(1, BLOCK_ENTRIES // self.classes), chunks)

    def rows(self, pieces: Pieces, working_dtype: str) -> NDArray[Any]:
        """Read some examples as (examples, classes), rounded to the dtype, in the dtype to compute in."""
        part = self.stored.read(*pieces[: self.axis], slice(None), *pieces[self.axis :])
        rows = np.moveaxis(part, self.axis, -1).reshape(-1, self.classes)
        with np.errstate(over="ignore"):  # what is beyond the range is infinite
            return rounded(rows, self.dtype).astype(working_dtype, copy=False)

    def index(self, position: int) -> tuple[int, ...]:
        """Return where an example is, by its position in C order."""
        return tuple(map(int, np.unravel_index(position, self.shape)))

    def place(self, position: int) -> str:
        """Return the index of an example as one writes it."""
        index = self.index(position)
        return str(index[0]) if len(index) == 1 else str(index)

    def once_rounded(self) -> str:
        """Say that the logits are not those of the file, where they are not."""
        return "" if self.dtype == _floating(self.stored.dtype) else f" once rounded to {self.dtype}"

    def dtype_in_words(self) -> str:
        """Say which dtype is stored, and which one the logits are rounded to."""
        stored = self.stored.dtype.name
        return stored if stored == self.dtype else f"{stored}, taken as {self.dtype}"


def taken(stored: Stored, axis: int, dtype: str | None) -> Logits:
    """Check that an array can be logits, and say how to take it."""
    if _floating(stored.dtype) not in PRECISIONS:
        accepted = ", ".join(PRECISIONS)
        hint = "; NumPy's files do not keep bfloat16, safetensors do" if stored.dtype == "V2" else ""
        raise UnusableError(f"{stored.name}: logits must be {accepted} or integers, not {stored.dtype}{hint}")
    dimensions = len(stored.shape)
    if not -dimensions <= axis < dimensions:
        raise UnusableError(f"{stored.name}: there is no axis {axis} in the shape {stored.shape}")
    axis %= dimensions
    if stored.shape[axis] == 0:
        raise UnusableError(f"{stored.name}: there are no classes along axis {axis} of the shape {stored.shape}")
    return Logits(stored, axis, dtype or _floating(stored.dtype))


def without(lengths: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """Leave out the length of an axis."""
    return lengths[:axis] + lengths[axis + 1 :]


def fitting_axes(logits: tuple[int, ...], labels: tuple[int, ...]) -> list[int]:
    """Return the axes that may hold the classes, by the shapes of logits and labels."""
    return [axis for axis in range(len(logits)) if without(logits, axis) == labels]


def _floating(dtype: np.dtype[Any]) -> str:
    """Return the name of the dtype in which the library has logits of a dtype."""
    return "float64" if dtype.kind in "iu" else dtype.name


def _runs(shape: tuple[int, ...], most: int, chunks: tuple[int, ...]) -> Iterator[Pieces]:
    """Cut an array, in C order, into pieces of at most `most` entries, where possible at the bounds of chunks."""
    cut, inner = len(shape), 1
    while cut and inner * shape[cut - 1] <= most:
        cut -= 1
        inner *= shape[cut]
    whole = (slice(None),) * (len(shape) - cut)
    if not cut:
        yield whole
        return
    step = most // inner
    step -= step % chunks[cut - 1] if step > chunks[cut - 1] else 0
    for outer in np.ndindex(shape[: cut - 1]):
        for start in range(0, shape[cut - 1], step):
            yield (*(slice(i, i + 1) for i in outer), slice(start, min(start + step, shape[cut - 1])), *whole)
