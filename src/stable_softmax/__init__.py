"""Softmax, its cross-entropy and their derivatives, for the arrays of any library that follows the array API standard.

Results keep their relative accuracy where the usual formulas return 0, inf or nan: the loss of a confident prediction,
and its gradient, are tiny, but not 0.

==============================  ============================================================================
softmax, log_softmax,           along one axis, several or all
logsumexp, log_softmax_
complement
softmax_crossentropy_           the loss in nats, by default of each example
with_logits
grad_..., value_and_grad_...    its gradient, and both at once, by default of the mean over the batch
hvp_..., hessian_diagonal_...   the Hessian times a vector, and its diagonal
linear_..., value_and_grad_     the loss of projected features, and its gradients, and so for entropy and KL
linear_...                      divergence; the full logits are never materialized
linear_softmax_summary          loss, logsumexp, entropy and most probable class of projected features
softmax_entropy,                of predictions, and of predictions from a reference, such as a teacher or an
softmax_kl_divergence,          earlier policy; accurate where both nearly agree; with grad_... and
softmax_js_divergence           value_and_grad_... of each
softmax_statistics              partial logsumexp and loss over some classes; parts merge in any order
set_workers, get_workers        threads for large NumPy arrays
textbook                        the usual formulas, for comparison
==============================  ============================================================================

JAX and PyTorch differentiate all of these by analytic formulas, also within `jit`, `vmap` and `torch.compile`.

Examples
--------
>>> import numpy as np
>>> from stable_softmax import softmax_crossentropy_with_logits
>>> softmax_crossentropy_with_logits(np.asarray([[50.0, 0.0]]), np.asarray([0]))
array([1.92874985e-22])
"""

from typing import TYPE_CHECKING

from stable_softmax import textbook
from stable_softmax._crossentropy import (
    grad_softmax_crossentropy_with_logits,
    hessian_diagonal_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)
from stable_softmax._divergences import (
    grad_softmax_entropy,
    grad_softmax_js_divergence,
    grad_softmax_kl_divergence,
    softmax_entropy,
    softmax_js_divergence,
    softmax_kl_divergence,
    value_and_grad_softmax_entropy,
    value_and_grad_softmax_js_divergence,
    value_and_grad_softmax_kl_divergence,
)
from stable_softmax._execution.workers import get_workers, set_workers
from stable_softmax._linear import linear_softmax_crossentropy, value_and_grad_linear_softmax_crossentropy
from stable_softmax._linear_divergences import (
    LinearSummary,
    linear_softmax_entropy,
    linear_softmax_kl_divergence,
    linear_softmax_summary,
    value_and_grad_linear_softmax_entropy,
    value_and_grad_linear_softmax_kl_divergence,
)
from stable_softmax._normalization import log_softmax, log_softmax_complement, logsumexp, softmax
from stable_softmax._statistics import SoftmaxStatistics, softmax_statistics

__version__ = "0.1.0"

__all__ = [
    "LinearSummary",
    "SoftmaxStatistics",
    "get_workers",
    "grad_softmax_crossentropy_with_logits",
    "grad_softmax_entropy",
    "grad_softmax_js_divergence",
    "grad_softmax_kl_divergence",
    "hessian_diagonal_softmax_crossentropy_with_logits",
    "hvp_softmax_crossentropy_with_logits",
    "linear_softmax_crossentropy",
    "linear_softmax_entropy",
    "linear_softmax_kl_divergence",
    "linear_softmax_summary",
    "log_softmax",
    "log_softmax_complement",
    "logsumexp",
    "set_workers",
    "softmax",
    "softmax_crossentropy_with_logits",
    "softmax_entropy",
    "softmax_js_divergence",
    "softmax_kl_divergence",
    "softmax_statistics",
    "textbook",
    "value_and_grad_linear_softmax_crossentropy",
    "value_and_grad_linear_softmax_entropy",
    "value_and_grad_linear_softmax_kl_divergence",
    "value_and_grad_softmax_crossentropy_with_logits",
    "value_and_grad_softmax_entropy",
    "value_and_grad_softmax_js_divergence",
    "value_and_grad_softmax_kl_divergence",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


if not TYPE_CHECKING:  # pragma: no branch - to type checkers, it would mean that every name is there

    def __getattr__(name: str) -> None:
        from stable_softmax._spellings import own_name

        meant = own_name(name, __all__)
        hint = f"; did you mean {meant!r}?" if meant else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
