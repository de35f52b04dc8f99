"""Rows of logits in which one class leads by so much that the usual formulas lose their digits."""

import numpy as np
from numpy.typing import NDArray

from stable_softmax.reference.bounds import representable

#: By how much, for each dtype that logits may have.
LEADS = {
    "float16": (5, 8, 11),
    "bfloat16": (20, 40, 80),
    "float32": (20, 40, 80),
    "float64": (20, 40, 300, 700),
}
#: Where the usual loss is 0.
COLLAPSED = {"float32": (20, 40, 80), "float64": (40, 300, 700)}


def leading_rows(lead: float, dtype: str) -> NDArray[np.float64]:
    """Return four rows of four classes, in each of which another class leads."""
    return representable(np.stack([np.roll([lead, 0.0, -1.5, 0.25], i) for i in range(4)]), dtype)
