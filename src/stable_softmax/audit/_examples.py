"""Logits and labels as blocks of examples, rounded to a dtype."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stable_softmax.audit._files import Stored
from stable_softmax.reference.bounds import PRECISIONS, rounded
from stable_softmax.report._output import UnusableError

#: How many logits a block has, 16 MiB in float64; a row is never cut.
BLOCK_ENTRIES = 1 << 21


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

    logits: Stored
    labels: Stored
    #: Where the classes are, at least 0.
    axis: int
    #: What the logits are rounded to.
    dtype: str

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.logits.shape[self.axis]

    @property
    def count(self) -> int:
        """The number of examples."""
        return prod(self.labels.shape)

    @property
    def working_dtype(self) -> str:
        """The dtype that losses are computed in: float32 for narrower logits, as autocast does it."""
        return "float64" if self.dtype == "float64" else "float32"

    @property
    def keeps_dtype(self) -> bool:
        """Whether the logits have the dtype that they are stored in."""
        return self.dtype == _floating(self.logits.dtype)

    @property
    def coarsest_dtype(self) -> str:
        """The dtype with the fewest bits that the logits have gone through, as far as the file tells."""
        return min(self.dtype, _floating(self.logits.dtype), key=lambda name: PRECISIONS[name].significant_bits)

    def index(self, position: int) -> tuple[int, ...]:
        """Return where an example's label is."""
        return tuple(map(int, np.unravel_index(position, self.labels.shape)))

    def blocks(self) -> Iterator[Block]:
        """Read the examples, in order."""
        first = 0
        for pieces in _runs(self.labels.shape, max(1, BLOCK_ENTRIES // self.classes), self._chunks()):
            part = self.logits.read(*pieces[: self.axis], slice(None), *pieces[self.axis :])
            rows = np.moveaxis(part, self.axis, -1).reshape(-1, self.classes)
            labels = self.labels.read(*pieces).reshape(-1)
            positions = np.arange(first, first + len(labels))
            yield Block(positions, rounded(rows, self.dtype).astype(self.working_dtype, copy=False), labels)
            first += len(labels)

    def _chunks(self) -> tuple[int, ...]:
        """Return the lengths of the pieces that the logits are stored in, without that of the classes."""
        chunks = getattr(self.logits.values, "chunks", (1,) * len(self.logits.shape))
        return (*chunks[: self.axis], *chunks[self.axis + 1 :])


def paired(logits: Stored, labels: Stored, axis: int, dtype: str | None) -> Examples:
    """Check that logits and labels fit each other, and put them together."""
    if _floating(logits.dtype) not in PRECISIONS:
        accepted = ", ".join(PRECISIONS)
        hint = "; NumPy's files do not keep bfloat16, safetensors do" if logits.dtype == "V2" else ""
        raise UnusableError(f"{logits.name}: logits must be {accepted} or integers, not {logits.dtype}{hint}")
    if labels.dtype.kind not in "iu":
        raise UnusableError(f"{labels.name}: labels must be class ids of an integer dtype, not {labels.dtype}")
    dimensions = len(logits.shape)
    if not -dimensions <= axis < dimensions:
        raise UnusableError(f"{logits.name}: there is no axis {axis} in the shape {logits.shape}")
    axis %= dimensions
    if logits.shape[axis] == 0:
        raise UnusableError(f"{logits.name}: there are no classes along axis {axis} of the shape {logits.shape}")
    if labels.shape != _without(logits.shape, axis):
        raise UnusableError(
            f"{labels.name}: the labels of logits {logits.shape} must have the shape {_without(logits.shape, axis)}, "
            f"not {labels.shape}{_remedy(logits.shape, labels.shape)}"
        )
    return Examples(logits, labels, axis, dtype or _floating(logits.dtype))


def _floating(dtype: np.dtype[Any]) -> str:
    """Return the name of the dtype in which the library has logits of a dtype."""
    return "float64" if dtype.kind in "iu" else dtype.name


def _runs(shape: tuple[int, ...], most: int, chunks: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
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


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _remedy(logits: tuple[int, ...], labels: tuple[int, ...]) -> str:
    if logits == labels:
        return "; an example has a logit for each class, and one label"
    fitting = [axis for axis in range(len(logits)) if _without(logits, axis) == labels]
    return f"; they would fit --axis {fitting[0]}" if fitting else ""
