"""Softmax, its cross-entropy and their gradient, accurate to the last digits on any array library."""

from stable_softmax import textbook
from stable_softmax._crossentropy import (
    grad_softmax_crossentropy_with_logits,
    hessian_diagonal_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)
from stable_softmax._execution._workers import get_workers, set_workers
from stable_softmax._linear import linear_softmax_crossentropy, value_and_grad_linear_softmax_crossentropy
from stable_softmax._normalization import log_softmax, logsumexp, softmax
from stable_softmax._statistics import SoftmaxStatistics, softmax_statistics

__version__ = "0.1.0"

__all__ = [
    "SoftmaxStatistics",
    "get_workers",
    "grad_softmax_crossentropy_with_logits",
    "hessian_diagonal_softmax_crossentropy_with_logits",
    "hvp_softmax_crossentropy_with_logits",
    "linear_softmax_crossentropy",
    "log_softmax",
    "logsumexp",
    "set_workers",
    "softmax",
    "softmax_crossentropy_with_logits",
    "softmax_statistics",
    "textbook",
    "value_and_grad_linear_softmax_crossentropy",
    "value_and_grad_softmax_crossentropy_with_logits",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
