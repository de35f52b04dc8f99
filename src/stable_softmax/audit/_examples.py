"""Logits and labels as blocks of examples."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stable_softmax.command_line.blocks import Logits, fitting_axes, taken
from stable_softmax.command_line.files import Stored
from stable_softmax.command_line.output import UnusableError


class Example(NamedTuple):
    """Where an example is, in C order, and its label."""

    position: int
    label: int


class Block(NamedTuple):
    """Some examples."""

    #: Where they are, in C order.
    positions: NDArray[Any]
    #: (examples, classes), in the dtype that losses are computed in.
    logits: NDArray[Any]
    #: (examples,), of any integer dtype.
    labels: NDArray[Any]

    def only(self, places: NDArray[Any]) -> "Block":
        """Return the block with some of its examples."""
        return Block(*(values[places] for values in self))

    def example(self, place: int) -> Example:
        """Return one of the examples."""
        return Example(int(self.positions[place]), int(self.labels[place]))


@dataclass(frozen=True)
class Examples:
    """Logits and labels that belong together."""

    logits: Logits
    labels: Stored

    def blocks(self) -> Iterator[Block]:
        """Read the examples, in order."""
        first = 0
        for pieces in self.logits.pieces(self.logits.chunks):
            rows = self.logits.rows(pieces, self.logits.working_dtype)
            positions = np.arange(first, first + len(rows))
            yield Block(positions, rows, self.labels.read(*pieces).reshape(-1))
            first += len(rows)


def paired(stored: Stored, labels: Stored, axis: int, dtype: str | None) -> Examples:
    """Check that logits and labels fit each other, and put them together."""
    if stored.dtype.kind in "iu" and labels.dtype.kind not in "iu" and fitting_axes(labels.shape, stored.shape):
        raise UnusableError(f"{stored.name} and {labels.name} are swapped: pass the logits first, then the labels")
    logits = taken(stored, axis, dtype)
    if labels.dtype.kind not in "iu":
        raise UnusableError(f"{labels.name}: labels must be class ids of an integer dtype, not {labels.dtype}")
    if labels.shape != logits.shape:
        raise UnusableError(
            f"{labels.name}: the labels of logits {stored.shape} must have the shape {logits.shape}, "
            f"not {labels.shape}{_remedy(stored.shape, labels.shape)}"
        )
    return Examples(logits, labels)


def _remedy(logits: tuple[int, ...], labels: tuple[int, ...]) -> str:
    if logits == labels:
        return "; an example has a logit for each class, and one label"
    fitting = fitting_axes(logits, labels)
    if not fitting and fitting_axes(labels, logits):
        return "; are the files swapped? The logits come first"
    return f"; they would fit --axis {fitting[0]}" if fitting else ""
