"""What holds for all logits, whatever their values."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import stable_softmax
from stable_softmax.reference.bounds import PRECISIONS

pytestmark = [pytest.mark.quick_on("numpy", "jax"), pytest.mark.unversioned]

SHAPES = [(1, 1), (1, 2), (3, 4), (4, 3), (2, 17)]
RELAXED = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@st.composite
def examples(draw, elements):
    logits = draw(st.sampled_from(SHAPES).flatmap(lambda shape: arrays.arrays(np.float64, shape, elements=elements)))
    class_ids = draw(arrays.arrays(np.int64, logits.shape[0], elements=st.integers(0, logits.shape[1] - 1)))
    return logits, class_ids


def finite(dtype, limit=math.inf):
    largest = min(PRECISIONS[dtype].largest, limit)
    return st.floats(-largest, largest)


def units(dtype, classes):
    """Return the part of the contract's bound that does not depend on the span: it cancels from a sum of a row."""
    return (2 * math.log2(classes) + 16) * PRECISIONS[dtype].unit_roundoff


def on(backend, function, dtype, logits, *class_ids, **options):
    return backend.call(function, backend.logits(logits, dtype), *map(backend.array, class_ids), **options)


def gradient_rows(backend, dtype, logits, class_ids, **options):
    function = stable_softmax.grad_softmax_crossentropy_with_logits
    return on(backend, function, dtype, logits, class_ids, reduction="none", **options)


def test_shift_invariance(backend, dtype):
    """Multiples of 1/4 plus an integer are exact: nothing may change but the roundings of the exponentials."""
    precision = PRECISIONS["float64" if dtype == "float64" else "float32"]

    @RELAXED
    @given(examples(st.integers(-100, 100).map(lambda n: n / 4)), st.integers(-32, 32))
    def check(example, shift):
        logits, class_ids = example
        shifted = logits + shift
        log_probabilities = [on(backend, stable_softmax.log_softmax, dtype, z) for z in (logits, shifted)]
        if backend.name != "dask":  # whose merged pieces have units that a shift changes
            np.testing.assert_array_equal(*log_probabilities)
        for value, beside in (
            log_probabilities,
            (on(backend, stable_softmax.softmax, dtype, logits), on(backend, stable_softmax.softmax, dtype, shifted)),
            (gradient_rows(backend, dtype, logits, class_ids), gradient_rows(backend, dtype, shifted, class_ids)),
        ):
            allowed = (16 * precision.unit_roundoff + 2 * PRECISIONS[dtype].unit_roundoff) * np.abs(value)
            assert np.all(np.abs(beside - value) <= allowed + PRECISIONS[dtype].smallest_normal)

    check()


def test_permutation_equivariance(backend, dtype):
    @RELAXED
    @given(examples(finite(dtype)), st.randoms(use_true_random=False))
    def check(example, random):
        logits, class_ids = example
        order = list(range(logits.shape[1]))
        random.shuffle(order)
        tolerance = {"rtol": 2 * units(dtype, len(order)), "atol": 2 * PRECISIONS[dtype].smallest_normal}
        expected = on(backend, stable_softmax.softmax, dtype, logits)[:, order]
        np.testing.assert_allclose(on(backend, stable_softmax.softmax, dtype, logits[:, order]), expected, **tolerance)
        new_ids = np.argsort(order)[class_ids]
        expected = gradient_rows(backend, dtype, logits, class_ids)[:, order]
        np.testing.assert_allclose(gradient_rows(backend, dtype, logits[:, order], new_ids), expected, **tolerance)

    check()


def test_rows_of_softmax_sum_to_one(backend, dtype):
    @RELAXED
    @given(examples(finite(dtype)))
    def check(example):
        for row in on(backend, stable_softmax.softmax, dtype, example[0]):
            assert abs(math.fsum(row.astype(np.float64)) - 1) <= units(dtype, row.size)
            assert np.all(row >= 0)

    check()


def test_rows_of_the_gradient_sum_to_zero(backend, dtype):
    @RELAXED
    @given(examples(finite(dtype)))
    def check(example):
        logits, class_ids = example
        floor = logits.shape[1] * PRECISIONS[dtype].smallest_normal
        for row, label in zip(gradient_rows(backend, dtype, logits, class_ids), class_ids, strict=True):
            entries = row.astype(np.float64)
            assert abs(math.fsum(entries)) <= units(dtype, row.size) * math.fsum(abs(entries)) + floor
            assert entries[label] <= 0
            assert np.all(np.delete(entries, label) >= 0)

    check()


def test_class_axis_may_be_anywhere(backend, dtype):
    @RELAXED
    @given(examples(finite(dtype, limit=1e3)))
    def check(example):
        logits, class_ids = example
        expected = gradient_rows(backend, dtype, logits, class_ids)
        tolerance = {"rtol": 2 * units(dtype, logits.shape[1]), "atol": 2 * PRECISIONS[dtype].smallest_normal}
        moved = gradient_rows(backend, dtype, logits.T, class_ids, axis=0)
        np.testing.assert_allclose(moved.T, expected, **tolerance)
        for function in (stable_softmax.softmax, stable_softmax.log_softmax):
            moved = on(backend, function, dtype, logits.T[:, None], axis=-3)
            np.testing.assert_allclose(moved[:, 0].T, on(backend, function, dtype, logits), **tolerance)

    check()


def test_batch_equals_row_by_row(backend, dtype):
    @RELAXED
    @given(examples(finite(dtype)))
    def check(example):
        logits, class_ids = example
        tolerance = {"rtol": 2 * units(dtype, logits.shape[1]), "atol": 2 * PRECISIONS[dtype].smallest_normal}
        function = stable_softmax.softmax_crossentropy_with_logits
        batch = on(backend, function, dtype, logits, class_ids)
        rows = [on(backend, function, dtype, z, y) for z, y in zip(logits, class_ids, strict=True)]
        np.testing.assert_allclose(batch, np.stack(rows), **tolerance)

    check()
