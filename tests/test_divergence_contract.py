"""The contract of entropies and divergences as tables, on each backend: what goes in, and what comes out."""

import math

import numpy as np
import pytest
from contract_columns import assert_pattern, matching
from loss_options import with_arrays

import stable_softmax
from stable_softmax import (
    grad_softmax_kl_divergence,
    softmax_entropy,
    softmax_js_divergence,
    softmax_kl_divergence,
    value_and_grad_softmax_entropy,
    value_and_grad_softmax_js_divergence,
    value_and_grad_softmax_kl_divergence,
)

pytestmark = [pytest.mark.covering_on("numpy", "torch"), pytest.mark.quick_on("numpy")]

INF, NAN, T, F = math.inf, math.nan, True, False
LN2, LN3, NANS, ZEROS = math.log(2), math.log(3), [NAN] * 3, [0, 0, 0]
FLAT, TWO, ALL = [0.0, 0, 0], [0.0, 0, -INF], [T, T, T]
LOST, NOTHING = (NAN, NAN, NANS, NANS), (0, 0, ZEROS, ZEROS)
JS_OF_TWO_AND_FLAT = (2 / 3 * math.log(0.8) + LN2 / 3 + math.log(1.2)) / 2

# logits, reference logits, where; KL, JS, gradients of KL with respect to both
DIVERGENCES = {
    "ordinary": (FLAT, [0, 0, LN2], ALL, LN3 - 1.5 * LN2, None, [1 / 12, 1 / 12, -1 / 6], None),
    "equal": ([1, 2, 3], [1, 2, 3], ALL, *NOTHING),
    "equal but for an offset": ([1, 2, 3], [1025, 1026, 1027], ALL, *NOTHING),
    "equal but for a large offset": ([3e38] * 3, [-3e38] * 3, ALL, *NOTHING),
    "ties": ([5, 5, 0], [5, 5, 0], ALL, *NOTHING),
    "-inf in both": (TWO, TWO, ALL, *NOTHING),
    "-inf in logits": (TWO, FLAT, ALL, INF, JS_OF_TWO_AND_FLAT, [1 / 6, 1 / 6, -1 / 3], NANS),
    "-inf in the reference": (FLAT, TWO, ALL, LN3 - LN2, JS_OF_TWO_AND_FLAT, [-1 / 6, -1 / 6, 1 / 3], ZEROS),
    "nothing in common": ([0, -INF, -INF], [-INF, 0, -INF], ALL, INF, LN2, [1, -1, 0], NANS),
    "-inf where the reference underflows": ([0, 0, -INF], [0, 0, -800], ALL, INF, 0, ZEROS, NANS),
    "all -inf in logits": ([-INF] * 3, FLAT, ALL, *LOST),
    "all -inf in the reference": (FLAT, [-INF] * 3, ALL, *LOST),
    "all -inf": ([-INF] * 3, [-INF] * 3, ALL, *LOST),
    "+inf in logits": ([0, INF, 0], FLAT, ALL, *LOST),
    "+inf in the reference": (FLAT, [0, INF, 0], ALL, *LOST),
    "+inf in both": ([0, INF, 0], [0, INF, 0], ALL, *LOST),
    "NaN in logits": ([0, NAN, 0], FLAT, ALL, *LOST),
    "NaN in the reference": (FLAT, [0, NAN, 0], ALL, *LOST),
    "NaN and -inf": ([NAN, -INF, 0], FLAT, ALL, *LOST),
    "ends, equal": ([3e38, -3e38, 0], [3e38, -3e38, 0], ALL, *NOTHING),
    "ends, opposite": ([3e38, -3e38, 0], [-3e38, 3e38, 0], ALL, INF, LN2, [1, -1, 0], ZEROS),
    "lower end in logits": ([0, 0, -3.4e38], FLAT, ALL, INF, JS_OF_TWO_AND_FLAT, [1 / 6, 1 / 6, -1 / 3], None),
    "lower end in both": ([0, 0, -3.4e38], [0, 0, -3.4e38], ALL, *NOTHING),
    "lower end and -inf": ([0, 0, -3.4e38], TWO, ALL, *NOTHING),
    "far below": ([0, 0, -1.5e38], FLAT, ALL, 0.5e38, JS_OF_TWO_AND_FLAT, [1 / 6, 1 / 6, -1 / 3], None),
    "far apart": ([1000, 0, 0], [0, 1000, 0], ALL, 1000, LN2, [1, -1, 0], ZEROS),
    "mask excludes NaN": ([0, NAN, 0], [0, 0, 0], [T, F, T], *NOTHING),
    "mask excludes NaN of the reference": ([0, 0, 0], [0, NAN, 0], [T, F, T], *NOTHING),
    "mask excludes +inf and -inf": ([0, INF, 0], [0, -INF, 0], [T, F, T], *NOTHING),
    "mask leaves -inf": ([0, NAN, -INF], [0, 0, 0], [T, F, T], INF, None, [0.5, 0, -0.5], [NAN, 0, NAN]),
    "mask leaves one class": ([1, 2, 3], [3, 2, 1], [F, T, F], *NOTHING),
    "mask leaves no class": ([NAN, INF, -INF], [1, NAN, INF], [F, F, F], *NOTHING),
}
# logits, where; entropy, gradient
ENTROPIES = {
    "ordinary": ([0, 0, LN2], ALL, 1.5 * LN2, [LN2 / 8, LN2 / 8, -LN2 / 4]),
    "equal": ([7, 7, 7], ALL, LN3, ZEROS),
    "-inf": (TWO, ALL, LN2, ZEROS),
    "one class is possible": ([-INF, 3, -INF], ALL, 0, ZEROS),
    "ends": ([3e38, -3e38, 0], ALL, 0, ZEROS),
    "all -inf": ([-INF] * 3, ALL, NAN, NANS),
    "+inf": ([0, INF, -INF], ALL, NAN, NANS),
    "NaN": ([0, NAN, -INF], ALL, NAN, NANS),
    "mask excludes NaN": ([0, NAN, 0], [T, F, T], LN2, ZEROS),
    "mask leaves NaN": ([0, NAN, 0], [T, T, F], NAN, [NAN, NAN, 0]),
    "mask leaves one class": ([1, NAN, 3], [F, F, T], 0, ZEROS),
    "mask leaves no class": ([NAN, INF, -INF], [F, F, F], 0, ZEROS),
}


def among_ordinary_rows(backend, function, rows, left, **options):
    """Return the results of a batch in which the rows are the second of three, and those of the other two."""
    arrays = [backend.logits([[1, 2, 3], row, [3, 2, 1]], "float32") for row in rows]
    where = backend.array(np.asarray([ALL, left, ALL]))
    values = backend.call(with_arrays(function, ("where",)), *arrays, where, reduction="none", **options)
    return [values] if isinstance(values, np.ndarray) else flat(values)


def flat(values):
    return [values] if not isinstance(values, tuple) else [array for value in values for array in flat(value)]


def check(backend, function, case, count, patterns, **options):
    rows, left = case[:count], case[count]
    given = among_ordinary_rows(backend, function, rows, left, **options)
    for result, pattern in zip(given, patterns, strict=True):
        if pattern is not None:
            expected = np.where(left, np.asarray(pattern, object), 0) if np.ndim(pattern) else pattern
            assert_pattern(result[1], expected)
    for result, same in zip(given, among_ordinary_rows(backend, function, [FLAT] * count, ALL, **options), strict=True):
        np.testing.assert_array_equal(result[[0, 2]], same[[0, 2]])


@pytest.mark.parametrize("case", DIVERGENCES.values(), ids=DIVERGENCES)
def test_divergence_leaves_its_neighbours_alone(backend, case):
    kl, js, gradient, reference_gradient = case[3:]
    check(backend, softmax_kl_divergence, case, 2, [kl])
    check(backend, value_and_grad_softmax_kl_divergence, case, 2, [kl, gradient, reference_gradient])
    check(backend, softmax_js_divergence, case, 2, [js])
    gradients = [NANS if js is not None and js != js else None] * 2
    check(backend, value_and_grad_softmax_js_divergence, case, 2, [js, *gradients])


@pytest.mark.parametrize("case", ENTROPIES.values(), ids=ENTROPIES)
def test_entropy_leaves_its_neighbours_alone(backend, case):
    entropy, gradient = case[2:]
    check(backend, softmax_entropy, case, 1, [entropy])
    check(backend, value_and_grad_softmax_entropy, case, 1, [entropy, gradient])


@pytest.mark.thorough_on("jax")
def test_reductions(backend):
    rng = np.random.default_rng(0)
    arrays = [backend.logits(rng.normal(size=(4, 5, 3)), "float32") for _ in range(2)]
    for name in ("entropy", "kl_divergence", "js_divergence"):
        given = arrays[: 1 if name == "entropy" else 2]
        both = getattr(stable_softmax, f"value_and_grad_softmax_{name}")
        value, *gradients = flat(backend.call(both, *given, axis=1, reduction="none"))
        assert value.shape == (4, 3)
        for reduction, divisor in (("mean", 12), ("sum", 1)):
            total, *slopes = flat(backend.call(both, *given, axis=1, reduction=reduction))
            np.testing.assert_allclose(total, value.sum() / divisor, rtol=1e-6)
            for slope, gradient in zip(slopes, gradients, strict=True):
                np.testing.assert_allclose(slope, gradient / divisor, rtol=1e-6)
            alone = backend.call(getattr(stable_softmax, f"softmax_{name}"), *given, axis=1, reduction=reduction)
            np.testing.assert_allclose(alone, total, rtol=1e-6)
            same = flat(
                backend.call(getattr(stable_softmax, f"grad_softmax_{name}"), *given, axis=1, reduction=reduction)
            )
            for slope, gradient in zip(same, slopes, strict=True):
                np.testing.assert_allclose(slope, gradient, rtol=1e-6)


@pytest.mark.parametrize(
    "axis",
    [0, (2, 0), *(pytest.param(axis, marks=pytest.mark.thorough_on("jax")) for axis in (-2, (0, 2), (-1, 1), None))],
)
def test_axes(backend, axis):
    rng = np.random.default_rng(1)
    z, w = rng.normal(size=(2, 3, 4, 5))
    axes = tuple(range(3)) if axis is None else tuple(np.atleast_1d(axis) % 3)
    kept = tuple(i for i in range(3) if i not in axes)
    rows = [np.transpose(array, (*kept, *axes)).reshape(*(array.shape[i] for i in kept), -1) for array in (z, w)]
    for name in ("entropy", "kl_divergence", "js_divergence"):
        count = 1 if name == "entropy" else 2
        both = getattr(stable_softmax, f"value_and_grad_softmax_{name}")
        given = [backend.logits(array, "float32") for array in (z, w)[:count]]
        value, *gradients = flat(backend.call(both, *given, axis=axis, reduction="none"))
        expected, *slopes = flat(both(*rows[:count], reduction="none"))
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        for gradient, slope in zip(gradients, slopes, strict=True):
            ordered = np.transpose(gradient, (*kept, *axes)).reshape(slope.shape)
            np.testing.assert_allclose(ordered, slope, rtol=1e-4, atol=1e-7)


def test_one_logit(backend):
    z = backend.logits(3.0, "float32")
    for results in (
        backend.call(value_and_grad_softmax_entropy, z, axis=None),
        backend.call(value_and_grad_softmax_kl_divergence, z, z, axis=None),
        backend.call(value_and_grad_softmax_js_divergence, z, z, axis=None),
    ):
        assert all(result.shape == () and result == 0 for result in flat(results))


def test_no_examples(backend):
    z = backend.logits(np.zeros((0, 3)), "float32")
    for name in ("entropy", "kl_divergence", "js_divergence"):
        given = [z] if name == "entropy" else [z, z]
        value, *gradients = flat(backend.call(getattr(stable_softmax, f"value_and_grad_softmax_{name}"), *given))
        assert value == 0
        assert all(gradient.shape == (0, 3) for gradient in gradients)
        assert backend.call(getattr(stable_softmax, f"softmax_{name}"), *given).shape == (0,)


ONE_LIBRARY = "must be an array of a library that array-api-compat supports (...), not list: pass ...asarray(...)"
ERRORS = [
    ("logits", np.zeros((2, 0)), ValueError, "logits must have at least one class along axis -1, ... (2, 0)"),
    ("logits", np.zeros((2, 3), bool), TypeError, "logits must have a real ... or integer dtype, not ...bool"),
    ("reference_logits", np.zeros((2, 3), bool), TypeError, "reference_logits must have a real ..., not ...bool"),
    (
        "reference_logits",
        np.zeros((2, 3), complex),
        TypeError,
        "reference_logits must have a real ..., not ...complex128",
    ),
    ("reference_logits", np.zeros((3, 2)), ValueError, "reference_logits must have logits' shape (2, 3), not (3, 2)"),
    ("reference_logits", np.zeros(3), ValueError, "reference_logits must have logits' shape (2, 3), not (3,)"),
    ("reference_logits", [[0.0] * 3] * 2, TypeError, f"reference_logits {ONE_LIBRARY}"),
    ("reference_logits", None, TypeError, "reference_logits must be an array ..., not NoneType"),
    ("where", np.ones((2, 3)), TypeError, "where must be an array of booleans, not ...float64: pass where != 0"),
    ("where", np.ones(4, bool), ValueError, "where must broadcast to logits' shape (2, 3), not (4,)"),
    ("axis", 2, ValueError, "axis must lie in [-2, 2) for logits of 2 dimensions, but is 2"),
    (
        "reduction",
        "batchmean",
        ValueError,
        "reduction must be 'none', 'mean' or 'sum', not 'batchmean'; did you mean 'mean'?",
    ),
    ("dtype", "int32", TypeError, "dtype must be a real floating-point dtype of ..., or its name, not 'int32'"),
]
WEIGHTS = [
    (0, ValueError, "reference_weight must lie between 0 and 1, but is 0"),
    (1.0, ValueError, "reference_weight must lie between 0 and 1, but is 1.0"),
    (NAN, ValueError, "reference_weight must lie between 0 and 1, but is nan"),
    ("0.5", TypeError, "reference_weight must be a real number, not '0.5'"),
    (True, TypeError, "reference_weight must be a real number, not True"),
]


@pytest.mark.parametrize("case", ERRORS, ids=str)
@pytest.mark.parametrize("function", [grad_softmax_kl_divergence, softmax_js_divergence, softmax_entropy])
def test_bad_argument(backend, function, case):
    name, value, error, message = case
    if function is softmax_entropy and name == "reference_logits":
        return
    arguments = {"logits": np.zeros((2, 3)), "reference_logits": np.ones((2, 3)), name: value}
    if name == "logits" and value.shape != (2, 3):
        arguments["reference_logits"] = value
    if function is softmax_entropy:
        del arguments["reference_logits"]
    logits, *others = (backend.array(a) if isinstance(a, np.ndarray) else a for a in arguments.values())
    rest = dict(zip(list(arguments)[1:], others, strict=True))
    with pytest.raises(error, match=matching(message)):
        backend.bound(lambda logits: function(logits, **rest))(logits)


@pytest.mark.parametrize("case", WEIGHTS, ids=str)
def test_bad_weight(library, case):
    weight, error, message = case
    z = library.array(np.zeros((2, 3)))
    with pytest.raises(error, match=matching(message)):
        softmax_js_divergence(z, z, reference_weight=weight)


def test_dtypes(backend, dtype):
    """Results have the dtype of the logits, or the one that is asked for; the computation has the widest of all."""
    z, w = np.random.default_rng(2).normal(size=(2, 4, 3))
    narrow, wide = backend.logits(z, dtype), backend.logits(w, "float64")
    for options in ({}, {"dtype": "float32"}):
        results = backend.bound(value_and_grad_softmax_kl_divergence, **options)(narrow, wide)
        assert all(result.dtype == backend.dtype(options.get("dtype", dtype)) for result in flat(results))
    exact = softmax_kl_divergence(np.asarray(backend.numpy(narrow), np.float64), w)
    given = backend.call(softmax_kl_divergence, narrow, wide, dtype="float64")
    np.testing.assert_allclose(given, exact, rtol=1e-13)
    integers = np.asarray([[1, 2, 3]])
    given = backend.call(softmax_kl_divergence, backend.array(integers), backend.array(integers[:, ::-1].copy()))
    np.testing.assert_allclose(given, softmax_kl_divergence(integers * 1.0, integers[:, ::-1] * 1.0), rtol=1e-6)
