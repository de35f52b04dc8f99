"""Sums of libraries that add one term after another, and the bits of rows of several axes."""

import numpy as np
import pytest
from marray import numpy as masked_numpy

import stable_softmax
from stable_softmax._libraries import library_of
from stable_softmax._maths.sums import accurate_sum

pytestmark = [pytest.mark.only_backends("numpy"), pytest.mark.covering, pytest.mark.unversioned]


def test_a_library_that_adds_in_order_keeps_the_bound():
    """A million classes along an axis that NumPy, which does the work here, adds up one after another."""
    logits, class_ids = np.zeros((10**6, 2), np.float32), np.asarray([7, 7])
    logits[7, 0] = 48
    losses = stable_softmax.softmax_crossentropy_with_logits(
        masked_numpy.asarray(logits), masked_numpy.asarray(class_ids), axis=0
    )
    exact = np.asarray([np.log1p((10**6 - 1) * np.exp(-48)), np.log(10**6)])
    bound = (48 + 2 * np.log2(10**6) + 16) * 2.0**-24
    np.testing.assert_allclose(np.asarray(losses.data), exact, rtol=bound)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 47, 48, 49, 1000, 4097])
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2)])
def test_sums_of_any_length_along_any_axes(length, axes):
    rng = np.random.default_rng(length)
    shape = [length if i == axes[0] else 3 for i in range(3)]
    terms = rng.random(shape).astype(np.float32)
    exact = np.sum(terms.astype(np.float64), axis=axes, keepdims=True)
    for given in (terms, np.asfortranarray(terms), masked_numpy.asarray(terms)):
        total = accurate_sum(library_of(given), given, axes)
        np.testing.assert_allclose(np.asarray(getattr(total, "data", total)), exact, rtol=40 * 2.0**-24)


@pytest.mark.parametrize(("axis", "rows"), [((0, 2), 1), ((2, 0), 1), ((1, 2), 0)])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_rows_of_several_axes_have_their_own_bits(axis, rows, name):
    rng, function = np.random.default_rng(0), getattr(stable_softmax, name)
    logits = np.asfortranarray(rng.normal(size=(40, 30, 50)).astype(np.float32) * 3)
    whole = function(logits, axis)
    for i in range(0, 30, 7):
        kept = (slice(None),) * rows + (slice(i, i + 1),)
        np.testing.assert_array_equal(function(logits[kept], axis), whole[kept if whole.ndim == 3 else kept[-1]])
