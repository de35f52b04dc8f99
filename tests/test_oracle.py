"""The oracle itself, against values from elsewhere."""

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from stable_softmax.reference.bounds import PRECISIONS, error_shares, representable
from stable_softmax.reference.divergences import exact_divergences, exact_kl_divergence
from stable_softmax.reference.exact import Exact, exact_rows

pytestmark = pytest.mark.covering_on("numpy")


def test_two_class_row_equals_the_series_of_log1p():
    """log1p(t) = t - t^2/2 + t^3/3 - ..., with t = exp(-40) summed as a rational series."""
    t = sum((Fraction(-40) ** n / math.factorial(n) for n in range(300)), Fraction(0))
    loss = sum(((-1) ** (n + 1) * t**n / n for n in range(1, 5)), Fraction(0))
    exact = exact_rows(np.asarray([[40.0, 0.0]]), np.asarray([0]))
    assert exact.crossentropy.nearest[0] == float(loss)
    assert exact.crossentropy.lacking[0] == float(loss - Fraction(float(loss)))
    assert exact.gradient.nearest[0, 0] == float(-t / (1 + t))


def test_equal_logits_give_equal_probabilities():
    exact = exact_rows(np.full((1, 3), 1e300), np.asarray([2]))
    np.testing.assert_array_equal(exact.softmax.nearest, np.full((1, 3), 1 / 3))
    np.testing.assert_array_equal(exact.gradient.nearest, [[1 / 3, 1 / 3, -2 / 3]])
    assert exact.crossentropy.nearest[0] == math.log(3)
    # 1/3 = 0.010101... in binary: what the nearest double lacks is exactly 2**-54 / 3.
    np.testing.assert_array_equal(exact.softmax.lacking, np.full((1, 3), 2.0**-54 / 3))


def test_kl_divergence_alone_is_that_of_all_divergences():
    rows = np.random.default_rng(0).normal(size=(2, 5, 4)).round(1)
    for logits, reference in zip(*rows, strict=True):
        alone, (exact, _) = exact_kl_divergence(logits, reference), exact_divergences(logits[None], reference[None]).kl
        np.testing.assert_array_equal(alone.nearest, exact.nearest[0])
        np.testing.assert_array_equal(alone.lacking, exact.lacking[0])


def test_kl_divergence_of_impossible_classes():
    logits, reference = np.asarray([0.0, 0.0, -np.inf, 0.0]), np.asarray([0.0, 0.0, -np.inf, -np.inf])
    assert exact_kl_divergence(logits, reference).nearest.item() == math.log(3 / 2)  # of 1/2 to 1/3


def test_excluded_class_and_lone_class():
    exact = exact_rows(np.asarray([[-np.inf, 5.0]]), np.asarray([1]))
    np.testing.assert_array_equal(exact.softmax.nearest, [[0, 1]])
    np.testing.assert_array_equal(exact.log_softmax.nearest, [[-np.inf, 0]])
    np.testing.assert_array_equal(exact.gradient.nearest, [[0, 0]])
    assert exact.logsumexp.nearest[0] == 5


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_share_counts_units_of_roundoff(precision):
    """Two classes and a span of 0 allow 18 units; the value is off by 9 of them."""
    unit = PRECISIONS[precision].unit_roundoff
    exact = Exact(np.asarray([[1.0, 1.0]]), np.zeros((1, 2)))
    shares = error_shares(np.asarray([[1.0, 1 + 9 * 2 * unit]]), exact, np.zeros((1, 2)), precision)
    np.testing.assert_allclose(shares, [[0, 1]], rtol=1e-6)


def test_share_of_nan_is_nan_and_of_a_wrong_infinity_infinite():
    exact = Exact(np.asarray([[1.0, 1.0]]), np.zeros((1, 2)))
    shares = error_shares(np.asarray([[np.nan, np.inf]]), exact, np.zeros((1, 2)), "float64")
    np.testing.assert_array_equal(shares, [[np.nan, np.inf]])


def test_infinity_is_right_beyond_the_largest_number():
    exact = Exact(np.asarray([7e4]), np.zeros(1))
    logits = np.asarray([[3e4, -4e4]])
    assert error_shares(np.asarray([np.inf]), exact, logits, "float16")[0] == 0
    assert error_shares(np.asarray([-np.inf]), exact, logits, "float16")[0] == np.inf


def test_bfloat16_has_eight_bits():
    values = np.asarray([1 + 2.0**-7, 1 + 2.0**-8, -3e38])
    np.testing.assert_array_equal(representable(values, "bfloat16"), values.astype(ml_dtypes.bfloat16).astype(float))
