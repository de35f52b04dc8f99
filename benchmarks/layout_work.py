"""NumPy arrays whose classes are not contiguous in memory, and half precision: against SciPy on the same array."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from scipy import special

import stable_softmax
from benchmarks.examples import logits_of
from benchmarks.work import Work

# How the operation is called in the table, shape, class axis, order in memory.
LAYOUTS = (
    ("axis 0", (10, 65536), 0, "C"),
    ("axis 1", (64, 1000, 64), 1, "C"),
    ("Fortran order", (16384, 100), -1, "F"),
)
# Each operation, and the ratio to reach.
OPERATIONS = {"softmax": 1.0, "log_softmax": 1.2, "logsumexp": 0.75}


def works(quick: bool) -> Iterator[Work]:
    """Yield all comparisons."""
    for dtype in ("float32",) if quick else ("float32", "float64"):
        for layout, shape, axis, order in LAYOUTS:
            yield from _on_logits(layout, np.asarray(logits_of(shape, dtype), order=order), axis)
    yield from _on_logits("last axis", logits_of((16384, 100), "float16"), -1)


def _on_logits(layout, logits, axis):
    for operation, target in OPERATIONS.items():
        ours, peer = (partial(getattr(side, operation), logits, axis=axis) for side in (stable_softmax, special))
        name = f"{operation}, {layout}"
        yield Work("NumPy, layouts", name, logits.shape, str(logits.dtype), "SciPy", target, ours, peer)
