"""Addition modulo 113: pairs of numbers, a network's initial weights, and how Adam trains it."""

from typing import Any, NamedTuple

import numpy as np

MODULUS, HIDDEN = 113, 200
LEARNING_RATE, DECAYS, EPSILON = 5e-4, (0.9, 0.99), 1e-30
# Steps from one record to the next.
INTERVAL = 50

Parameters = list[Any]


class Examples(NamedTuple):
    """Pairs of numbers, and their sums."""

    left: np.ndarray
    right: np.ndarray
    sums: np.ndarray


def examples_of(fraction: float, rng: np.random.Generator) -> tuple[Examples, Examples]:
    """Return that share of all pairs, and the others."""
    chosen = np.zeros(MODULUS**2, bool)
    chosen[rng.permutation(MODULUS**2)[: int(fraction * MODULUS**2)]] = True
    left, right = np.divmod(np.arange(MODULUS**2, dtype=np.int32), MODULUS)
    everything = Examples(left, right, (left + right) % MODULUS)
    return Examples(*(part[chosen] for part in everything)), Examples(*(part[~chosen] for part in everything))


def initial_parameters(rng: np.random.Generator) -> Parameters:
    """Draw the weights uniformly, up to the root of the inverse number of inputs, as PyTorch's Linear does."""
    sizes = (2 * MODULUS, HIDDEN, HIDDEN, MODULUS)
    bounds = [inputs**-0.5 for inputs in sizes]
    shapes = zip(bounds, sizes, sizes[1:], strict=False)
    return [rng.uniform(-bound, bound, (inputs, outputs)).astype("float32") for bound, inputs, outputs in shapes]
