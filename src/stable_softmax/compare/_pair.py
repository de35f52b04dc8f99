"""Logits and reference logits as blocks of examples."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stable_softmax.command_line.blocks import Logits, Pieces, fitting_axes, taken
from stable_softmax.command_line.files import Stored
from stable_softmax.command_line.output import UnusableError


class Block(NamedTuple):
    """Some examples."""

    #: Where they are, in C order.
    positions: NDArray[Any]
    #: (examples, classes), both in the dtype to compute in.
    logits: NDArray[Any]
    reference: NDArray[Any]
    #: Which of them count.
    included: NDArray[np.bool]

    def only(self, places: NDArray[Any]) -> "Block":
        """Return the block with some of its examples."""
        return Block(*(values[places] for values in self))

    def position(self, place: int) -> int:
        """Return where an example of the block is."""
        return int(self.positions[place])


@dataclass(frozen=True)
class Pair:
    """Two files of logits for the same examples."""

    logits: Logits
    reference: Logits
    #: Which examples count; without it, all do.
    where: Stored | None

    @property
    def working_dtype(self) -> str:
        """The dtype to compute in: the wider one of both."""
        return "float64" if "float64" in (self.logits.dtype, self.reference.dtype) else "float32"

    def blocks(self) -> Iterator[Block]:
        """Read the examples, in order."""
        chunks = tuple(map(math.lcm, self.logits.chunks, self.reference.chunks))
        first = 0
        for pieces in self.logits.pieces(chunks):
            logits, reference = self.rows(pieces)
            yield Block(np.arange(first, first + len(logits)), logits, reference, self._included(pieces, len(logits)))
            first += len(logits)

    def rows(self, pieces: Pieces) -> tuple[NDArray[Any], NDArray[Any]]:
        """Read some examples of both files, in the dtype to compute in."""
        return self.logits.rows(pieces, self.working_dtype), self.reference.rows(pieces, self.working_dtype)

    def example(self, position: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Read one example of both files, as arrays of one row."""
        return self.rows(tuple(slice(i, i + 1) for i in self.logits.index(position)))

    def _included(self, pieces: Pieces, count: int) -> NDArray[np.bool]:
        if self.where is None:
            return np.ones(count, dtype=np.bool)
        values = self.where.read(*pieces).reshape(-1)
        others = values[(values != 0) & (values != 1)]
        if len(others):
            raise UnusableError(f"{self.where.name}: a mask of examples holds 0 and 1 or booleans, not {others[0]}")
        return values.astype(np.bool)


def paired(stored: Stored, reference: Stored, where: Stored | None, axis: int, dtype: str | None) -> Pair:
    """Check that the files fit each other, and put them together; `dtype` is for the logits alone."""
    if stored.shape != reference.shape:
        raise UnusableError(
            f"{stored.name} and {reference.name} must have the same shape, not {stored.shape} and {reference.shape}"
            f"{_remedy(stored, reference)}"
        )
    pair = Pair(taken(stored, axis, dtype), taken(reference, axis, None), where)
    if where and where.dtype.kind not in "biu":
        raise UnusableError(f"{where.name}: a mask of examples must be boolean or 0 and 1, not {where.dtype}")
    if where and where.shape != pair.logits.shape:
        raise UnusableError(
            f"{where.name}: a mask of the examples of logits {stored.shape} must have the shape {pair.logits.shape}, "
            f"not {where.shape}"
        )
    return pair


def _remedy(stored: Stored, reference: Stored) -> str:
    """Say how logits and labels are compared, if one of the files looks like labels."""
    for logits, labels in ((stored, reference), (reference, stored)):
        if labels.dtype.kind in "iu" and fitting_axes(logits.shape, labels.shape):
            return f"; {labels.name} looks like labels: stable-softmax audit {logits.name} {labels.name}"
    return ""
