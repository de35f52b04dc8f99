"""A drawing of values on a logarithmic axis, with a strip below for those that such an axis cannot show."""

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stable_softmax.command_line.output import required

#: Draws in a panel, and in the strip below it.
Drawing = Callable[[Any, Any], None]

_SETTINGS = {"font.size": 12, "svg.hashsalt": "stable-softmax", "axes.spines.top": False, "axes.spines.right": False}
# The one is filled and the other is not, so that they can be told apart without colour.
OURS = {"marker": "o", "markersize": 7, "color": "#0072B2", "markerfacecolor": "none", "linestyle": "none"}
USUAL = {"marker": "x", "markersize": 6, "color": "#D55E00", "linestyle": "none"}


def drawn(drawing: Drawing, kind: str) -> bytes:
    """Draw as a file of a kind; on white, which stands out from a dark page as well."""
    matplotlib = required("matplotlib", "plot", "a plot")
    figures = required("matplotlib.figure", "plot", "a plot")
    content = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS):
        figure = figures.Figure(figsize=(8, 5.5), layout="constrained", facecolor="white")
        panel, strip = figure.subplots(2, 1, sharex=True, height_ratios=(6, 1))
        drawing(panel, strip)
        figure.savefig(content, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()


def inline_svg(drawing: Drawing, label: str) -> str:
    """Draw for a page of HTML."""
    picture = drawn(drawing, "svg").decode()
    return re.sub(r"^.*?<svg ", f'<svg role="img" aria-label="{label}" ', picture, count=1, flags=re.DOTALL)


def add_points(
    panel: Any,
    strip: Any,
    places: NDArray[Any],
    values: NDArray[Any],
    in_strip: NDArray[np.bool],
    name: str,
    style: dict[str, Any],
) -> None:
    """Draw values in the panel, and some of them in the strip."""
    panel.plot(places[~in_strip], values[~in_strip], label=name, **style)
    strip.plot(places[in_strip], np.zeros(np.count_nonzero(in_strip)), **style)


def finish(panel: Any, strip: Any, title: str, quantity: str, strip_means: str, along: str) -> None:
    """Name the axes of a panel whose values are logarithmic and of its strip, and add grid and legend."""
    panel.set(yscale="log", ylabel=quantity)
    strip.set(yticks=[0], yticklabels=[strip_means], ylim=(-1, 1), xlabel=along)
    panel.set_title(title, fontsize=12)
    panel.grid(color="0.9")
    strip.grid(axis="x", color="0.9")
