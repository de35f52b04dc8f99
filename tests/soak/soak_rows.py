"""Rows of logits and labels that provoke rounding errors, underflow, overflow, ties and special values."""

import math
from typing import NamedTuple

import numpy as np

from stable_softmax.reference.bounds import PRECISIONS, representable

# One turn of the batches' numbers of classes. Most rows have few classes: they cost least, and hold every pitfall.
_CLASSES = (2, 3, 1_000_000, 5, 2, 8, 3, 1, 17, 4, 100_003, 3, 2, 10, 33, 5, 3, 1_000, 2, 7, 129, 4, 3, 64)
_ELEMENTS = 1 << 20
_MOST_ROWS = 1 << 17
# How far the label may lead before its loss leaves the dtype.
_LONGEST_LEAD = {"float16": 15.0, "bfloat16": 80.0, "float32": 80.0, "float64": 700.0}


class Batch(NamedTuple):
    """Logits (rows, classes) in float64, though representable in their dtype, and class ids (rows,)."""

    logits: np.ndarray
    class_ids: np.ndarray


def batch_shape(index):
    """Return the numbers of rows and of classes of a batch."""
    classes = _CLASSES[index % len(_CLASSES)]
    return max(4, min(_MOST_ROWS, _ELEMENTS // classes)), classes


def class_axis(index):
    """Return the axis that holds the classes of a batch: each turn, the other one."""
    return (-1, 0)[index // len(_CLASSES) % 2]


def batch_count(rows):
    """Return how many batches hold at least so many rows."""
    index = 0
    while rows > 0:
        rows -= batch_shape(index)[0]
        index += 1
    return index


def drawn_batch(seed, backend, dtype, index):
    """Draw a batch, always the same for the same arguments."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, index, *f"{backend} {dtype}".encode()]))
    rows, classes = batch_shape(index)
    class_ids = rng.integers(0, classes, size=rows)
    families = rng.integers(len(FAMILIES), size=rows)
    logits = np.empty((rows, classes))
    for number, family in enumerate(FAMILIES):
        members = np.flatnonzero(families == number)
        if members.size:
            logits[members] = family(rng, (members.size, classes), dtype, class_ids[members])
    with np.errstate(over="ignore"):
        logits = representable(logits, dtype)
    # Confident predictions are where the usual formulas lose all digits.
    confident = rng.random(rows) < 0.5
    return Batch(logits, np.where(confident, np.argmax(logits, axis=1), class_ids))


def _moderate(rng, shape, _dtype, _class_ids):
    return rng.standard_normal(shape) * 3


def _confident(rng, shape, dtype, class_ids):
    lead = rng.uniform(0, _LONGEST_LEAD[dtype], size=shape[0])
    logits = rng.standard_normal(shape) * rng.choice([0, 0.1, 1, 3], size=(shape[0], 1))
    logits[np.arange(shape[0]), class_ids] += lead
    return logits


def _tied(rng, shape, _dtype, _class_ids):
    return rng.integers(-2, 1, size=shape, endpoint=True) * rng.choice([0, 0.25, 1, 20], size=(shape[0], 1))


def _nearly_tied(rng, shape, dtype, _class_ids):
    """Numbers that are a few of the dtype's spacings apart."""
    scale = _whole_range(rng, (shape[0], 1), dtype, None)
    return scale * (1 + rng.integers(-4, 5, size=shape) * 2 * PRECISIONS[dtype].unit_roundoff)


def _offset(rng, shape, dtype, _class_ids):
    largest = np.log10(PRECISIONS[dtype].largest)
    offset = 10.0 ** rng.uniform(0, min(30, largest - 1), size=(shape[0], 1))
    return rng.standard_normal(shape) * 5 + offset * rng.choice([-1, 1], size=offset.shape)


def _mixed_magnitudes(rng, shape, _dtype, _class_ids):
    return rng.standard_normal(shape) * 10.0 ** rng.uniform(-8, 2.5, size=shape)


def _whole_range(rng, shape, dtype, _class_ids):
    """Numbers with every exponent that the dtype has."""
    precision = PRECISIONS[dtype]
    smallest = precision.smallest_exponent - precision.significant_bits + 2
    _, largest = math.frexp(precision.largest)
    exponents = rng.integers(smallest, largest, size=shape, endpoint=True)
    magnitude = np.ldexp(rng.uniform(0.5, 1, size=shape), exponents)
    return magnitude * rng.choice([-1, 1], size=shape)


def _subnormal(rng, shape, dtype, _class_ids):
    """Numbers below the smallest normal one, a tenth of them next to ordinary ones."""
    precision = PRECISIONS[dtype]
    values = rng.uniform(-1, 1, size=shape) * precision.smallest_normal
    return np.where(rng.random(shape) < 0.1, rng.standard_normal(shape), values)


def _underflowing(rng, shape, dtype, _class_ids):
    """Distances from the maximum at which exponentials become subnormal numbers, and then 0."""
    edge = {"float64": 708.4}.get(dtype, 87.3)
    distances = -edge * rng.uniform(0.9, 1.25, size=shape)
    return np.where(rng.random(shape) < 0.4, 0, distances) + rng.standard_normal(shape)


def _spread(rng, shape, _dtype, _class_ids):
    return rng.uniform(-1, 0, size=shape) * 10.0 ** rng.uniform(-6, 3.2, size=(shape[0], 1))


def _excluded(rng, shape, _dtype, _class_ids):
    """Rows with some logits of -inf, up to all of them."""
    excluded = rng.random(shape) < rng.uniform(0, 1, size=(shape[0], 1))
    return np.where(excluded, -np.inf, rng.standard_normal(shape) * 3)


def _spoiled(rng, shape, _dtype, _class_ids):
    """Rows with a NaN or an infinity, and often a second one."""
    logits = rng.standard_normal(shape) * 3
    for _ in range(2):
        places = rng.integers(shape[1], size=shape[0])
        logits[np.arange(shape[0]), places] = rng.choice([np.nan, np.inf, -np.inf, 0], size=shape[0])
    return logits


FAMILIES = (
    _moderate,
    _confident,
    _confident,
    _tied,
    _nearly_tied,
    _offset,
    _mixed_magnitudes,
    _whole_range,
    _subnormal,
    _underflowing,
    _spread,
    _excluded,
    _spoiled,
)
