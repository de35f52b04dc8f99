"""The inputs of the report."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stable_softmax.reference.bounds import PRECISIONS, representable

_EXAMPLES, _CLASSES = 50, 10

#: What may go wrong, and the cases that try it.
TOPICS = {
    "ordinary": "-1 to 1",
    "large": "up to 5e5",
    "offset": "+1e6",
    "confident": "leads of 20, 40, 80",
    "masked": "half -inf",
    "many classes": "70,000",
}


class Case(NamedTuple):
    """Logits (examples, classes), and the class id of each example."""

    name: str
    #: Of `TOPICS`.
    topic: str
    logits: NDArray[np.float64]
    class_ids: NDArray[Any]


def cases(dtype: str) -> Iterator[Case]:
    """Yield the cases that `dtype` has the range for, with logits that it holds exactly."""
    for case in _cases():
        if np.max(case.logits) <= PRECISIONS[dtype].largest:
            yield case._replace(logits=representable(case.logits, dtype))


def confident(lead: float) -> Case:
    """Return random logits of which the label's leads by so much."""
    class_ids = np.arange(_EXAMPLES) % _CLASSES
    noise = np.random.default_rng(0).normal(size=(_EXAMPLES, _CLASSES))
    at_label = np.arange(_CLASSES) == class_ids[:, None]
    logits = np.where(at_label, noise.max(axis=1, keepdims=True) + lead, noise)
    return Case(f"label leads by {lead:g}", "confident", logits, class_ids)


def _cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    class_ids = np.arange(_EXAMPLES) % _CLASSES
    at_label = np.arange(_CLASSES) == class_ids[:, None]
    noise = rng.normal(size=(_EXAMPLES, _CLASSES))
    for stop, topic in (("1", "ordinary"), ("500", "large"), ("1e5", "large"), ("5e5", "large")):
        logits = np.linspace(-1, float(stop), _EXAMPLES * _CLASSES).reshape(_EXAMPLES, _CLASSES)
        yield Case(f"notebook, -1 to {stop}", topic, logits, class_ids)
    yield from map(confident, (20, 40, 80))
    yield Case("offset of 1e6", "offset", 3 * noise + 1e6, class_ids)
    half = np.where(at_label | (noise > 0), 3 * noise, -np.inf)
    yield Case("half masked by -inf", "masked", half, class_ids)
    many = np.stack([3 * rng.normal(size=70_000), np.full(70_000, 0.5)])
    yield Case("70,000 classes", "many classes", many, np.asarray([0, 69_999]))
