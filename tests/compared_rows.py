"""Entropies and divergences with a reference weight, and pairs of rows on which their derivatives are compared."""

from functools import partial

import numpy as np

from stable_softmax import softmax_entropy, softmax_js_divergence, softmax_kl_divergence

WEIGHT = 0.3
#: Each function with the number of its arrays.
FUNCTIONS = {
    "entropy": (softmax_entropy, 1),
    "kl": (softmax_kl_divergence, 2),
    "js": (partial(softmax_js_divergence, reference_weight=WEIGHT), 2),
}


def pairs():
    rng = np.random.default_rng(21)
    w = rng.normal(size=4)
    return {
        "ordinary": (rng.normal(size=4), w),
        "equal": (w, w),
        "equal, with ties": (np.asarray([1.0, 2, 0, 2]), np.asarray([1.0, 2, 0, 2])),
        "other ties": (np.asarray([1.0, 1, 0, 0]), np.asarray([0.0, 0, 1, 1])),
        "near each other": (w + 1e-3 * rng.normal(size=4), w),
        "far from each other": (rng.normal(size=4) * 8, w * 8),
    }
