"""Draws training loss and test accuracy against steps, from the runs of `benchmarks.collapse`."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

# Okabe and Ito's colours, which colour-blind people tell apart; dashes and markers do it without any colour.
STYLES = {
    "usual float32": {"color": "#D55E00", "marker": "s", "linestyle": "--", "label": "usual loss, float32"},
    "ours float32": {"color": "#000000", "marker": "o", "label": "stable-softmax, float32"},
    "usual float64": {"color": "#0072B2", "marker": "^", "linestyle": ":", "label": "usual loss, float64"},
    "StableMax float32": {"color": "#009E73", "marker": "D", "linestyle": "-.", "label": "StableMax, float32"},
}
LAYOUT = {"font.size": 17, "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 2.5}


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Draw the median of the seeds, and from the least to the largest of them."""
    smallest = min(value for run in runs for value in run["records"]["train loss"] if value > 0)
    # The power of ten that stands for 0, which has no place on a logarithmic axis.
    zero = int(np.floor(np.log10(smallest))) - 2
    with mpl.rc_context(LAYOUT):
        figure, (loss, accuracy) = plt.subplots(1, 2, figsize=(13, 5.6), layout="constrained")
        for turn, name in enumerate(STYLES):
            records = [run["records"] for run in runs if run["loss"] == name]
            if records:
                _curve(loss, name, records, "train loss", 10.0**zero, turn)
                _curve(accuracy, name, records, "test accuracy", 0, turn)
        loss.set(yscale="log", xlabel="steps", title="training loss")
        powers = range(0, zero + 1, -4)
        loss.set_yticks(
            [*(10.0**power for power in powers), 10.0**zero], [*(f"$10^{{{power}}}$" for power in powers), "0"]
        )
        loss.minorticks_off()
        loss.text(0, 2 * 10.0**zero, "the loss is exactly 0", fontsize=15)
        accuracy.set(ylim=(0, 1.02), xlabel="steps", title="test accuracy")
        accuracy.legend(frameon=False, loc="lower right")
        for panel in (loss, accuracy):
            panel.grid(color="0.9")
        figure.savefig(path, dpi=150, facecolor="white")
        plt.close(figure)


def _curve(panel: Any, name: str, records: list[dict[str, Any]], figure: str, least: float, turn: int) -> None:
    steps = np.asarray(records[0]["step"])
    values = np.maximum([record[figure] for record in records], least)
    color = STYLES[name]["color"]
    panel.fill_between(steps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.2, linewidth=0)
    # Markers of curves that coincide take turns.
    panel.plot(steps, np.median(values, axis=0), markevery=(0.04 * turn, 0.12), markersize=9, **STYLES[name])
