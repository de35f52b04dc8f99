"""A drawing of the losses against the lead of the label."""

from typing import Any

import numpy as np

from stable_softmax.audit._tally import Losses, Tally
from stable_softmax.command_line.pictures import OURS, USUAL, add_points, finish

LABEL = "Losses against the lead of the label"


def fill(panel: Any, strip: Any, tally: Tally) -> None:
    """Draw the losses of some examples in a panel, and those that are exactly 0 in the strip below."""
    losses = _with_lead(tally.drawn)
    for name, values, style in (("stable-softmax", losses.ours, OURS), ("usual form", losses.usual, USUAL)):
        add_points(panel, strip, losses.leads, values, values == 0, name, style)
    title = f"{len(losses.leads):,} of {tally.totals['examples']:,} examples, {tally.examples.logits.dtype}"
    finish(panel, strip, title, "loss in nats", "exactly 0", "lead of the label over the largest other logit")
    panel.legend(loc="upper right")


def _with_lead(losses: Losses) -> Losses:
    finite = np.isfinite(losses.leads)
    return Losses(*(values[finite] for values in losses))
