"""The formulas of a first notebook in plain NumPy: a few lines each, and no check."""

import numpy as np

from benchmarks.forms import unchanged, without_labels

NAME = "notebook"
arguments = unchanged


def _softmax(logits):
    exponentials = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return exponentials / np.sum(exponentials, axis=-1, keepdims=True)


def _log_softmax(logits):
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def _logsumexp(logits):
    maximum = np.max(logits, axis=-1)
    return maximum + np.log(np.sum(np.exp(logits - maximum[:, None]), axis=-1))


def _loss(logits, class_ids):
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    answered = shifted[np.arange(len(logits)), class_ids]
    return np.mean(np.log(np.sum(np.exp(shifted), axis=-1)) - answered)


def gradient_from(probabilities, class_ids):
    """Return the gradient of the mean loss, in place of the probabilities."""
    probabilities[np.arange(len(probabilities)), class_ids] -= 1
    probabilities /= len(probabilities)
    return probabilities


def _gradient(logits, class_ids):
    return gradient_from(_softmax(logits), class_ids)


def _value_and_gradient(logits, class_ids):
    return _loss(logits, class_ids), _gradient(logits, class_ids)


def _hessian_times_logits(logits):
    probabilities = _softmax(logits)
    weighted = probabilities * logits
    return (weighted - probabilities * np.sum(weighted, axis=-1, keepdims=True)) / len(logits)


FORMS = {
    "softmax": without_labels(_softmax),
    "log_softmax": without_labels(_log_softmax),
    "logsumexp": without_labels(_logsumexp),
    "loss": _loss,
    "gradient": _gradient,
    "value and gradient": _value_and_gradient,
    "Hessian product": without_labels(_hessian_times_logits),
}
