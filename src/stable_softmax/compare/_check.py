"""Some of the KL divergences, compared with exact arithmetic."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stable_softmax.compare._tally import Tally
from stable_softmax.reference.divergences import exact_kl_divergence

#: How many examples at most, and how many logits in all, so that it takes a few seconds.
_EXAMPLES, _LOGITS = 10, 500_000


class Checked(NamedTuple):
    """How many examples were compared with exact arithmetic, and the largest relative errors; NaN of none."""

    examples: int
    ours: float
    usual: float


def checked(tally: Tally, watched: Callable[[NDArray[np.intp]], Iterable[int]]) -> Checked:
    """Compare some examples with exact arithmetic, from the smallest KL divergence above 0 to the largest.

    `watched` gives the places that it gets back one by one, as a progress bar does.
    """
    places = _sample(tally)
    if not len(places):
        return Checked(0, np.nan, np.nan)
    positions, kl, usual = tally.positions, tally.kl, tally.usual
    errors = []
    for place in watched(places):
        exact = exact_kl_divergence(*(rows[0] for rows in tally.pair.example(int(positions[place]))))
        errors.append(exact.error(np.asarray([kl[place], usual[place]])) / exact.nearest)
    ours, usually = np.max(errors, axis=0).tolist()
    return Checked(len(places), ours, usually)


def _sample(tally: Tally) -> NDArray[np.intp]:
    """Return places in the order of size that lie evenly among the divergences above 0."""
    above = np.flatnonzero(tally.kl > 0)
    most = max(1, min(_EXAMPLES, _LOGITS // tally.pair.logits.classes, len(above)))
    return above[np.linspace(0, len(above) - 1, most).astype(int)] if len(above) else above
