"""Softmax, its cross-entropy and their gradient, accurate to the last digits on any array library."""

from stable_softmax._crossentropy import (
    grad_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)
from stable_softmax._normalization import log_softmax, logsumexp, softmax

__all__ = [
    "grad_softmax_crossentropy_with_logits",
    "hvp_softmax_crossentropy_with_logits",
    "log_softmax",
    "logsumexp",
    "softmax",
    "softmax_crossentropy_with_logits",
    "value_and_grad_softmax_crossentropy_with_logits",
]
