"""The errors of loss and gradient against the label's lead, as a picture."""

import io
from functools import cache
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stable_softmax.reference.bounds import representable, units_allowed
from stable_softmax.reference.exact import Exact, ExactRows, exact_rows
from stable_softmax.report._cases import Case, confident
from stable_softmax.report._forms import OURS, SHIFTED, UNSTABLE, forms_of
from stable_softmax.report._measurement import evaluated

_LEADS = {"float32": range(0, 61, 3), "float64": range(0, 81, 4)}
_QUANTITIES = {"loss": "crossentropy", "gradient at the right class": "gradient"}
# Told apart without colours too.
_STYLES: dict[str, dict[str, Any]] = {
    UNSTABLE: {"color": "#7f7f7f", "marker": "v", "linestyle": "--"},
    SHIFTED: {"color": "#d62728", "marker": "s", "linestyle": "--"},
    "SciPy": {"color": "#9467bd", "marker": "^", "linestyle": ":"},
    "Optax": {"color": "#ff7f0e", "marker": "D", "linestyle": ":"},
    "jax.nn": {"color": "#ff7f0e", "marker": "D", "linestyle": ":"},
    "torch.nn": {"color": "#8c564b", "marker": "P", "linestyle": ":"},
    OURS: {"color": "#1f77b4", "marker": "o", "linestyle": "-", "linewidth": 2.5},
}


def drawn(backends: list[str], kind: str) -> bytes:
    """Draw the largest relative errors of every form, as a file of a kind."""
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots(2, 2, sharey="col", sharex="col")
    for column, (dtype, leads) in enumerate(_LEADS.items()):
        for row, (label, operation) in enumerate(_QUANTITIES.items()):
            _panel(axes[row, column], backends, dtype, leads, operation)
            axes[row, column].set_title(f"{label}, {dtype}", fontsize=13)
    for panel in axes[1]:
        panel.set_xlabel("lead of the right class, nats", fontsize=12)
    for panel in axes[:, 0]:
        panel.set_ylabel("largest relative error", fontsize=12)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=12, handlelength=3)
    content = io.BytesIO()
    figure.savefig(content, format=kind, dpi=120, facecolor="white")
    return content.getvalue()


def _panel(panel: Any, backends: list[str], dtype: str, leads: range, operation: str) -> None:
    drawn = [_exact_case(lead, dtype) for lead in leads]
    bounds = [units_allowed(case.logits, dtype).max() for case, _ in drawn]
    panel.plot(leads, bounds, color="black", label="our bound")
    for backend in backends:
        for name, form in forms_of(backend).items():
            if backend == backends[0] or name not in (UNSTABLE, SHIFTED, OURS):
                function = getattr(form, operation)
                errors = [
                    _error(evaluated(backend, function, case, dtype), getattr(exact, operation), case.class_ids)
                    for case, exact in drawn
                ]
                panel.plot(leads, errors, label=name, markersize=7, **_STYLES[name])
    panel.set_yscale("log")
    panel.set_ylim(top=20)
    panel.tick_params(labelsize=11)
    panel.grid(alpha=0.4)
    panel.axhline(1, color="black", linewidth=0.8)
    panel.annotate("no digit is right", (leads[0], 3), fontsize=11)


@cache
def _exact_case(lead: float, dtype: str) -> tuple[Case, ExactRows]:
    case = confident(lead)
    case = case._replace(logits=representable(case.logits, dtype))
    return case, exact_rows(case.logits, case.class_ids, divisor=len(case.logits))


def _error(values: NDArray[np.float64], exact: Exact, class_ids: NDArray[Any]) -> float:
    """Return the largest relative error of the loss, or of the gradient at the right class."""
    errors = exact.error(values) / np.abs(exact.nearest)
    return float(np.max(errors if errors.ndim == 1 else errors[np.arange(len(errors)), class_ids]))
