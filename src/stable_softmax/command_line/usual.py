"""The usual form of the Kullback-Leibler divergence."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def usual_kl_divergence(logits: NDArray[Any], reference: NDArray[Any]) -> NDArray[Any]:
    """Return ``sum(q * (log(q) - log(p)))`` of rows, in their dtype; a class with ``q = 0`` adds 0."""
    log_p, log_q = _shifted_log_softmax(logits), _shifted_log_softmax(reference)
    q = np.exp(log_q)
    log_q -= log_p
    np.multiply(q, log_q, out=log_q, where=q > 0)
    log_q[q == 0] = 0
    return log_q.sum(axis=1)


def _shifted_log_softmax(logits: NDArray[Any]) -> NDArray[Any]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted
