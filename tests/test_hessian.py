"""The Hessian: its products against exact arithmetic and central differences of the gradient, and its diagonal."""

import numpy as np
import pytest
from flint import arb, ctx

import stable_softmax
from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    hessian_diagonal_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
)
from stable_softmax.reference.bounds import PRECISIONS, representable

pytestmark = [pytest.mark.covering_on("numpy", "jax"), pytest.mark.quick_on("numpy", "jax")]

EPS = np.finfo(np.float64).eps


def exact_product(logits, vector):
    """Return p * (v - sum(p * v)) row by row, and the sum of the magnitudes of its terms without one maximum's."""
    products, magnitudes = np.empty_like(logits), np.empty_like(logits)
    with ctx.workprec(4000):
        for i, (row, along) in enumerate(zip(logits.tolist(), vector.tolist(), strict=True)):
            exponentials = [(arb(z) - max(row)).exp() for z in row]
            total = sum(exponentials, arb(0))
            p = [e / total for e in exponentials]
            # The product does not change when a constant is subtracted from the vector.
            centred = [arb(v) - along[int(np.argmax(row))] for v in along]
            mean = sum((a * b for a, b in zip(p, centred, strict=True)), arb(0))
            spread = sum((a * abs(b) for a, b in zip(p, centred, strict=True)), arb(0))
            products[i] = [float(a * (b - mean)) for a, b in zip(p, centred, strict=True)]
            magnitudes[i] = [float(a * (abs(b) + spread)) for a, b in zip(p, centred, strict=True)]
    return products, magnitudes


def rows(dtype, lead):
    rng = np.random.default_rng(17)
    logits = rng.normal(size=(60, 5)) * 2
    class_ids = rng.integers(0, 5, size=60)
    logits[np.arange(60), class_ids] = logits.max(axis=1) + lead
    return representable(logits, dtype), class_ids, representable(rng.normal(size=(60, 5)), dtype)


@pytest.mark.parametrize("lead", [0, 20, 60])
def test_product_keeps_the_digits_of_its_terms(backend, dtype, lead):
    """Terms of both signs may cancel, so the bound is relative to their magnitudes: a lead makes these tiny."""
    logits, class_ids, vector = rows(dtype, lead)
    exact, magnitudes = exact_product(logits, vector)
    arrays = backend.logits(logits, dtype), backend.array(class_ids), backend.logits(vector, dtype)
    product = backend.call(hvp_softmax_crossentropy_with_logits, *arrays, reduction="sum")
    working = PRECISIONS["float64" if dtype == "float64" else "float32"]
    span = np.ptp(logits, axis=1, keepdims=True)
    allowed = (span + 32) * working.unit_roundoff * magnitudes + 5 * working.smallest_normal
    rounding = PRECISIONS[dtype]
    if rounding is not working:
        allowed += rounding.unit_roundoff * np.maximum(np.abs(exact), rounding.smallest_normal)
    assert np.max(np.abs(product - exact) / allowed) <= 1


def test_product_agrees_with_central_differences_of_the_gradient(backend):
    logits, class_ids, vector = rows("float64", 0)
    y = backend.array(class_ids)
    step = 1e-5
    up, down = (
        backend.call(grad_softmax_crossentropy_with_logits, backend.logits(z, "float64"), y)
        for z in (logits + step * vector, logits - step * vector)
    )
    product = backend.call(
        hvp_softmax_crossentropy_with_logits, backend.logits(logits, "float64"), y, backend.logits(vector, "float64")
    )
    eps, size = np.finfo(np.float64).eps, np.max(np.abs(vector))
    # The third derivative is below 1; the mean divides all by 60.
    atol = (step**2 / 6 * size**3 + 16 * eps / step) / 60
    np.testing.assert_allclose(product, (up - down) / (2 * step), rtol=0, atol=atol)


def test_special_rows_and_bad_labels(library):
    logits = [[np.nan, 0], [np.inf, 0], [-np.inf, -np.inf], [-np.inf, 3], [0, 0], [0, 0]]
    z, v = library.logits(logits, "float64"), library.logits([[1.0, 2.0]] * 6, "float64")
    product = library.call(
        hvp_softmax_crossentropy_with_logits, z, library.array(np.zeros(6, np.int64)), v, reduction="none"
    )
    np.testing.assert_array_equal(product[:3], np.full((3, 2), np.nan))
    np.testing.assert_array_equal(product[3:], [[0, 0], [-0.25, 0.25], [-0.25, 0.25]])
    if not library.reads_values:
        bad = library.array(np.asarray([0, 0, 0, 0, 2, 1]))
        product = library.call(hvp_softmax_crossentropy_with_logits, z, bad, v, reduction="none")
        np.testing.assert_array_equal(np.isnan(product[4:]), [[True, True], [False, False]])


@pytest.mark.parametrize(
    ("vector", "error", "message"),
    [
        (np.zeros((2, 3), bool), TypeError, r"^vector must have a real floating-point or integer dtype, not .*bool"),
        (np.zeros((2, 1)), ValueError, r"^vector must have logits' shape \(2, 3\), not \(2, 1\)$"),
        (None, TypeError, r"^vector must be an array of a library .*, not NoneType$"),
    ],
    ids=["bool", "shape", "None"],
)
def test_bad_vector(library, vector, error, message):
    z, y = library.array(np.zeros((2, 3))), library.array(np.zeros(2, np.int64))
    with pytest.raises(error, match=message):
        hvp_softmax_crossentropy_with_logits(z, y, vector if vector is None else library.array(vector))


def exact_variances(logits):
    """Return p * (1 - p), where 1 - p is the sum of the other classes' probabilities."""
    variances = np.empty_like(logits)
    with ctx.workprec(4000):
        for i, row in enumerate(logits.tolist()):
            exponentials = [(arb(z) - max(row)).exp() for z in row]
            square = sum(exponentials, arb(0)) ** 2
            others = [sum(exponentials[:j] + exponentials[j + 1 :], arb(0)) for j in range(len(row))]
            variances[i] = [float(e * rest / square) for e, rest in zip(exponentials, others, strict=True)]
    return variances


@pytest.mark.parametrize("lead", [0, 20, 60])
def test_diagonal_keeps_all_digits(backend, dtype, lead):
    """Also those of a class that leads so far that its probability rounds to 1."""
    logits, class_ids, _ = rows(dtype, lead)
    exact = exact_variances(logits)
    diagonal = backend.call(
        hessian_diagonal_softmax_crossentropy_with_logits,
        backend.logits(logits, dtype),
        backend.array(class_ids),
        reduction="sum",
    )
    working, rounding = PRECISIONS["float64" if dtype == "float64" else "float32"], PRECISIONS[dtype]
    span = np.ptp(logits, axis=1, keepdims=True)
    allowed = 2 * (span + 2 * np.log2(5) + 16) * working.unit_roundoff * exact + 5 * working.smallest_normal
    if rounding is not working:
        allowed += rounding.unit_roundoff * np.maximum(exact, rounding.smallest_normal)
    assert np.max(np.abs(diagonal - exact) / allowed) <= 1


@pytest.mark.only_backends("jax", "torch")
@pytest.mark.parametrize("lead", [0, 20])
def test_slopes_of_the_diagonal_keep_their_digits(library, lead):
    """In both modes: `(1 - 2 * p_j) * p_j * (v_j - sum(p * v))`, and its transpose."""
    logits, class_ids, vector = rows("float64", lead)
    z, v = library.logits(logits, "float64"), library.logits(vector, "float64")

    def diagonal(z):
        return hessian_diagonal_softmax_crossentropy_with_logits(z, library.array(class_ids), reduction="sum")

    product, magnitudes = exact_product(logits, vector)
    slopes = library.numpy(library.transformations.jvp(diagonal, (z,), (v,))[1])
    p = library.numpy(stable_softmax.softmax(z))
    np.testing.assert_array_less(np.abs(slopes - (1 - 2 * p) * product), 128 * EPS * magnitudes)
    transposed = library.numpy(library.transformations.vjp(diagonal, z)[1](v)[0])
    product, magnitudes = exact_product(logits, (1 - 2 * p) * vector)
    np.testing.assert_array_less(np.abs(transposed - product), 128 * EPS * magnitudes)
