"""The functions of projected features as the tests of JAX and PyTorch call them, and the same by way of all logits."""

from typing import Any, NamedTuple

from array_api_compat import array_namespace

from stable_softmax import (
    linear_softmax_crossentropy,
    linear_softmax_entropy,
    linear_softmax_kl_divergence,
    linear_softmax_summary,
    logsumexp,
    softmax_crossentropy_with_logits,
    softmax_entropy,
    softmax_kl_divergence,
)

EXAMPLES, FEATURES, CLASSES = 40, 8, 24


def in_blocks(features, weight, bias, answers, **options):
    return linear_softmax_crossentropy(features, weight, answers, bias, **options)


def of_logits(features, weight, bias, answers, softcap=None, reduction="mean", **options):
    options.pop("block_size", None)
    logits = features @ weight.T + bias
    capped = logits if softcap is None else softcap * array_namespace(logits).tanh(logits / softcap)
    return softmax_crossentropy_with_logits(capped, answers, reduction=reduction, **options)


class Form(NamedTuple):
    """A function of floating arrays, in blocks of seven rows and by way of all logits."""

    shapes: tuple[tuple[int, ...], ...]
    in_blocks: Any
    of_logits: Any


_MODEL = (EXAMPLES, FEATURES), (CLASSES, FEATURES), (CLASSES,)
_REFERENCE = (EXAMPLES, 3), (CLASSES, 3), (CLASSES,)
_CAP = 2.0


def _logits(features, weight, bias):
    logits = features @ weight.T + bias
    return _CAP * array_namespace(logits).tanh(logits / _CAP)


def _entropy(features, weight, bias, **options):
    return linear_softmax_entropy(features, weight, bias, softcap=_CAP, block_size=7, **options)


def _entropy_of_logits(*model, reduction="mean"):
    return softmax_entropy(_logits(*model), reduction=reduction)


def _divergence(features, weight, bias, reference_features, reference_weight, reference_bias, **options):
    reference = reference_features, reference_weight, bias, reference_bias
    caps = {"softcap": _CAP, "reference_softcap": _CAP}
    return linear_softmax_kl_divergence(features, weight, *reference, **caps, block_size=7, **options)


def _divergence_of_logits(*models, reduction="mean"):
    return softmax_kl_divergence(_logits(*models[:3]), _logits(*models[3:]), reduction=reduction)


def _labels(features):
    return (features[:, 0] > 0) * (CLASSES - 1)


def _summary(features, weight, bias, reduction="mean"):
    summary = linear_softmax_summary(features, weight, _labels(features), bias, softcap=_CAP, block_size=7)
    values = summary.loss + 0.5 * summary.logsumexp - 0.1 * summary.entropy
    return values if reduction == "none" else values.mean()


def _summary_of_logits(features, weight, bias, reduction="mean"):
    logits = _logits(features, weight, bias)
    losses = softmax_crossentropy_with_logits(logits, _labels(features))
    values = losses + 0.5 * logsumexp(logits) - 0.1 * softmax_entropy(logits)
    return values if reduction == "none" else values.mean()


FORMS = {
    "entropy": Form(_MODEL, _entropy, _entropy_of_logits),
    "kl_divergence": Form((*_MODEL, *_REFERENCE), _divergence, _divergence_of_logits),
    "summary": Form(_MODEL, _summary, _summary_of_logits),
}
