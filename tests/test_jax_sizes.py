"""Derivatives at the sizes of real work, where XLA fuses and vectorizes, against float64 formulas without a compiler.

XLA for the CPU of JAX 0.10.2 computes wrong sums of float32 products from some 6,500 rows on, if one factor is the same
for many vectors. Small arrays never show such a thing.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    log_softmax,
    logsumexp,
    softmax,
    softmax_crossentropy_with_logits,
)

pytestmark = pytest.mark.thorough

#: Vectors, examples, classes: above what XLA leaves alone.
SIZES = [(320, 64, 5), (12, 9000, 3), (3, 4000, 100)]
OPTIONS = {"label_smoothing": 0.1, "z_loss": 0.01}
# Some rounding errors of sums of up to 9000 terms; what is looked for is wrong by 1e-1 and more.
TOLERANCE = 128 * np.finfo(np.float32).eps


class Example:
    """Logits with their probabilities in float64, and vectors for them; the examples are rows or columns."""

    def __init__(self, vectors, examples, classes, axis):
        rng = np.random.default_rng(12)
        shape = (examples, classes) if axis == 1 else (classes, examples)
        self.axis, self.classes = axis, classes
        self.logits = rng.normal(size=shape).astype(np.float32)
        self.vectors = rng.normal(size=(vectors, *shape)).astype(np.float32)
        self.class_ids = rng.integers(0, classes, size=(vectors, examples))
        exponentials = np.exp(self.logits.astype(np.float64))
        self.total = np.log(exponentials.sum(axis=axis, keepdims=True))
        self.p = exponentials / exponentials.sum(axis=axis, keepdims=True)

    def mean(self, vectors):
        return np.sum(self.p * vectors, axis=self.axis - 2, keepdims=True)

    def covariance(self):
        return self.p * (self.vectors - self.mean(self.vectors.astype(np.float64)))

    def hessian_product(self, z_loss=0.0, **_options):
        bent = (1 + 2 * z_loss * self.total) * self.covariance()
        return bent + 2 * z_loss * self.mean(self.vectors.astype(np.float64)) * self.p

    def one_hot(self):
        return np.moveaxis(np.eye(self.classes)[self.class_ids], -1, self.axis + 1)


def assert_mapped(example, function, expected, mapped=None):
    """Check the function of each vector, or of what else is mapped, with logits that all share."""
    mapped = example.vectors if mapped is None else mapped
    result = jax.jit(jax.vmap(function, in_axes=(0, None)))(mapped, example.logits)
    atol = TOLERANCE * np.max(np.abs(expected))
    np.testing.assert_allclose(np.asarray(result, np.float64), expected, rtol=0, atol=atol)


@pytest.fixture(params=[(*size, axis) for size in SIZES for axis in (1, 0)], ids=str, scope="module")
def example(request):
    return Example(*request.param)


def test_derivatives_of_the_normalizations(example):
    axis = example.axis

    def tangent(function):
        return lambda v, z: jax.jvp(lambda z: function(z, axis), (z,), (v,))[1]

    def pullback(function):
        return lambda v, z: jax.vjp(lambda z: function(z, axis), z)[1](v)[0]

    vectors = example.vectors.astype(np.float64)
    assert_mapped(example, tangent(softmax), example.covariance())
    assert_mapped(example, pullback(softmax), example.covariance())
    assert_mapped(example, tangent(log_softmax), vectors - example.mean(vectors))
    assert_mapped(example, pullback(log_softmax), vectors - example.p * vectors.sum(axis=axis + 1, keepdims=True))
    assert_mapped(example, tangent(logsumexp), np.squeeze(example.mean(vectors), axis=axis + 1))


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["plain", "options"])
def test_second_derivatives_of_the_loss(example, options):
    y, axis = jnp.asarray(example.class_ids[0]), example.axis
    options = {"axis": axis, "reduction": "sum", **options}
    expected = example.hessian_product(**options)

    def loss(z):
        return softmax_crossentropy_with_logits(z, y, **options)

    def product(v, z):
        return hvp_softmax_crossentropy_with_logits(z, y, v, **options)

    assert_mapped(example, product, expected)
    assert_mapped(example, lambda v, z: jax.linear_transpose(lambda v: product(v, z), v)(v)[0], expected)
    assert_mapped(example, lambda v, z: jax.jvp(jax.grad(loss), (z,), (v,))[1], expected)
    assert_mapped(example, lambda v, z: jax.grad(lambda z: jax.jvp(loss, (z,), (v,))[1])(z), expected)
    assert_mapped(example, lambda v, z: jax.grad(lambda z: jnp.sum(jax.grad(loss)(z) * v))(z), expected)


def test_answers_and_weights_that_are_mapped(example):
    axis, p, one_hot = example.axis, example.p, example.one_hot()

    def gradient(y, z):
        return grad_softmax_crossentropy_with_logits(z, y, axis, reduction="sum")

    def loss(y, z):
        return softmax_crossentropy_with_logits(z, y, axis)

    assert_mapped(example, gradient, p - one_hot, example.class_ids)
    assert_mapped(example, loss, -np.sum(np.log(p) * one_hot, axis=axis + 1), example.class_ids)
    weights = np.random.default_rng(13).random((len(example.vectors), example.classes)).astype(np.float32)
    spread = np.expand_dims(weights.astype(np.float64), 1 if axis == 1 else 2)
    q = spread * (0.9 * one_hot[:1] + 0.1 / example.classes)
    y = jnp.asarray(example.class_ids[0])

    def weighted(w, z):
        options = {"class_weights": w, "label_smoothing": 0.1, "reduction": "sum"}
        return grad_softmax_crossentropy_with_logits(z, y, axis, **options)

    assert_mapped(example, weighted, p * q.sum(axis=axis + 1, keepdims=True) - q, weights)


@pytest.mark.parametrize(
    ("compiled", "examples", "features", "classes"),
    [(False, 30, 2, 3), (True, 30, 2, 3), (True, 1000, 4, 3), (True, 200, 8, 10), (True, 5000, 3, 5)],
)
def test_hessian_of_a_linear_model(compiled, examples, features, classes):
    rng = np.random.default_rng(14)
    x = rng.normal(size=(examples, features)).astype(np.float32)
    weights = rng.normal(size=(features, classes)).astype(np.float32)
    y = jnp.asarray(rng.integers(0, classes, size=examples))
    exponentials = np.exp(x.astype(np.float64) @ weights)
    p = exponentials / exponentials.sum(axis=1, keepdims=True)
    curvature = np.einsum("nc,ce->nce", p, np.eye(classes)) - p[:, :, None] * p[:, None, :]
    expected = np.einsum("nd,nce,nf->dcfe", x, curvature, x) / examples

    def loss(weights):
        return softmax_crossentropy_with_logits(x @ weights, y, reduction="mean")

    for hessian in (jax.hessian(loss), jax.jacrev(jax.jacrev(loss)), jax.jacfwd(jax.jacfwd(loss))):
        values = (jax.jit(hessian) if compiled else hessian)(weights)
        atol = TOLERANCE * np.max(np.abs(expected))
        np.testing.assert_allclose(np.asarray(values, np.float64), expected, rtol=0, atol=atol)
