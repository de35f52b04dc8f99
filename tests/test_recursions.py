"""Recursions in log space, where -inf means impossible: hidden Markov models and alignments.

A sum over nothing but impossible ways is itself impossible, and nothing that it is made of can change that.
"""

import numpy as np
import pytest

from stable_softmax import logsumexp, softmax

pytestmark = pytest.mark.quick_on("jax")

EPS = np.finfo(np.float64).eps
START = np.asarray([0.6, 0.4, 0.0])
# Nothing starts in the third state and nothing else leads to it: all ways to it are impossible.
TRANSITIONS = np.asarray([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])
EMISSIONS = np.asarray([[0.5, 0.5], [0.9, 0.1], [0.0, 1.0]])
OBSERVED = [0, 1, 0, 0, 1]


def log(probabilities):
    with np.errstate(divide="ignore"):
        return np.log(probabilities)


def log_likelihood(xp, transitions, emissions, start):
    """Return the log-likelihood of what was observed, by the forward recursion over logarithms."""
    state = start + emissions[:, OBSERVED[0]]
    for symbol in OBSERVED[1:]:
        state = logsumexp(xp.expand_dims(state, axis=1) + transitions, axis=0) + emissions[:, symbol]
    return logsumexp(state)


def likelihood(transitions, emissions, start):
    """Return the likelihood by the same recursion over probabilities."""
    state = start * emissions[:, OBSERVED[0]]
    for symbol in OBSERVED[1:]:
        state = (state @ transitions) * emissions[:, symbol]
    return state.sum()


def slopes(arguments):
    """Return the derivatives of the log-likelihood in each logarithm, by central differences of a factor."""
    step = 1e-6
    gradients = []
    for i, array in enumerate(arguments):
        gradient = np.zeros(array.shape)
        for j in np.ndindex(array.shape):
            up, down = array.copy(), array.copy()
            up[j] *= np.exp(step)
            down[j] *= np.exp(-step)
            pair = [likelihood(*arguments[:i], changed, *arguments[i + 1 :]) for changed in (up, down)]
            gradient[j] = (np.log(pair[0]) - np.log(pair[1])) / (2 * step)
        gradients.append(gradient)
    return gradients


ARGUMENTS = (TRANSITIONS, EMISSIONS, START)


def derivatives(library):
    """Return the gradients of the log-likelihood in all arguments, and the slope along all ones, in both modes."""
    xp, func, given = library.xp, library.transformations, tuple(library.array(log(array)) for array in ARGUMENTS)
    ones = tuple(library.array(np.ones(array.shape)) for array in ARGUMENTS)

    def value(*arguments):
        return log_likelihood(xp, *arguments)

    gradients = func.grad(value, argnums=(0, 1, 2))
    return gradients(*given), func.jvp(value, given, ones)[1], func.jvp(gradients, given, ones)[1]


@pytest.mark.only_backends("jax", "torch")
def test_gradients_of_a_hidden_markov_model_with_impossible_ways(library):
    gradients, slope, second = derivatives(library)
    for gradient, expected in zip(gradients, slopes(ARGUMENTS), strict=True):
        np.testing.assert_allclose(library.numpy(gradient), expected, rtol=0, atol=1e-8)
    # Each step of each way is counted: four transitions, five emissions and one start.
    np.testing.assert_allclose(float(slope), 10, rtol=64 * EPS)
    # To scale all probabilities of a kind adds a constant, whose slope does not change.
    for values in second:
        np.testing.assert_allclose(library.numpy(values), 0, rtol=0, atol=64 * EPS)


def test_value_of_a_hidden_markov_model(library):
    given = (library.array(log(array)) for array in ARGUMENTS)
    value = library.numpy(log_likelihood(library.xp, *given))
    np.testing.assert_allclose(value, np.log(likelihood(*ARGUMENTS)), rtol=8 * EPS)


@pytest.mark.only_backends("jax", "torch")
@pytest.mark.parametrize("axis", [0, 1, (0, 1)])
def test_nothing_but_impossible_ways_has_no_slope(library, axis):
    """And no curvature, in every order of the modes; a softmax of it stays NaN."""
    rows = library.array(np.asarray([[-np.inf, -np.inf], [-np.inf, -np.inf]]))
    func = library.transformations

    def total(z):
        return logsumexp(z, axis=axis)

    def damped(z):
        return library.xp.sum(library.xp.exp(total(z)))

    assert np.all(library.numpy(total(rows)) == -np.inf)
    assert np.all(library.numpy(func.grad(damped)(rows)) == 0)
    forward, reverse = func.jacfwd, func.jacrev
    orders = forward(total), reverse(total), forward(reverse(total)), reverse(forward(total))
    for values in library.compiled.call(lambda z: tuple(derivative(z) for derivative in orders), rows):
        assert np.all(values == 0)
    assert np.all(np.isnan(library.numpy(softmax(rows, axis=axis))))
