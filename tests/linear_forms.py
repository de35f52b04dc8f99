"""The linear loss as the tests of JAX and PyTorch call it, and the same by way of all logits."""

from array_api_compat import array_namespace

from stable_softmax import linear_softmax_crossentropy, softmax_crossentropy_with_logits

EXAMPLES, FEATURES, CLASSES = 40, 8, 24


def in_blocks(features, weight, bias, answers, **options):
    return linear_softmax_crossentropy(features, weight, answers, bias, **options)


def of_logits(features, weight, bias, answers, softcap=None, reduction="mean", **options):
    options.pop("block_size", None)
    logits = features @ weight.T + bias
    capped = logits if softcap is None else softcap * array_namespace(logits).tanh(logits / softcap)
    return softmax_crossentropy_with_logits(capped, answers, reduction=reduction, **options)
