"""Our public functions."""

from functools import partial

import stable_softmax
from benchmarks.forms import unchanged, without_labels

NAME = "stable-softmax"
arguments = unchanged


def _hessian_times_logits(logits, class_ids):
    return stable_softmax.hvp_softmax_crossentropy_with_logits(logits, class_ids, logits)


FORMS = {
    "softmax": without_labels(stable_softmax.softmax),
    "log_softmax": without_labels(stable_softmax.log_softmax),
    "logsumexp": without_labels(stable_softmax.logsumexp),
    "loss": partial(stable_softmax.softmax_crossentropy_with_logits, reduction="mean"),
    "gradient": stable_softmax.grad_softmax_crossentropy_with_logits,
    "value and gradient": stable_softmax.value_and_grad_softmax_crossentropy_with_logits,
    "Hessian product": _hessian_times_logits,
}
