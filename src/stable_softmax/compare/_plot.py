"""A drawing of the KL divergences by their rank."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stable_softmax.command_line.pictures import OURS, USUAL, add_points, finish
from stable_softmax.compare._tally import Tally

LABEL = "KL divergences by their rank"
_DRAWN = 300
_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)


def fill(panel: Any, strip: Any, tally: Tally) -> None:
    """Draw KL divergences in a panel, and those that are 0 or negative in the strip below."""
    kl, usual = tally.kl, tally.usual
    places = _places(len(kl))
    shares = (places + 0.5) / max(len(kl), 1)
    for name, values, style in (("usual form", usual[places], USUAL), ("stable-softmax", kl[places], OURS)):
        add_points(panel, strip, shares, values, values <= 0, name, style)
    title = f"{len(places):,} of {len(kl):,} examples, KL computed in {tally.pair.working_dtype}"
    finish(panel, strip, title, "KL(reference || logits) in nats", "0 or negative", "examples with a smaller KL")
    # Both tails in full: the largest thousandth has as much room as the middle.
    panel.set_xscale("logit")
    edge = 0.25 / max(len(kl), 1)
    ticks = [share for share in _TICKS if edge < share < 1 - edge]
    strip.set_xticks(ticks, [f"{share * 100:g} %" for share in ticks])
    strip.set_xticks([], minor=True)
    strip.set_xlim(edge, 1 - edge)
    panel.legend(loc="upper left")


def _places(count: int) -> NDArray[np.intp]:
    """Return ranks that lie evenly on a logit axis."""
    if not count:
        return np.arange(0)
    end = np.log(2 * count - 1)
    shares = 1 / (1 + np.exp(-np.linspace(-end, end, _DRAWN)))
    return np.unique(np.clip(np.floor(shares * count), 0, count - 1).astype(np.intp))
