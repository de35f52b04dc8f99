"""The analytic gradient against two witnesses that share nothing with it; exact arithmetic is the third.

JAX differentiates an undecorated textbook loss, and central differences need only the loss itself.
"""

import numpy as np
import pytest

from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    textbook,
    value_and_grad_softmax_crossentropy_with_logits,
)

pytestmark = pytest.mark.quick_on("jax")

EPS = np.finfo(np.float64).eps


def moderate_rows(classes):
    rng = np.random.default_rng(classes)
    return rng.normal(size=(40, classes)) * 2, rng.integers(0, classes, size=40)


@pytest.mark.only_backends("jax")
@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_jax_grad_of_the_textbook_loss_agrees_where_it_is_accurate(backend, classes):
    """Moderate rows lose few digits to `p - 1` and to the maximum's derivative: each entry agrees to some units."""
    jax = backend.jax
    logits, class_ids = moderate_rows(classes)
    z, y = backend.array(logits), backend.array(class_ids)

    def mean_loss(z):
        return jax.numpy.mean(textbook.shifted_crossentropy(z, y))

    expected = jax.jit(jax.grad(mean_loss))(z)
    # `p - 1` is off by at most the rounding of numbers up to 1, over 40 examples.
    tolerance = {"rtol": 16 * EPS, "atol": 4 * EPS / 40}
    np.testing.assert_allclose(backend.call(grad_softmax_crossentropy_with_logits, z, y), expected, **tolerance)
    gradient = backend.call(value_and_grad_softmax_crossentropy_with_logits, z, y)[1]
    np.testing.assert_allclose(gradient, expected, **tolerance)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_central_differences_agree(backend, classes, reduction):
    logits, class_ids = moderate_rows(classes)
    y = backend.array(class_ids)
    gradient = backend.call(
        grad_softmax_crossentropy_with_logits, backend.logits(logits, "float64"), y, reduction=reduction
    )
    # Truncation costs step**2 / 6 times a third derivative of at most 1, rounding eps * loss / step.
    step = 1e-5
    for j in range(classes):
        up, down = logits.copy(), logits.copy()
        up[:, j] += step
        down[:, j] -= step
        losses = [
            backend.call(softmax_crossentropy_with_logits, backend.logits(z, "float64"), y).astype(np.float64)
            for z in (up, down)
        ]
        slopes = (losses[0] - losses[1]) / (2 * step) / (40 if reduction == "mean" else 1)
        np.testing.assert_allclose(gradient[:, j], slopes, rtol=0, atol=step**2 / 6 + 40 * EPS / step)
