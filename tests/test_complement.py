"""The logarithm of 1 - softmax keeps its digits where the softmax is nearly 0 or 1, and so do its derivatives."""

import numpy as np
import pytest
from contract_columns import assert_pattern
from flint import arb
from loss_options import with_arrays

from stable_softmax import log_softmax_complement
from stable_softmax.reference.bounds import error_shares, representable
from stable_softmax.reference.exact import Exact, evaluated

pytestmark = [pytest.mark.covering_on("numpy", "jax", "torch"), pytest.mark.quick_on("numpy")]

INF, NAN, T, F = np.inf, np.nan, True, False
NANS, HALVES = [NAN] * 3, [-np.log(2)] * 2


def exact_complement(logits):
    def of_row(row):
        def definition():
            exponentials = [(arb(z) - arb(max(row))).exp() for z in row]
            total = sum(exponentials, arb(0))
            others = [sum(exponentials[:i] + exponentials[i + 1 :], arb(0)) for i in range(len(row))]
            return [[(rest / total).log() for rest in others]]

        return evaluated(definition)[0]

    rows = [of_row(row.tolist()) for row in logits]
    return Exact(*map(np.stack, zip(*rows, strict=True)))


def test_every_lead_keeps_the_contract(backend, dtype):
    rng = np.random.default_rng(31)
    for classes in (2, 3, 30):
        logits = rng.normal(size=(80, classes)) * 2
        logits[:, 0] += np.repeat([0, 0.7, 2, 9, 20, 60, 100, 300], 10)
        logits = representable(logits, dtype)
        values = backend.call(log_softmax_complement, backend.logits(logits, dtype))
        assert error_shares(values, exact_complement(logits), logits, dtype).max() <= 1


# logits, where, result
CONTRACT = {
    "flat": ([0, 0, 0], [T, T, T], [np.log(2 / 3)] * 3),
    "two lead": ([0, 0, -INF], [T, T, T], [*HALVES, 0]),
    "one class is possible": ([3, -INF, -INF], [T, T, T], [-INF, 0, 0]),
    "all -inf": ([-INF] * 3, [T, T, T], NANS),
    "+inf": ([0, INF, 0], [T, T, T], NANS),
    "NaN": ([0, NAN, 0], [T, T, T], NANS),
    "mask excludes NaN": ([0, NAN, 0], [T, F, T], [HALVES[0], 0, HALVES[0]]),
    "mask leaves one class": ([0, 7, 0], [F, T, F], [0, -INF, 0]),
    "mask leaves no class": ([NAN, INF, 0], [F, F, F], [0, 0, 0]),
    "ends": ([3e38, -3e38, 0], [T, T, T], [-3e38, 0, 0]),
}


@pytest.mark.parametrize("case", CONTRACT.values(), ids=CONTRACT)
def test_contract(backend, case):
    logits, where, pattern = case
    given = backend.call(
        with_arrays(log_softmax_complement, ("where",)),
        backend.logits([[1, 2, 3], logits, [3, 2, 1]], "float32"),
        backend.array(np.asarray([[T, T, T], where, [T, T, T]])),
    )
    assert_pattern(given[1], pattern)
    assert np.all(np.isfinite(given[[0, 2]]))


@pytest.mark.parametrize("axis", [0, (0, 2), None])
def test_axes(backend, axis):
    z = np.random.default_rng(32).normal(size=(2, 3, 4))
    given = backend.call(log_softmax_complement, backend.logits(z, "float32"), axis=axis)
    weights = np.exp(z)
    total = weights.sum(axis=axis, keepdims=True)
    np.testing.assert_allclose(given, np.log(1 - weights / total), rtol=1e-5)


@pytest.mark.only_backends("jax", "torch")
@pytest.mark.parametrize("row", [[0.3, -1, 2, 0.5], [5.0, 0, 0, 1], [1.0, 1, 0, 0]], ids=str)
def test_derivatives(library, row):
    transformations = library.transformations
    compiled = getattr(transformations, "jit", lambda function: function)

    def definition(z):
        weights = library.xp.exp(z)
        return library.xp.log1p(-weights / library.xp.sum(weights))

    z = library.array(np.asarray(row))
    forward, reverse = transformations.jacfwd, transformations.jacrev
    for derive in (forward, reverse, lambda f: forward(reverse(f)), lambda f: reverse(reverse(reverse(f)))):
        given, expected = (library.numpy(compiled(derive(f))(z)) for f in (log_softmax_complement, definition))
        np.testing.assert_allclose(given, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.only_backends("jax", "torch")
def test_derivatives_of_a_leader_keep_their_digits(library):
    """Which are -p, and the shares of all others."""
    z = library.array(np.asarray([60.0, 1, 0], np.float32))
    slopes = library.numpy(library.transformations.jacrev(log_softmax_complement)(z))
    shares = np.exp([1.0, 0]) / np.exp([1.0, 0]).sum()
    np.testing.assert_allclose(slopes[0], [-1, *shares], rtol=1e-6)
    assert np.all(slopes[1:, 0] > 0)
