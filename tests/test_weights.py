"""The logsumexp with weights, and its sign: the contract, the accuracy, and what SciPy's `b` and `return_sign` give."""

import numpy as np
import pytest
import scipy.special
from contract_columns import assert_pattern
from flint import arb, ctx

from stable_softmax import logsumexp
from stable_softmax._core import layout as layouts
from stable_softmax.reference.bounds import PRECISIONS, representable
from stable_softmax.reference.exact import Exact, evaluated

pytestmark = [pytest.mark.covering_on("numpy", "torch"), pytest.mark.quick_on("numpy")]

INF, NAN, T, F = np.inf, np.nan, True, False
LN2, LN3, LN6 = np.log([2, 3, 6])


def weighted(logits, weights, where=None, **options):
    return logsumexp(logits, weights=weights, where=where, **options)


def with_sign(logits, weights, where=None, **options):
    return logsumexp(logits, weights=weights, where=where, return_sign=True, **options)


# logits, weights, where; logarithm of the magnitude, sign
CONTRACT = {
    "ordinary": ([0, 0, 0], [1, 2, 3], [T, T, T], LN6, 1),
    "negative sum": ([0, 0, 0], [1, -2, -5], [T, T, T], LN6, -1),
    "sum of -1": ([0, 0, 0], [3, 7, -11], [T, T, T], 0, -1),
    "negative leader of a positive sum": ([0, LN2, LN6], [4, 4, -1], [T, T, T], LN6, 1),
    "zero sum": ([0, 0, 0], [1, 1, -2], [T, T, T], -INF, 0),
    "zero sum of odd weights": ([700, 700, 700], [2, 3, -5], [T, T, T], -INF, 0),
    "zero sum of large terms": ([1000, 1000, -INF], [1, -1, 1], [T, T, T], -INF, 0),
    "what is left of terms that cancel": ([1000, 1000, 960], [1, -1, 1], [T, T, T], 960, 1),
    "weights of 0": ([5, 1e4, 0], [0, 0, 0], [T, T, T], -INF, 0),
    "weight of 0 at the largest": ([-1000, 1e4, -1000], [1, 0, 1], [T, T, T], -1000 + LN2, 1),
    "weight of 0 at +inf": ([0, INF, 0], [1, 0, 1], [T, T, T], LN2, 1),
    "weight of 0 at NaN": ([0, NAN, 0], [1, 0, 1], [T, T, T], LN2, 1),
    "weight of 0 at NaN alone": ([-INF, NAN, -INF], [1, 0, 1], [T, T, T], -INF, 0),
    "weight of -0": ([0, INF, 0], [1, -0.0, 1], [T, T, T], LN2, 1),
    "-inf": ([0, -INF, 0], [1, 5, 1], [T, T, T], LN2, 1),
    "all -inf": ([-INF] * 3, [1, -1, 2], [T, T, T], -INF, 0),
    "+inf": ([0, INF, 0], [-9, 1, 1], [T, T, T], INF, 1),
    "-inf as a term": ([0, INF, 0], [9, -1, 1], [T, T, T], INF, -1),
    "+inf twice": ([INF, INF, 0], [2, 1, -1], [T, T, T], INF, 1),
    "+inf of both signs": ([INF, INF, INF], [2, 1, -1], [T, T, T], NAN, NAN),
    "NaN": ([0, NAN, 0], [1, 1, 0], [T, T, T], NAN, NAN),
    "NaN and +inf": ([INF, NAN, 0], [1, 1, 0], [T, T, T], NAN, NAN),
    "weight of NaN": ([0, 0, 0], [1, NAN, 1], [T, T, T], NAN, NAN),
    "weight of NaN at -inf": ([0, -INF, 0], [1, NAN, 1], [T, T, T], NAN, NAN),
    "infinite weight": ([0, -1000, 0], [1, INF, 1], [T, T, T], INF, 1),
    "infinite weight, negative": ([0, 0, 0], [1, -INF, 1], [T, T, T], INF, -1),
    "infinite weight at -inf": ([0, -INF, 0], [1, INF, 1], [T, T, T], NAN, NAN),
    "infinite weights of both signs": ([0, 0, 0], [INF, -INF, 1], [T, T, T], NAN, NAN),
    "huge weight of a tiny term": ([-200, -INF, -INF], [1e30, 1, 1], [T, T, T], np.log(1e30) - 200, 1),
    "tiny weight of a huge term": ([200, 0, 0], [1e-37, 1, 1], [T, T, T], 200 + np.log(1e-37), 1),
    "weights at both ends": ([175, 0, 0], [1e-37, 2e38, -2e38], [T, T, T], 175 + np.log(1e-37), 1),
    "ends": ([3e38, -3e38, 0], [-1e-37, 1e38, 1], [T, T, T], 3e38, -1),
    "huge weights of equal logits": ([3e38, 3e38, 3e38], [3e38, 3e38, 3e38], [T, T, T], 3e38, 1),
    "where excludes NaN": ([0, NAN, 0], [1, 1, -3], [T, F, T], LN2, -1),
    "where excludes a weight of NaN": ([0, 0, 0], [1, NAN, -3], [T, F, T], LN2, -1),
    "where excludes all": ([0, NAN, INF], [1, NAN, INF], [F, F, F], -INF, 0),
}


@pytest.mark.parametrize("case", CONTRACT.values(), ids=CONTRACT)
def test_contract(backend, case):
    """With weights for each row, and neighbours that must stay as they are."""
    logits, weights, where, logarithm, sign = case
    z = backend.logits([[1, 2, 3], logits, [3, 2, 1]], "float32")
    w = backend.array(np.asarray([[1, 2, 3], weights, [-1, 2, 0]], np.float32))
    kept = backend.array(np.asarray([[T, T, T], where, [T, T, T]]))
    values, signs = backend.call(with_sign, z, w, kept)
    assert values.dtype == signs.dtype == np.float32
    assert_pattern(values[1], logarithm)
    assert_pattern(signs[1], sign)
    assert_pattern(values[[0, 2]], np.log([np.e + 2 * np.e**2 + 3 * np.e**3, np.e**3 - 2 * np.e**2]))
    np.testing.assert_array_equal(signs[[0, 2]], [1, -1])
    assert_pattern(backend.call(weighted, z, w, kept)[1], NAN if sign == -1 else logarithm)


def test_sign_without_weights(backend):
    z = backend.logits([[1, 2], [-INF, -INF], [0, INF], [NAN, 0]], "float32")
    totals, signs = backend.call(logsumexp, z, return_sign=True)
    np.testing.assert_array_equal(totals, backend.call(logsumexp, z))
    np.testing.assert_array_equal(signs, [1, 0, 1, NAN])


def test_sign_of_a_logarithm_beyond_the_dtype(library):
    if "float16" in library.dtypes:
        z = library.logits([[-1e6, -1e6]], "float32")
        for weights in (None, library.array(np.ones(2, np.float32))):
            assert library.call(logsumexp, z, weights=weights, return_sign=True, dtype="float16") == (-INF, 1)


def exact_sums(logits, weights):
    """Return for each row `log|S|`, and `S / M` with the sum of magnitudes `M`."""

    def of_row(row, factors):
        def definition():
            top = arb(max(row))
            terms = [arb(w) * (arb(z) - top).exp() for z, w in zip(row, factors, strict=True)]
            total, magnitude = sum(terms, arb(0)), sum(map(abs, terms), arb(0))
            return [[abs(total).log() + top, total / magnitude]]

        return evaluated(definition)[0]

    pairs = zip(logits.tolist(), weights.tolist(), strict=True)
    rows = np.stack([of_row(*pair) for pair in pairs])
    return Exact(*rows[..., 0].T), Exact(*rows[..., 1].T)


def scale_of(logits, weights):
    """Return the largest of 2, the largest logit, and the logarithms of the weights."""
    return np.max([np.full(len(logits), 2), np.abs(logits.max(axis=1)), np.abs(np.log(np.abs(weights))).max(axis=1)], 0)


def shares_of_bound(values, signs, logits, weights, dtype):
    """Return errors relative to the sum of magnitudes, as shares of 32 units times the scale."""
    logarithms, sums = exact_sums(logits, weights)
    # exp(L) * sign / M, from the error of L
    with np.errstate(over="ignore"):
        given = signs * np.abs(sums.nearest) * np.exp(values - logarithms.nearest - logarithms.lacking)
    errors = np.where(signs == 0, np.abs(sums.nearest), np.abs(given - sums.nearest))
    units = 32 * PRECISIONS["float64" if dtype == "float64" else "float32"].unit_roundoff
    return errors / (units * scale_of(logits, weights))


def drawn(count, classes, dtype, negative):
    """Draw logits and weights of the dtype of the computation: moderate ones, and ones over the whole range."""
    rng = np.random.default_rng(classes)
    working = "float64" if dtype == "float64" else "float32"
    exponents = np.asarray([0, 1, 0.999 * np.log10(PRECISIONS[working].largest)])[rng.integers(3, size=(count, 1))]
    weights = 10.0 ** (exponents * rng.uniform(-0.98, 1, size=(count, classes)))
    weights[::5] = 1
    if negative:
        weights *= rng.choice([-1, 1], size=weights.shape)
    logits = rng.normal(size=weights.shape) * 10.0 ** rng.uniform(-2, 2, size=(count, 1))
    balanced = rng.random(count) < 0.4  # terms of about equal size
    logits[balanced] -= np.log(np.abs(weights[balanced]))
    return representable(logits, dtype), representable(weights, working)


@pytest.mark.parametrize("negative", [False, True], ids=["positive", "both signs"])
def test_sums_keep_the_bound(backend, dtype, negative):
    working = "float64" if dtype == "float64" else "float32"
    for classes in (1, 2, 3, 10, 200):
        logits, weights = drawn(600 // (1 + classes // 50), classes, dtype, negative)
        z, w = backend.logits(logits, dtype), backend.logits(weights, working)
        values, signs = backend.call(with_sign, z, w, dtype=working)
        shares = shares_of_bound(values.astype(float), signs, logits, weights, dtype)
        assert shares.max() <= 1, classes
        if not negative:
            np.testing.assert_array_equal(signs, 1)


def test_results_of_narrow_logits_are_rounded_once(backend, dtype):
    logits, weights = drawn(300, 10, dtype, negative=False)
    working = "float64" if dtype == "float64" else "float32"
    values = backend.call(weighted, backend.logits(logits, dtype), backend.logits(weights, working))
    exact = exact_sums(logits, weights)[0]
    units = 32 * PRECISIONS[working].unit_roundoff * scale_of(logits, weights)
    assert np.all(exact.error(values) <= units + PRECISIONS[dtype].unit_roundoff * np.abs(exact.nearest) * 1.001)


def test_small_results_keep_their_digits(backend, dtype):
    """Where a term of weight 1 or -1 and logit 0 leads, whatever its place is, and other terms are tiny."""
    for sign, rest in ((1, 1), (-1, 1), (1, -1)):
        logits = representable(np.asarray([[0, -z, -z - 1.5] for z in (5, 20, 40, 80)]), dtype)
        logits[1::2] = logits[1::2, ::-1]
        weights = np.where(logits == 0, 1.0, rest * 0.5) * sign
        values, signs = backend.call(with_sign, backend.logits(logits, dtype), backend.logits(weights, dtype))
        exact = exact_sums(logits, weights)[0]
        working = PRECISIONS["float64" if dtype == "float64" else "float32"]
        units = (82 + 2 * np.log2(3) + 32) * working.unit_roundoff + PRECISIONS[dtype].unit_roundoff
        allowed = units * np.abs(exact.nearest) + 3 * PRECISIONS[dtype].smallest_normal
        assert np.all(exact.error(values) <= allowed)
        np.testing.assert_array_equal(signs, sign)


def test_a_leader_below_larger_logits_keeps_the_digits_of_a_small_result(backend):
    z, w = backend.logits([[5.0, 0, -60]], "float32"), backend.array(np.asarray([1e-30, 1, 1], np.float32))
    given = backend.call(weighted, z, w)
    np.testing.assert_allclose(given, [1e-30 * np.exp(5) + np.exp(-60)], rtol=1e-5)


def test_weights_of_1_change_nothing_but_rounding(backend, dtype):
    rng = np.random.default_rng(4)
    for classes in (1, 3, 40, 300):
        z = backend.logits(rng.normal(size=(20, classes)) * 3, dtype)
        w = backend.array(np.ones(classes, np.float32))
        plain = backend.call(logsumexp, z).astype(float)
        eps = 2 * PRECISIONS[dtype].unit_roundoff
        np.testing.assert_allclose(backend.call(weighted, z, w), plain, rtol=8 * eps, atol=16 * eps)


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), None])
@pytest.mark.parametrize("shapes", [((2, 3, 4), (4,)), ((2, 3, 4), (2, 1, 1)), ((3, 1), (2, 3, 4)), ((2, 3, 4), ())])
def test_shapes(backend, axis, shapes):
    rng = np.random.default_rng(5)
    logits, weights = rng.normal(size=shapes[0]), rng.normal(size=shapes[1])
    total = np.sum(weights * np.exp(logits), axis=axis, keepdims=True)
    z, w = backend.logits(logits, "float32"), backend.array(np.asarray(weights, np.float32))
    for keepdims in (False, True):
        values, signs = backend.call(with_sign, z, w, axis=axis, keepdims=keepdims)
        expected = total if keepdims else np.squeeze(total, axis)
        assert values.shape == signs.shape == expected.shape
        np.testing.assert_allclose(signs * np.exp(values), expected, rtol=1e-4, atol=1e-6)


def test_no_classes_and_no_rows(backend):
    for shape, axis in (((2, 0), 1), ((0, 3), 1), ((2, 3, 0), (1, 2))):
        z = backend.logits(np.zeros(shape), "float32")
        for given in (
            backend.call(with_sign, z, z, axis=axis),
            backend.call(logsumexp, z, axis=axis, return_sign=True),
        ):
            rows = np.sum(np.zeros(shape), axis=axis)
            np.testing.assert_array_equal(given[0], rows - INF)
            np.testing.assert_array_equal(given[1], rows)


def test_0d_logits(backend):
    z, w = backend.logits(3.0, "float32"), backend.array(np.asarray(-2.0, np.float32))
    values, signs = backend.call(with_sign, z, w, axis=None)
    assert (values.shape, float(signs)) == ((), -1)
    np.testing.assert_allclose(values, 3 + LN2, rtol=1e-6)


def test_dtypes(library):
    """The result has that of the logits; wider weights widen the work, and integers do not."""
    z, ones = library.logits([[1000.0, 1000]], "float32"), np.asarray([1.0, -1 - 1e-10])
    values, signs = library.call(with_sign, z, library.array(ones))
    assert values.dtype == np.float32
    assert signs[0] == -1
    np.testing.assert_allclose(values, 1000 + np.log(1e-10), rtol=1e-6)
    values, signs = library.call(with_sign, z, library.array(np.asarray([3, -1])))
    assert values.dtype == signs.dtype == np.float32
    np.testing.assert_allclose(values, 1000 + LN2, rtol=1e-6)


REFUSED = {
    "bool": (np.ones(3, bool), TypeError, "weights must have a real floating-point or integer dtype, not .*bool: pass"),
    "complex": (
        np.ones(3, np.complex64),
        TypeError,
        "weights must have a real floating-point or integer dtype, not .*",
    ),
    "shape": (np.ones(2), ValueError, r"weights must broadcast with logits' shape \(2, 3\), but its shape is \(2,\)"),
    "rows": (np.ones((3, 3)), ValueError, r"weights must broadcast with logits' shape \(2, 3\), .* \(3, 3\)"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_weights_that_are_refused(library, case):
    weights, error, message = case
    with pytest.raises(error, match=f"^{message}"):
        logsumexp(library.logits(np.zeros((2, 3)), "float32"), weights=library.array(weights))


def test_arguments_that_are_refused(library):
    z = library.logits(np.zeros((2, 3)), "float32")
    with pytest.raises(TypeError, match=r"^return_sign must be True or False, not 1$"):
        logsumexp(z, return_sign=1)
    with pytest.raises(TypeError, match=r"^weights must be an array"):
        logsumexp(z, weights=[1.0, 2, 3])
    with pytest.raises(ValueError, match=r"^where must broadcast to logits' shape \(2, 3\), not \(2,\)"):
        logsumexp(z, weights=z, where=library.array(np.asarray([True, False])))


# What people asked for or found wrong elsewhere, with the answers of exact arithmetic.


def test_moments_of_a_distribution_in_logarithms(backend):
    """SciPy 264: weights that are no probabilities, such as the values whose mean is wanted."""
    z = np.asarray([-800.0, -801, -802.5])
    x = np.asarray([1.0, 10, 100])
    mean = np.sum(x * np.exp(z + 800)) / np.sum(np.exp(z + 800))
    logits = backend.logits(z, "float64")
    given = backend.call(weighted, logits, backend.array(x)) - backend.call(logsumexp, logits)
    np.testing.assert_allclose(given, np.log(mean), rtol=1e-12)


def test_numbers_of_both_signs_kept_as_logarithms(backend):
    """SciPy 4627 and NumPy 5652: add numbers that are too large for the dtype, of which some are negative."""
    logs, signs = np.asarray([1000.0, 999, 998, 1001]), np.asarray([1.0, -1, 1, -1])
    total = np.sum(signs * np.exp(logs - 1000))
    value, sign = backend.call(with_sign, backend.logits(logs, "float64"), backend.array(signs))
    assert sign == np.sign(total)
    np.testing.assert_allclose(value, 1000 + np.log(abs(total)), rtol=1e-14)
    difference = backend.call(weighted, backend.logits([1000.0, 999], "float64"), backend.array(np.asarray([1.0, -1])))
    np.testing.assert_allclose(difference, 1000 + np.log1p(-np.exp(-1)), rtol=1e-14)


@pytest.mark.parametrize(("last", "sign"), [(-0.5, 1), (-2.5, -1)])
def test_the_largest_term_has_a_negative_weight(backend, last, sign):
    """SciPy 22903: NaN for a positive sum."""
    z, w = np.asarray([3.0, 0.25, 4]), np.asarray([1.5, 3, last])
    total = np.sum(w * np.exp(z))
    assert np.sign(total) == sign
    given = backend.call(weighted, backend.logits(z, "float64"), backend.array(w))
    np.testing.assert_allclose(given, np.log(total) if sign > 0 else NAN, rtol=1e-13)


def test_weight_of_0_hides_a_large_logit(backend):
    """SciPy 4702 and JAX 5370: -inf, since the shift was that of a term that does not count."""
    z, w = backend.logits([-1000.0, -2], "float32"), backend.array(np.asarray([1.0, 0], np.float32))
    assert backend.call(weighted, z, w) == -1000


def test_infinite_term_of_a_negative_weight(backend):
    """SciPy 23548: a sign of NaN."""
    given = backend.call(with_sign, backend.logits([INF], "float32"), backend.array(np.asarray([-1], np.float32)))
    assert given == (INF, -1)


@pytest.mark.only_backends("numpy")
def test_moderate_sums_are_those_of_scipy():
    rng = np.random.default_rng(6)
    z, w = rng.normal(size=(4, 50, 6)) * 5, rng.normal(size=(50, 1))
    for axis in (0, (0, 2), None):
        expected = scipy.special.logsumexp(z, axis=axis, b=w, return_sign=True)
        for values, same in zip(logsumexp(z, axis, weights=w, return_sign=True), expected, strict=True):
            np.testing.assert_allclose(values, same, rtol=1e-9)


def test_the_leader_is_that_of_the_terms(backend):
    """And not of the logits, whose largest may have a tiny weight: SciPy 1.17 is off by 600."""
    z, w = backend.logits([-800.0, 0], "float64"), backend.array(np.asarray([1e308, 1e-300]))
    np.testing.assert_allclose(backend.call(weighted, z, w), np.log(1e308) - 800, rtol=1e-13)


@pytest.mark.only_backends("numpy", "torch")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("classes", [10, 300])
def test_bits_of_a_row_do_not_depend_on_its_neighbours(library, classes, masked, monkeypatch):
    """Nor on the order in memory of the weights, on blocks, or on other rows' weights, some of which are 0."""
    monkeypatch.setattr(layouts, "BLOCK_BYTES", 1 << 14)
    rng = np.random.default_rng(7)
    z, w = (rng.normal(size=(60_000 // classes, classes)).astype(np.float32) for _ in range(2))
    w[::7, 0], w[::5] = 0, np.abs(w[::5])
    arrays = [z, w, rng.random(z.shape) < 0.9][: 2 + masked]
    whole = np.stack(library.call(with_sign, *map(library.array, arrays)))
    other_order = [library.array(array) for array in (z, *map(np.asfortranarray, arrays[1:]))]
    np.testing.assert_array_equal(np.stack(library.call(with_sign, *other_order)), whole)
    for i in (0, 7, 35, 199):
        alone = library.call(with_sign, *(library.array(array[i : i + 1].copy()) for array in arrays))
        np.testing.assert_array_equal(np.stack(alone)[:, 0], whole[:, i])


def test_balls_are_wide_enough():
    """The reference itself: cancelling terms get as many digits as they need."""
    logarithms, sums = exact_sums(np.asarray([[100.0, 0, 100]]), np.asarray([[1.0, 1, -1]]))
    with ctx.workprec(200):
        assert logarithms.nearest[0] == 0
        assert abs(sums.nearest[0] / float(arb(-100).exp() / 2) - 1) < 1e-15
