"""The inputs of the report."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stable_softmax.report._contract import PRECISIONS, representable

_EXAMPLES, _CLASSES = 50, 10


class Case(NamedTuple):
    """Logits (examples, classes), and the class id of each example."""

    name: str
    logits: NDArray[np.float64]
    class_ids: NDArray[Any]


def cases(dtype: str) -> Iterator[Case]:
    """Yield the cases that `dtype` has the range for, with logits that it holds exactly."""
    for name, logits, class_ids in _cases():
        if np.max(logits) <= PRECISIONS[dtype].largest:
            yield Case(name, representable(logits, dtype), class_ids)


def _cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    class_ids = np.arange(_EXAMPLES) % _CLASSES
    at_label = np.arange(_CLASSES) == class_ids[:, None]
    noise = rng.normal(size=(_EXAMPLES, _CLASSES))
    for stop in ("1", "500", "1e5", "5e5"):
        logits = np.linspace(-1, float(stop), _EXAMPLES * _CLASSES).reshape(_EXAMPLES, _CLASSES)
        yield Case(f"notebook, -1 to {stop}", logits, class_ids)
    for lead in (20, 40, 80):
        yield Case(
            f"label leads by {lead}", np.where(at_label, noise.max(axis=1, keepdims=True) + lead, noise), class_ids
        )
    yield Case("offset of 1e6", 3 * noise + 1e6, class_ids)
    yield Case("half masked by -inf", np.where(at_label | (noise > 0), 3 * noise, -np.inf), class_ids)
    many = np.stack([3 * rng.normal(size=70_000), np.full(70_000, 0.5)])
    yield Case("70,000 classes", many, np.asarray([0, 69_999]))
