"""A drawing of the losses against the lead of the label."""

import io
import re
from typing import Any

import numpy as np

from stable_softmax.audit._tally import Losses, Tally
from stable_softmax.report._output import required

_SETTINGS = {"font.size": 12, "svg.hashsalt": "stable-softmax", "axes.spines.top": False, "axes.spines.right": False}
# The one is filled and the other is not, so that they can be told apart without colour.
_OURS = {"marker": "o", "markersize": 7, "color": "#0072B2", "markerfacecolor": "none", "linestyle": "none"}
_USUAL = {"marker": "x", "markersize": 6, "color": "#D55E00", "linestyle": "none"}


def drawn(tally: Tally, kind: str) -> bytes:
    """Draw the losses of some examples, as a file of a kind; on white, which stands out from a dark page as well."""
    matplotlib = required("matplotlib", "plot", "a plot")
    figures = required("matplotlib.figure", "plot", "a plot")
    content = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS):
        figure = figures.Figure(figsize=(8, 5.5), layout="constrained", facecolor="white")
        panel, strip = figure.subplots(2, 1, sharex=True, height_ratios=(6, 1))
        _fill(panel, strip, tally)
        figure.savefig(content, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()


def inline_svg(tally: Tally) -> str:
    """Draw for a page of HTML."""
    drawing = drawn(tally, "svg").decode()
    label = '<svg role="img" aria-label="Losses against the lead of the label" '
    return re.sub(r"^.*?<svg ", label, drawing, count=1, flags=re.DOTALL)


def _fill(panel: Any, strip: Any, tally: Tally) -> None:
    """Draw losses in a panel, on a logarithmic axis, and those that are exactly 0 in a strip below."""
    losses = _with_lead(tally.drawn)
    for name, values, style in (("stable-softmax", losses.ours, _OURS), ("usual form", losses.usual, _USUAL)):
        zero = values == 0
        panel.plot(losses.leads[~zero], values[~zero], label=name, **style)
        strip.plot(losses.leads[zero], np.zeros(np.count_nonzero(zero)), **style)
    panel.set(yscale="log", ylabel="loss in nats")
    strip.set(
        yticks=[0], yticklabels=["exactly 0"], ylim=(-1, 1), xlabel="lead of the label over the largest other logit"
    )
    panel.set_title(
        f"{len(losses.leads):,} of {tally.totals['examples']:,} examples, {tally.examples.dtype}", fontsize=12
    )
    panel.grid(color="0.9")
    strip.grid(axis="x", color="0.9")
    panel.legend(loc="upper right")


def _with_lead(losses: Losses) -> Losses:
    finite = np.isfinite(losses.leads)
    return Losses(*(values[finite] for values in losses))
