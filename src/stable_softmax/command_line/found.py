"""Kinds of examples, how many there are of each and the first of them; values that are off."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from stable_softmax.command_line.files import Stored
from stable_softmax.reference.bounds import PRECISIONS

#: How many are kept of a kind.
_FIRST = 5

#: A value is off if its error is more than this share.
TOLERANCE = 0.01
#: How far from 1 the sums of probabilities may be, whatever their dtype is.
_SUM_TOLERANCE = 1e-3

E = TypeVar("E")


@dataclass
class Found(Generic[E]):
    """How many examples of a kind there are, and the first of them."""

    count: int = 0
    first: list[E] = field(default_factory=list)

    def add(self, where: NDArray[Any], example: Callable[[int], E]) -> None:
        """Count the examples of a block that are of the kind; `example` makes one of its place in the block."""
        places = np.flatnonzero(where)
        self.count += len(places)
        self.first += [example(place) for place in places[: _FIRST - len(self.first)].tolist()]


def is_off(values: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.bool]:
    """Return where values are off."""
    return np.asarray(np.abs(values - reference) > TOLERANCE * np.abs(reference))


def like_probabilities(rows: NDArray[Any], dtype: str) -> NDArray[np.bool]:
    """Return which rows look like probabilities that a dtype has rounded: of several classes, none below 0, sum 1."""
    if rows.shape[1] == 1:  # whose logit may well be 1
        return np.zeros(len(rows), dtype=np.bool)
    allowed = max(_SUM_TOLERANCE, 4 * PRECISIONS[dtype].unit_roundoff)
    places = np.flatnonzero(rows.min(axis=1) >= 0)
    found = np.zeros(len(rows), dtype=np.bool)
    found[places] = np.abs(rows[places].sum(axis=1, dtype=np.float64) - 1) <= allowed
    return found


def probabilities_in_words(whose: str, count: int, rows: int) -> list[str]:
    """Say whether most of the rows are probabilities: a few may look so by chance."""
    if 2 * count <= rows:
        return []
    return [
        f"{whose} that look like probabilities, with the sum 1: {count:,} of {rows:,}; save what goes into the softmax"
    ]


def gaps(name: str, stored: Stored) -> list[str]:
    """Say whether a Zarr array lacks chunks, as after a job that was broken off."""
    return [f"chunks of the {name} that are not stored, but filled in: {stored.gaps:,}"] if stored.gaps else []
