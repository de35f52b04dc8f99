"""A PyTorch without its private names: what they help with is slower, or refused, but nothing is wrong."""

import importlib

import numpy as np
import pytest
import torch

from stable_softmax import softmax, softmax_crossentropy_with_logits
from stable_softmax._libraries import torch_internals

pytestmark = pytest.mark.covering

LOGITS, LABELS = np.asarray([[50.0, 0.0, -1.5], [0.0, 1.0, 2.0]]), np.asarray([0, 2])


@pytest.fixture
def without_private_names(monkeypatch):
    def import_module(name):
        raise ImportError(name)

    with monkeypatch.context() as patch:
        patch.setattr(importlib, "import_module", import_module)
        importlib.reload(torch_internals)
    yield
    importlib.reload(torch_internals)


def loss(logits):
    return softmax_crossentropy_with_logits(logits, torch.asarray(LABELS), reduction="mean")


@pytest.mark.usefixtures("without_private_names")
def test_values_and_gradients_keep_their_digits():
    assert not torch_internals.KNOWS_TRANSFORMATIONS
    expected = softmax_crossentropy_with_logits(LOGITS, LABELS)
    logits = torch.tensor(LOGITS, requires_grad=True)
    losses = softmax_crossentropy_with_logits(logits, torch.asarray(LABELS))
    np.testing.assert_allclose(losses.detach().numpy(), expected, rtol=1e-14)
    loss(logits).backward()
    rest = np.exp(-50.0) + np.exp(-51.5)
    np.testing.assert_allclose(logits.grad[0, 0].item(), -rest / 2, rtol=1e-14)
    np.testing.assert_allclose(torch.func.grad(loss)(torch.asarray(LOGITS)).numpy(), logits.grad.numpy(), rtol=1e-14)
    mapped = torch.func.vmap(lambda row: softmax(row))(torch.asarray(LOGITS))
    np.testing.assert_allclose(mapped.numpy(), softmax(LOGITS), rtol=1e-14)


@pytest.mark.usefixtures("without_private_names")
def test_forward_mode_around_reverse_mode_is_refused():
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.hessian(loss)(torch.asarray(LOGITS))


@pytest.mark.usefixtures("without_private_names")
def test_nothing_is_taken_to_be_free():
    assert torch_internals.has_dispatch_mode()
    assert torch_internals.has_hooks_on_saved_tensors()
    assert torch_internals.keeps_graph()
    assert torch_internals.is_followed(torch.zeros(1))
