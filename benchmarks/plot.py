"""Draws the time for each element against the number of classes, ours and the peers', over the cost of a copy."""

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.examples import Examples, examples_of, logits_of
from benchmarks.forms import call_of, name_of
from benchmarks.growth import CLASSES, ELEMENTS
from benchmarks.machine import machine
from benchmarks.progress import tell
from benchmarks.tables import Row, Section, number, text
from benchmarks.timing import medians

LIBRARIES = {
    "softmax": ("ours", "scipy", "pytorch", "notebook"),
    "value and gradient": ("ours", "scikit_learn", "pytorch", "notebook"),
}
# Okabe and Ito's colours, which colour-blind people tell apart; the markers do it without any colour.
STYLES = {
    "ours": {"color": "#000000", "marker": "o", "linewidth": 2.5},
    "scipy": {"color": "#D55E00", "marker": "s"},
    "scikit_learn": {"color": "#CC79A7", "marker": "D"},
    "pytorch": {"color": "#0072B2", "marker": "^"},
    "notebook": {"color": "#E69F00", "marker": "v", "linestyle": "--"},
}
COPIES = {"copy": (0, (1, 1)), "copy into fresh pages": (0, (5, 2))}


def sections(path: Path, quick: bool) -> Iterator[Section]:
    """Measure, draw, and yield the points."""
    rows = [_copies()]
    for classes in CLASSES[::2] if quick else CLASSES:
        examples = examples_of((ELEMENTS // classes, classes))
        for operation, libraries in LIBRARIES.items():
            tell(f"plot: {operation} of {classes:,} classes")
            rows.append(_points(operation, libraries, examples, seconds=0.3 if quick else 1.5))
    _draw(rows, path)
    columns = {"operation": text("operation"), "classes": number("classes", ",")}
    columns |= {name_of(library): number(library) for library in STYLES} | {name: number(name) for name in COPIES}
    yield Section("NumPy, float32, ns/element, as plotted", columns, rows)


def _points(operation: str, libraries: tuple[str, ...], examples: Examples, seconds: float) -> Row:
    times = medians([call_of(library, operation, *examples) for library in libraries], seconds)
    return {"operation": operation, "classes": examples[0].shape[1]} | _per_element(libraries, times, examples[0].size)


def _copies() -> Row:
    """Measure what any function that writes such an array must spend."""
    array = logits_of((ELEMENTS,))
    existing = np.zeros_like(array)
    copies = (lambda: np.copyto(existing, array), lambda: np.copyto(_fresh_like(array), array))
    return {"operation": "copy"} | _per_element(COPIES, medians(copies, 1.0), ELEMENTS)


def _per_element(names: Iterable[str], times: list[float], elements: int) -> dict[str, float]:
    """Return the times in nanoseconds for each element, by name."""
    return {name: time / elements * 1e9 for name, time in zip(names, times, strict=True)}


def _fresh_like(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return memory that the system has yet to hand out, which NumPy gets for its larger arrays, as it asks for it."""
    pages = mmap.mmap(-1, array.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, array.dtype)


def _draw(rows: list[Row], path: Path) -> None:
    with mpl.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure, panels = plt.subplots(1, 2, figsize=(13, 6), sharey=True, layout="constrained")
        for panel, operation in zip(panels, LIBRARIES, strict=True):
            _draw_panel(panel, operation, rows)
        panels[0].set_ylabel("time per element (ns)")
        title = f"NumPy arrays, float32, {ELEMENTS:,} elements, one thread of {machine()['processor']}"
        figure.suptitle(title, fontsize=12)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _draw_panel(panel: Any, operation: str, rows: list[Row]) -> None:
    points = [row for row in rows if row["operation"] == operation]
    for library in LIBRARIES[operation]:
        classes, times = ([point[key] for point in points] for key in ("classes", library))
        panel.plot(classes, times, label=name_of(library), markersize=6, **STYLES[library])
    for name, dashes in COPIES.items():
        floor = rows[0][name]
        panel.axhline(floor, color="0.45", linestyle=dashes, linewidth=1.5, label=f"{name} ({floor:.2f} ns)")
    panel.set(xscale="log", yscale="log", xlabel="classes", title=operation)
    panel.yaxis.set_major_formatter("{x:g}")
    panel.grid(which="major", color="0.9")
    panel.legend(frameon=False, fontsize=9)
