"""The notebook that the library grew out of, and what it prints."""

import numpy as np
import pytest

import stable_softmax
from stable_softmax import textbook

pytestmark = [pytest.mark.covering_on("numpy"), pytest.mark.installed]

ANSWERS = np.arange(50) % 10
EXTREME_LOSSES = [1803.6252505, 1603.22244489, 1402.81963928]
EXTREME_GRADIENT = [-0.02, 0, 0, 0, 0, 0, 1.58318655e-263, 1.71145201e-176, 1.85010919e-089, 0.02]


def notebook_logits(start, stop):
    return np.linspace(start, stop, 500).reshape(50, 10)


@pytest.fixture
def call(backend):
    """Call a function of NumPy arrays in the way of the notebook, on the backend."""

    def call(function, *arrays, **options):
        with np.errstate(all="ignore"):
            return backend.call(function, *map(backend.array, arrays), **options)

    return call


def assert_agree(*results):
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=16 * np.finfo(np.float64).eps)


def test_both_softmaxes_agree_on_moderate_logits(call):
    logits = notebook_logits(-1, 500)
    assert_agree(
        call(textbook.unstable_softmax, logits),
        call(textbook.shifted_softmax, logits),
        call(stable_softmax.softmax, logits, axis=1),
    )


def test_unstable_softmax_overflows_on_extreme_logits(call):
    logits = notebook_logits(-1, 5e5)
    first_row = call(textbook.unstable_softmax, logits)[0]
    np.testing.assert_array_equal(first_row, [0] + [np.nan] * 9)
    expected = np.tile([0.0] * 9 + [1.0], (50, 1))
    np.testing.assert_array_equal(call(textbook.shifted_softmax, logits), expected)
    np.testing.assert_array_equal(call(stable_softmax.softmax, logits, axis=1), expected)


@pytest.mark.thorough_on("jax")
def test_all_losses_and_gradients_agree_on_small_logits(call):
    logits = notebook_logits(-1, 1)
    assert_agree(
        call(textbook.unstable_crossentropy, logits, ANSWERS),
        call(textbook.crossentropy_via_probabilities, logits, ANSWERS),
        call(textbook.shifted_crossentropy, logits, ANSWERS),
        call(stable_softmax.softmax_crossentropy_with_logits, logits, ANSWERS),
    )
    assert_agree(
        call(textbook.unstable_gradient, logits, ANSWERS),
        call(textbook.shifted_gradient, logits, ANSWERS),
        call(stable_softmax.grad_softmax_crossentropy_with_logits, logits, ANSWERS),
    )


def test_losses_on_extreme_logits(call):
    logits = notebook_logits(-1, 1e5)
    for overflowing in (textbook.unstable_crossentropy, textbook.crossentropy_via_probabilities):
        np.testing.assert_array_equal(call(overflowing, logits, ANSWERS)[:3], np.inf)
    for stable in (textbook.shifted_crossentropy, stable_softmax.softmax_crossentropy_with_logits):
        np.testing.assert_allclose(call(stable, logits, ANSWERS)[:3], EXTREME_LOSSES, rtol=1e-11)


def test_gradients_on_extreme_logits(call):
    logits = notebook_logits(-1, 1e5)
    np.testing.assert_array_equal(call(textbook.unstable_gradient, logits, ANSWERS)[0], [-0.02, 0, 0, 0] + [np.nan] * 6)
    for stable in (textbook.shifted_gradient, stable_softmax.grad_softmax_crossentropy_with_logits):
        np.testing.assert_allclose(call(stable, logits, ANSWERS)[0], EXTREME_GRADIENT, rtol=1e-8)


def test_textbook_gradient_of_a_confident_row_collapses_and_ours_does_not(call):
    logits, answers = np.asarray([[50.0, 0.0]]), np.asarray([0])
    assert call(textbook.shifted_gradient, logits, answers)[0, 0] == 0
    assert call(textbook.shifted_crossentropy, logits, answers)[0] == 0
    exact = 1.9287498479639178e-22  # exp(-50) / (1 + exp(-50))
    ours = call(stable_softmax.grad_softmax_crossentropy_with_logits, logits, answers)
    np.testing.assert_allclose(ours, [[-exact, exact]], rtol=16 * np.finfo(np.float64).eps)
