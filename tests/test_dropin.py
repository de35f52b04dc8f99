"""The drop-in for scipy.special beside SciPy itself: same arguments, same results, and digits that SciPy loses."""

import inspect
from itertools import product
from math import exp, log

import numpy as np
import pytest
import scipy.special

from stable_softmax.dropin import scipy_special as dropin

pytestmark = [pytest.mark.only_backends("numpy"), pytest.mark.covering]

EPS = np.finfo(np.float64).eps
#: Both sum up to 60 terms; SciPy's logarithms are of numbers near 1, so that their errors are absolute.
CLOSE = {"rtol": 64 * EPS, "atol": 64 * EPS}
AXES = (None, 0, 1, -1, (0, 2), (1, -1))
RNG = np.random.default_rng(7)
X = RNG.normal(size=(3, 4, 5)) * 4


def theirs(name):
    return getattr(scipy.special, name)


@pytest.mark.parametrize("name", dropin.__all__)
def test_signatures_are_those_of_scipy(name):
    ours, peer = (inspect.signature(getattr(module, name)) for module in (dropin, scipy.special))
    described = [[(p.name, p.kind, p.default) for p in s.parameters.values()] for s in (ours, peer)]
    assert described[0] == described[1]


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_agrees_along_every_axis(name, axis):
    np.testing.assert_allclose(getattr(dropin, name)(X, axis), theirs(name)(X, axis), **CLOSE)
    np.testing.assert_allclose(getattr(dropin, name)(x=X, axis=axis), theirs(name)(X, axis), **CLOSE)


@pytest.mark.parametrize(("axis", "keepdims", "return_sign"), [*product(AXES, (False, True), (False, True))], ids=str)
@pytest.mark.parametrize("weights", [None, 2, -1.5, X[0, 0] > 0, X, np.abs(X), np.arange(5), X.tolist()], ids=type)
def test_logsumexp_agrees_with_every_argument(axis, keepdims, return_sign, weights):
    options = {"axis": axis, "b": weights, "keepdims": keepdims, "return_sign": return_sign}
    expected, result = theirs("logsumexp")(X, **options), dropin.logsumexp(X, **options)
    pairs = zip(result, expected, strict=True) if return_sign else [(result, expected)]
    for one, other in pairs:
        # Terms of both signs cancel, by less than three digits here.
        np.testing.assert_allclose(one, other, rtol=1e4 * EPS, atol=1e4 * EPS)
        assert type(one) is type(other)
        assert one.dtype == other.dtype
        assert one.shape == other.shape


@pytest.mark.parametrize("given", [3, 3.0, True, [1, 2], [[1.0, 2], [3, 4]], (1, 2.5), np.float32(3), np.int64([1, 2])])
@pytest.mark.parametrize("name", dropin.__all__)
def test_numbers_and_lists_give_what_scipy_gives(name, given):
    if name != "logsumexp" and given is True:
        with pytest.raises(TypeError):
            theirs(name)([True])
        with pytest.raises(TypeError):
            getattr(dropin, name)([True])
        return
    expected, result = theirs(name)(given), getattr(dropin, name)(given)
    np.testing.assert_allclose(result, expected, **CLOSE)
    assert type(result) is type(expected)
    assert result.dtype == expected.dtype


DTYPES = ("float16", "float32", "float64", "longdouble", "int64", "bool")


@pytest.mark.parametrize(("first", "second"), [*product(DTYPES, DTYPES)])
def test_logsumexp_has_the_common_dtype_of_its_arrays(first, second):
    a, b = np.asarray([0, 1], first), np.asarray([1, 1], second)
    expected, result = theirs("logsumexp")(a, b=b), dropin.logsumexp(a, b=b)
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=8 * np.finfo(result.dtype).eps)


@pytest.mark.parametrize("number", [2, 2.5, True, np.float64(2), np.int64(2)], ids=repr)
@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_a_number_changes_the_dtype_as_in_scipy(kind, number):
    expected = theirs("logsumexp")(np.ones(3, kind), b=number)
    assert dropin.logsumexp(np.ones(3, kind), b=number).dtype == expected.dtype
    expected = theirs("logsumexp")(number, b=np.ones(3, kind))
    assert dropin.logsumexp(number, b=np.ones(3, kind)).dtype == expected.dtype


@pytest.mark.parametrize(
    ("a", "b", "logarithm", "sign"),
    [
        (list(range(200)), None, log(sum(exp(k) for k in range(200))), 1),
        ([1000, 1000], None, 1000 + log(2), 1),
        ([1e4, 1e-4], None, 1e4, 1),
        ([-1000, -1000], [1.2, 1.2], -1000 + log(2.4), 1),
        ([-np.inf, -np.inf], None, -np.inf, 0),
        ([np.inf, 0], None, np.inf, 1),
        ([np.inf, 0], [-1, 1], np.inf, -1),
        ([np.nan, 0], None, np.nan, np.nan),
        ([0, -np.inf], [1, 0], 0, 1),
        ([np.inf, 0], [0, 1], 0, 1),  # the weight 0 counts more than the infinity
        ([np.nan, 0], [0, 1], 0, 1),
        ([1, 1, 1], [1, -3, 1], 1, -1),
        ([0, 0], [1, -1], -np.inf, 0),
        (5, 2, 5 + log(2), 1),
        (1, [1, 2, -4], 1, -1),  # the weights have the larger shape
    ],
)
def test_sums_that_scipy_tests_itself(a, b, logarithm, sign):
    for module in (scipy.special, dropin):
        result = module.logsumexp(a, b=b, return_sign=True)
        np.testing.assert_allclose(result, (logarithm, sign), rtol=8 * EPS)
        alone = module.logsumexp(a, b=b)
        np.testing.assert_allclose(alone, np.nan if sign == -1 else logarithm, rtol=8 * EPS)


@pytest.mark.parametrize(
    ("x", "axis", "expected"),
    [
        ([1000, 0, 0, 0], None, [1, 0, 0, 0]),
        ([1, 1], None, [0.5, 0.5]),
        ([[1000, 0], [1000, 0]], None, [[0.5, 0], [0.5, 0]]),
        ([[-1000, 0], [0, -1000]], 1, [[0, 1], [1, 0]]),
        ([[1, 0], [0, -1]], (-2, -1), None),
        (np.full((2, 3, 4), 9.0), 2, np.full((2, 3, 4), 0.25)),
        ([-np.inf, 0], None, [0, 1]),
    ],
)
def test_softmax_that_scipy_tests_itself(x, axis, expected):
    expected = theirs("softmax")(x, axis) if expected is None else expected
    for module in (scipy.special, dropin):
        np.testing.assert_allclose(module.softmax(x, axis), expected, rtol=8 * EPS)
        with np.errstate(divide="ignore"):
            np.testing.assert_allclose(module.log_softmax(x, axis), theirs("log_softmax")(x, axis), rtol=8 * EPS)


def test_digits_that_scipy_loses():
    x = np.asarray([20.0, 0.0], np.float32)
    assert theirs("log_softmax")(x)[0] == 0
    np.testing.assert_allclose(dropin.log_softmax(x)[0], -np.log1p(exp(-20)), rtol=4 * np.finfo(np.float32).eps)
    weights = [1e308, 1e-300]
    assert theirs("logsumexp")([-800, 0], b=weights) < -690
    np.testing.assert_allclose(dropin.logsumexp([-800, 0], b=weights), log(1e308) - 800, rtol=64 * EPS)


def test_where_scipy_has_an_accident_the_drop_in_keeps_the_contract():
    with pytest.raises(ValueError, match="zero-size array"):
        theirs("softmax")([])
    assert dropin.softmax([]).shape == dropin.log_softmax([]).shape == (0,)
    assert theirs("logsumexp")([], return_sign=True)[1] == -1
    assert dropin.logsumexp([], return_sign=True) == (-np.inf, 0)
    assert dropin.logsumexp(np.zeros((0, 3))) == -np.inf
    with pytest.warns(RuntimeWarning, match="invalid value"):
        assert np.isnan(theirs("softmax")([np.inf, 0])).all()
    assert np.isnan(dropin.softmax([np.inf, 0])).any()
    assert theirs("softmax")(np.int8([1, 2])).dtype == np.float16
    assert dropin.softmax(np.int8([1, 2])).dtype == np.float64
    with np.errstate(all="ignore"):
        assert np.isnan(theirs("logsumexp")([1000, 1000], b=[1, -1]))
    assert dropin.logsumexp([1000, 1000], b=[1, -1]) == -np.inf


def test_arrays_of_others_become_numpy_arrays_as_in_scipy():
    class Other:
        def __array__(self, dtype=None, copy=None):
            return np.asarray([1.0, 2.0], dtype)

    for module in (scipy.special, dropin):
        assert type(module.softmax(Other())) is np.ndarray
        np.testing.assert_allclose(module.softmax(Other()), [1 / (1 + exp(1)), 1 / (1 + exp(-1))], rtol=4 * EPS)


@pytest.mark.parametrize("name", dropin.__all__)
def test_what_would_lose_a_mask_or_an_imaginary_part_is_refused(name):
    masked = np.ma.masked_array([1.0, 2.0], mask=[True, False])
    for refused in (masked, np.asarray([1j]), np.asarray(["a"])):
        with pytest.raises(TypeError):
            getattr(dropin, name)(refused)
    if name == "logsumexp":
        with pytest.raises(TypeError):
            dropin.logsumexp([1.0, 2.0], b=masked)


def test_a_logistic_loss_of_scipy_users_finds_the_same_minimum(monkeypatch):
    """A fit with scipy.optimize, of which one import has changed."""
    from scipy.optimize import minimize

    features = RNG.normal(size=(60, 3))
    labels = (features @ [[1, 0], [0, 2], [-1, 1]] + RNG.gumbel(size=(60, 2))).argmax(1)

    def loss(flat):
        logits = features @ flat.reshape(3, 2)
        likelihood = logits[np.arange(60), labels] - scipy.special.logsumexp(logits, axis=1)
        residual = scipy.special.softmax(logits, axis=1) - np.eye(2)[labels]
        return -likelihood.sum() + flat @ flat / 2, (features.T @ residual).ravel() + flat

    before = minimize(loss, np.zeros(6), jac=True).x
    for name in dropin.__all__:
        monkeypatch.setattr(scipy.special, name, getattr(dropin, name))
    np.testing.assert_allclose(minimize(loss, np.zeros(6), jac=True).x, before, rtol=1e-6)
