"""Logits and class ids to work on."""

from typing import Any

import numpy as np

Examples = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def examples_of(shape: tuple[int, int], dtype: str = "float32") -> Examples:
    """Return normal logits with a standard deviation of 4 nats, and uniform class ids."""
    rng = np.random.default_rng(0)
    return logits_of(shape, dtype), rng.integers(shape[1], size=shape[0])


def logits_of(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray[Any, Any]:
    """Return normal logits with a standard deviation of 4 nats."""
    drawn = np.random.default_rng(1).standard_normal(shape, dtype="float64" if dtype == "float64" else "float32")
    drawn *= 4
    return drawn.astype(dtype, copy=False)
