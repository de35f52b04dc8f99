"""SciPy's three functions, and the losses that its users compose of them."""

from functools import partial

import numpy as np
from scipy import special

from benchmarks.forms import unchanged, without_labels
from benchmarks.forms.notebook import gradient_from

NAME = "SciPy"
arguments = unchanged


def _loss(logits, class_ids):
    return -np.mean(special.log_softmax(logits, axis=-1)[np.arange(len(logits)), class_ids])


def _gradient(logits, class_ids):
    return gradient_from(special.softmax(logits, axis=-1), class_ids)


def _value_and_gradient(logits, class_ids):
    return _loss(logits, class_ids), _gradient(logits, class_ids)


FORMS = {
    "softmax": without_labels(partial(special.softmax, axis=-1)),
    "log_softmax": without_labels(partial(special.log_softmax, axis=-1)),
    "logsumexp": without_labels(partial(special.logsumexp, axis=-1)),
    "loss": _loss,
    "gradient": _gradient,
    "value and gradient": _value_and_gradient,
}
