"""PyTorch's functions, on tensors over NumPy's memory."""

from functools import partial

import torch

from benchmarks.forms import without_labels

NAME = "PyTorch"


def arguments(logits, class_ids):
    """Return tensors over the same memory."""
    return torch.from_numpy(logits), torch.from_numpy(class_ids)


def _value_and_gradient(logits, class_ids):
    logits = logits.detach().requires_grad_()
    loss = torch.nn.functional.cross_entropy(logits, class_ids)
    loss.backward()
    return loss.detach(), logits.grad


def _gradient(logits, class_ids):
    return _value_and_gradient(logits, class_ids)[1]


FORMS = {
    "softmax": without_labels(partial(torch.softmax, dim=-1)),
    "log_softmax": without_labels(partial(torch.log_softmax, dim=-1)),
    "logsumexp": without_labels(partial(torch.logsumexp, dim=-1)),
    "loss": torch.nn.functional.cross_entropy,
    "gradient": _gradient,
    "value and gradient": _value_and_gradient,
}
