"""The loss of projected features: that of the logits, were they there, with any options and in blocks of any size."""

import re
import sys
from contextlib import nullcontext
from itertools import product

import numpy as np
import pytest

import stable_softmax
from stable_softmax import linear_softmax_crossentropy, value_and_grad_linear_softmax_crossentropy
from stable_softmax._libraries.standard import Library
from stable_softmax.reference.bounds import error_shares
from stable_softmax.reference.exact import exact_rows

pytestmark = pytest.mark.covering_on("numpy", "jax", "torch", "dask")

EXAMPLES, FEATURES, CLASSES, IGNORED = 23, 4, 17, -100
OPTIONS = {
    "plain": {},
    "ignored": {"ignore_index": IGNORED},
    "all": {"ignore_index": IGNORED, "label_smoothing": 0.1, "z_loss": 0.01},
    "weighted": {"example_weights": True, "class_weights": True, "ignore_index": IGNORED},
    "where": {"where": True, "class_weights": True},
    "probabilities": {
        "probabilities": True,
        "where": True,
        "class_weights": True,
        "example_weights": True,
        "z_loss": 0.1,
    },
}


def drawn(options, shape=(EXAMPLES,)):
    """Return features, weight, answers, bias and options, with NaN and infinity wherever nothing may look."""
    rng = np.random.default_rng(8)
    class_ids, options = rng.integers(0, CLASSES, size=shape), dict(options)
    features = rng.normal(size=(*shape, FEATURES))
    weight, bias = rng.normal(size=(CLASSES, FEATURES)), rng.normal(size=CLASSES)
    if "ignore_index" in options:
        class_ids[::4] = IGNORED
        features[::4] = np.nan
    if "where" in options:
        class_ids = np.where(class_ids == 5, 6, class_ids)
        options["where"] = (rng.random((*shape, CLASSES)) < 0.7) | (np.arange(CLASSES) == class_ids[..., None])
        options["where"][..., 5] = False
        weight[5], bias[5] = np.nan, np.inf
    if "class_weights" in options:
        options["class_weights"] = rng.random(CLASSES) + 0.2
    if "example_weights" in options:
        options["example_weights"] = rng.random(shape) + 0.2
        options["example_weights"][2::5] = 0
        features[2::5] = np.nan
    answers = class_ids
    if options.pop("probabilities", False):
        answers = rng.dirichlet(np.ones(CLASSES), size=shape)
        options["where"][1::7] = False
        features[1::7] = np.nan
    return features, weight, answers, bias, options


def of_logits(features, weight, answers, bias, softcap, reduction, **options):
    """Return loss and gradients by way of all logits, in float64."""
    logits = np.where(np.isnan(features), 0, features) @ weight.T + bias
    capped = logits if softcap is None else softcap * np.tanh(logits / softcap)
    loss, gradient = stable_softmax.value_and_grad_softmax_crossentropy_with_logits(
        capped, answers, reduction=reduction, **options
    )
    if softcap is not None:
        gradient = gradient / np.cosh(np.where(gradient == 0, 0, logits) / softcap) ** 2
    flat, rows = gradient.reshape(-1, CLASSES), np.where(np.isnan(features), 0, features).reshape(-1, FEATURES)
    of_features = flat @ np.where(np.isnan(weight), 0, weight)
    return loss, (of_features.reshape(features.shape), flat.T @ rows, flat.sum(axis=0))


def on_backend(backend, features, weight, answers, bias, options):
    arrays = [backend.array(array) for array in (features, weight, answers, bias)]
    return arrays, {k: backend.array(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}


# JAX compiles each, and Dask makes a graph of each block.
CASES = [
    pytest.param(*case, marks=[] if case == ("all", 2.0) else [pytest.mark.thorough_on("jax", "dask")])
    for case in product(OPTIONS, (None, 2.0))
]


@pytest.mark.parametrize(("name", "softcap"), CASES)
def test_loss_and_gradients_are_those_of_all_logits(library, name, softcap):
    case = drawn(OPTIONS[name])
    arrays, options = on_backend(library, *case)
    runs = [("none", 5), ("mean", 1), ("mean", None), ("sum", 7)]
    for reduction, block_size in runs[:1] if library.name == "jax" else runs:  # which compiles each
        expected, gradients = of_logits(*case[:4], softcap, reduction, **case[4])
        rest = {"softcap": softcap, "reduction": reduction, "block_size": block_size, **options}
        loss, given = value_and_grad_linear_softmax_crossentropy(*arrays, **rest)
        alone = linear_softmax_crossentropy(*arrays, **rest)
        for result, same in ((loss, expected), (alone, expected), *zip(given, gradients, strict=True)):
            # Products of some numbers near 1, of which terms of both signs may cancel.
            np.testing.assert_allclose(library.numpy(result), same, rtol=1e-12, atol=1e-13)


@pytest.mark.thorough_on("jax")
def test_batches_of_any_shape_with_masks_that_broadcast(library):
    features, weight, answers, bias, options = drawn(OPTIONS["where"], (3, 4))
    for where in (options["where"], options["where"][:, :1] | True, np.arange(CLASSES) != 5):
        case = features, weight, answers, bias, options | {"where": where & (np.arange(CLASSES) != 5)}
        arrays, given = on_backend(library, *case)
        loss, gradients = value_and_grad_linear_softmax_crossentropy(*arrays, **given, reduction="none", block_size=5)
        expected, of_all = of_logits(*case[:4], None, "none", **case[4])
        for result, same in ((loss, expected), *zip(gradients, of_all, strict=True)):
            assert tuple(result.shape) == same.shape
            np.testing.assert_allclose(library.numpy(result), same, rtol=1e-12, atol=1e-13)


def test_one_example_and_none(library):
    _, weight, _, bias, _ = drawn({})
    one = linear_softmax_crossentropy(
        *(library.array(a) for a in (np.ones(FEATURES), weight, np.asarray(3), bias)), reduction="none"
    )
    assert tuple(one.shape) == ()
    none = [library.array(a) for a in (np.zeros((0, FEATURES)), weight, np.zeros(0, np.int64), bias)]
    loss, (of_features, of_weight, of_bias) = value_and_grad_linear_softmax_crossentropy(*none)
    assert float(loss) == 0
    assert tuple(of_features.shape) == (0, FEATURES)
    np.testing.assert_array_equal(library.numpy(of_weight), np.zeros(weight.shape))
    np.testing.assert_array_equal(library.numpy(of_bias), np.zeros(bias.shape))


def test_a_confident_loss_keeps_its_digits(backend, dtype):
    """Products of small integers are exact, so that the bound is that of the logits' loss."""
    rng = np.random.default_rng(3)
    features, class_ids = np.eye(8)[rng.integers(0, 8, size=12)], rng.integers(0, 6, size=12)
    weight = rng.integers(-20, 20, size=(6, 8)).astype(float)
    logits = features @ weight.T
    class_ids[:6] = np.argmax(logits[:6], axis=1)
    exact = exact_rows(logits, class_ids)

    def both(*arrays):
        loss, gradients = value_and_grad_linear_softmax_crossentropy(*arrays, reduction="none", block_size=5)
        return loss, gradients[0]

    arrays = backend.logits(features, dtype), backend.logits(weight, dtype), backend.array(class_ids)
    losses, _ = backend.call(both, *arrays)
    assert error_shares(losses, exact.crossentropy, logits, dtype).max() <= 1


def test_narrow_features_are_accumulated_in_single_precision(backend):
    """The sum of the products of many ones is exact there, and far from it in half precision."""
    features, weight = np.ones((3, 4096)), np.stack([np.ones(4096), np.zeros(4096)])
    features[0, :5], class_ids = 2, np.asarray([0, 1, 1])
    for name in set(backend.dtypes) & {"float16", "bfloat16"}:
        arrays = backend.logits(features, name), backend.logits(weight, name), backend.array(class_ids)
        losses = backend.call(linear_softmax_crossentropy, *arrays, reduction="none", dtype=backend.dtype("float32"))
        np.testing.assert_array_equal(losses, np.asarray([0, 4096, 4096], np.float32))


def test_results_have_the_dtypes_of_what_they_are_of(library):
    features, weight, answers, bias, _ = drawn({})
    arrays = library.logits(features, "float32"), library.array(weight), library.array(answers), library.array(bias)
    loss, gradients = value_and_grad_linear_softmax_crossentropy(*arrays)
    assert [a.dtype for a in (loss, *gradients)] == [library.dtype(d) for d in ("float64", "float32", *["float64"] * 2)]
    loss, gradients = value_and_grad_linear_softmax_crossentropy(*arrays, dtype="float32")
    assert [a.dtype for a in (loss, *gradients)] == [library.dtype("float32")] * 4
    assert value_and_grad_linear_softmax_crossentropy(*arrays[:3])[1][2] is None


BAD = {
    "features": (np.zeros((2, 4), bool), TypeError, "features must have a real floating-point or integer dtype, not"),
    "weight": (
        np.zeros((4, 5)),
        ValueError,
        r"weight must have shape \(classes, 4\) for features \(2, 4\), not .*transposed",
    ),
    "bias": (np.zeros(4), ValueError, r"bias must have shape \(5,\), one for each class, not \(4,\)"),
    "reference_answers": (np.zeros(2), ValueError, "class ids need an integer dtype"),
    "reference_answers, flattened": (
        np.zeros(6, int),
        ValueError,
        r"must have shape \(2, 3\), .* not \(6,\): reshape them",
    ),
    "softcap": (0, ValueError, r"softcap must lie in \[2.225e-308, 1.798e\+308\], but is 0"),
    "softcap, size": (10**400, ValueError, r"in \[2.225e-308, 1.798e\+308\], but is 1000"),
    "softcap, kind": ("30", TypeError, "softcap must be a real number or None, not '30'"),
    "block_size": (0, ValueError, "block_size must be at least 1, but is 0"),
    "block_size, kind": (2.0, TypeError, "block_size must be an integer or None, not 2.0"),
    "class_weights": (np.zeros(4), ValueError, r"class_weights must have shape \(5,\)"),
    "example_weights": (np.ones(3), ValueError, r"example_weights must have shape \(2,\), one for each example"),
    "where": (np.ones((3, 5), bool), ValueError, r"where must broadcast to logits' shape \(2, 5\)"),
    "reduction": ("avg", ValueError, "did you mean 'mean'"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("function", [linear_softmax_crossentropy, value_and_grad_linear_softmax_crossentropy])
def test_bad_argument(function, name):
    value, error, message = BAD[name]
    given = {"features": np.zeros((2, 4)), "weight": np.zeros((5, 4)), "reference_answers": np.zeros(2, int)}
    if name == "reference_answers, flattened":
        given["features"] = np.zeros((2, 3, 4))
    with pytest.raises(error, match=message):
        function(**(given | {name.partition(",")[0]: value}))


REFUSED = ["classes", ("features", "features"), ["weight", "kernel"], None, 3, [0], b"bias"]


@pytest.mark.only_backends("numpy")
@pytest.mark.parametrize("bad", REFUSED, ids=str)
def test_names_of_gradients_that_are_refused(bad):
    names = bad if isinstance(bad, (list, tuple)) else [bad]
    error = ValueError if all(isinstance(name, str) for name in names) else TypeError
    with pytest.raises(error, match=r"^with_respect_to must .*, not " + re.escape(repr(bad))):
        value_and_grad_linear_softmax_crossentropy(*drawn({})[:4], with_respect_to=bad)


def test_negative_target_is_named_or_spoils_its_example(library):
    targets = np.full((2, 3, 2), 0.5)
    targets[1, 2] = [-2.3, 3.3]
    arrays = [library.array(array) for array in (np.ones((2, 3, 4)), np.eye(2, 4), targets)]
    if library.reads_values:
        with pytest.raises(ValueError, match=r"^reference_answers must .*, but is -2.3 at position \(1, 2, 0\); are"):
            linear_softmax_crossentropy(*arrays)
    else:
        losses = linear_softmax_crossentropy(*arrays, reduction="none")
        np.testing.assert_array_equal(np.isnan(library.numpy(losses)), [[False] * 3, [False, False, True]])


@pytest.mark.only_backends("numpy", "torch", "array-api-strict")
def test_bad_class_id_is_named_by_its_place_in_the_batch(library):
    answers = np.zeros((2, 3), np.int64)
    answers[1, 2] = 5
    with pytest.raises(ValueError, match=r"class ids in \[0, 5\), but is 5 at position \(1, 2\)"):
        linear_softmax_crossentropy(
            *(library.array(a) for a in (np.zeros((2, 3, 4)), np.zeros((5, 4)), answers)), block_size=2
        )


@pytest.mark.only_backends("numpy")
def test_arguments_stay_as_they_are_and_may_be_read_only():
    features, weight, answers, bias, _ = drawn({})
    before = [array.copy() for array in (features, weight, answers, bias)]
    for array in (features, weight, answers, bias):
        array.flags.writeable = False
    with np.errstate(all="raise"):
        value_and_grad_linear_softmax_crossentropy(features, weight, answers, bias, block_size=3)
    for array, same in zip((features, weight, answers, bias), before, strict=True):
        np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_examples_that_are_all_ignored_give_zeros_and_not_nan(library, reduction):
    features, weight, answers, bias, _ = drawn({})
    arrays, _ = on_backend(library, features * np.nan, weight, np.full_like(answers, IGNORED), bias, {})
    loss, gradients = value_and_grad_linear_softmax_crossentropy(
        *arrays, ignore_index=IGNORED, reduction=reduction, block_size=5
    )
    for result in (loss, *gradients):
        np.testing.assert_array_equal(library.numpy(result), np.zeros(tuple(result.shape)))


def with_gaps():
    """Return a case in which each example excludes other classes, with NaN in weights, bias and features.

    Some of it counts for some examples, and for others not.
    """
    features, weight, class_ids, bias, _ = drawn({})
    rng = np.random.default_rng(5)
    features, class_ids = np.abs(features), class_ids % 3
    where = (rng.random((EXAMPLES, CLASSES)) < 0.6) | (np.arange(CLASSES) == class_ids[:, None])
    is_bad = np.isin(np.arange(EXAMPLES), [0, 3, 4, 11, 16])
    where[:, [4, 6, 7, 8]] &= is_bad[:, None]
    where[:, 9:] &= ~is_bad[:, None]
    weight[4, 1], bias[8] = np.nan, np.nan
    weight[6], weight[7] = np.nan, np.asarray([np.inf, -np.inf] * (FEATURES // 2))
    features[3, 2], features[11] = np.nan, np.inf
    class_ids[2], class_ids[10] = IGNORED, IGNORED
    features[2] = np.nan
    return features, weight, class_ids, bias, {"where": where, "ignore_index": IGNORED}


def of_rows(features, weight, class_ids, bias, softcap, where):
    """Return losses and the gradients of their sum, by way of the logits of the classes that each row leaves."""
    losses, of_features = np.zeros(len(features)), np.zeros(features.shape)
    of_weight, of_bias = np.zeros(weight.shape), np.zeros(bias.shape)
    for i in np.flatnonzero(class_ids != IGNORED):
        left = np.flatnonzero(where[i])
        logits = weight[left] @ features[i] + bias[left]
        capped = logits if softcap is None else softcap * np.tanh(logits / softcap)
        label = np.flatnonzero(left == class_ids[i])
        loss, gradient = stable_softmax.value_and_grad_softmax_crossentropy_with_logits(
            capped[None, :], label, reduction="sum"
        )
        gradient = gradient[0] if softcap is None else gradient[0] / np.cosh(logits / softcap) ** 2
        losses[i], of_features[i] = loss, gradient @ weight[left]
        of_weight[left] += np.outer(gradient, features[i])
        of_bias[left] += gradient
    return losses, (of_features, of_weight, of_bias)


@pytest.mark.parametrize("softcap", [None, pytest.param(2.0, marks=pytest.mark.thorough_on("jax", "dask"))])
def test_nan_counts_only_for_the_examples_that_leave_its_class(library, softcap):
    case = with_gaps()
    with np.errstate(invalid="ignore"):
        losses, gradients = of_rows(*case[:4], softcap, case[4]["where"])
    for result in (losses, *gradients):
        assert 0 < np.isnan(result).sum() < result.size
    arrays, options = on_backend(library, *case)
    loss, given = value_and_grad_linear_softmax_crossentropy(
        *arrays, **options, softcap=softcap, reduction="none", block_size=5
    )
    alone = linear_softmax_crossentropy(*arrays, **options, softcap=softcap, reduction="none", block_size=5)
    for result, same in ((loss, losses), (alone, losses), *zip(given, gradients, strict=True)):
        np.testing.assert_allclose(library.numpy(result), same, rtol=1e-12, atol=1e-13)


@pytest.mark.only_backends("jax", "torch")
@pytest.mark.thorough_on("jax")
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_nan_counts_in_derivatives_where_it_counts_in_the_explicit_ones(library, softcap):
    (features, weight, answers, bias), options = on_backend(library, *with_gaps())
    options |= {"softcap": softcap, "block_size": 5}

    def total(reduction):
        def function(features, weight, bias):
            return linear_softmax_crossentropy(features, weight, answers, bias, reduction=reduction, **options).sum()

        return function

    _, expected = value_and_grad_linear_softmax_crossentropy(
        features, weight, answers, bias, reduction="none", **options
    )
    for reduction in ("none", "sum"):
        gradients = library.transformations.grad(total(reduction), (0, 1, 2))(features, weight, bias)
        for given, same in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(library.numpy(given), library.numpy(same), rtol=1e-12, atol=1e-13)


@pytest.mark.only_backends("jax", "torch")
@pytest.mark.parametrize("reduction", ["none", pytest.param("mean", marks=pytest.mark.thorough_on("jax"))])
def test_nan_that_no_example_counts_leaves_second_derivatives_as_they_are(library, reduction):
    features, weight, class_ids, bias, options = with_gaps()
    bad = [~np.isfinite(array) for array in (features, weight, bias)]
    is_bad_class = bad[1].any(axis=1) | bad[2]
    options["where"][:, is_bad_class] = False
    class_ids[bad[0].any(axis=1)] = IGNORED
    options["where"][class_ids == IGNORED] = True
    vectors = [np.cos(np.where(is_bad, 0, array)) for is_bad, array in zip(bad, (features, weight, bias), strict=True)]
    arrays, options = on_backend(library, features, weight, class_ids, bias, options)
    vectors = [library.array(vector) for vector in vectors]
    options |= {"softcap": 2.0, "block_size": 5, "reduction": reduction}

    def slope(features, weight, bias):
        def total(features, weight, bias):
            return (linear_softmax_crossentropy(features, weight, arrays[2], bias, **options) ** 2).sum()

        gradients = library.transformations.grad(total, (0, 1, 2))(features, weight, bias)
        return sum((vector * gradient).sum() for vector, gradient in zip(vectors, gradients, strict=True))

    dirty = arrays[0], arrays[1], arrays[3]
    clean = [library.xp.where(library.xp.isfinite(array), array, 0.0) for array in dirty]
    given, expected = (library.transformations.grad(slope, (0, 1, 2))(*each) for each in (dirty, clean))
    for result, same in zip(given, expected, strict=True):
        np.testing.assert_allclose(library.numpy(result), library.numpy(same), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("softcap", [None, pytest.param(2.0, marks=pytest.mark.thorough_on("jax", "dask"))])
def test_ignored_examples_give_zeros_whatever_the_weights_hold(library, softcap):
    features, weight, class_ids, bias, _ = drawn({})
    weight[3, 1], bias[2] = np.nan, np.nan
    for ignored in (slice(None, None, 3), slice(None)):
        answers = class_ids.copy()
        answers[ignored] = IGNORED
        arrays, _ = on_backend(library, features, weight, answers, bias, {})
        options = {"softcap": softcap, "ignore_index": IGNORED, "reduction": "none", "block_size": 5}
        losses, gradients = value_and_grad_linear_softmax_crossentropy(*arrays, **options)
        for result in (losses, gradients[0]):
            expected = np.broadcast_to(np.nan, tuple(result.shape)).copy()
            expected[ignored] = 0
            np.testing.assert_array_equal(library.numpy(result), expected)
    for result in gradients[1:]:
        np.testing.assert_array_equal(library.numpy(result), np.zeros(tuple(result.shape)))


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_caps_from_the_smallest_to_the_largest_number(backend, precision):
    limits = np.finfo(precision)
    caps = [1.01 * float(limits.smallest_normal), 1e-30, 1e-3, 30.0, 1e19, 0.99 * float(limits.max)]
    for cap in caps if str(backend) != "jax" else caps[-1:]:
        logits = np.asarray([cap * 1e-5, cap / 3, cap, -cap, 0.01, 3.0, -3.0, 1e30, -1e30, 0.0]).astype(precision)
        logits[np.abs(logits) < limits.smallest_normal] = 0  # as compilers take them
        features = np.stack([logits, np.ones_like(logits)], axis=1)
        arrays = backend.array(features), backend.logits([[1, 0], [0, 0]], precision)
        class_ids = backend.array(np.ones(len(logits), np.int64))
        with np.errstate(all="raise"):
            losses, gradients = backend.call(
                value_and_grad_linear_softmax_crossentropy, *arrays, class_ids, softcap=cap, reduction="none"
            )
        with np.errstate(all="ignore"):
            ratios = logits.astype(float) / cap
            capped = np.where(np.abs(ratios) < 1e-9, logits, cap * np.tanh(ratios))
            expected = np.logaddexp(0, capped)
            slopes = np.where(np.abs(ratios) > 700, 0, 1 / np.cosh(ratios)) ** 2 / (1 + np.exp(-capped))
        np.testing.assert_allclose(losses, expected, rtol=64 * limits.eps)  # of logits up to 30
        tiny = float(limits.smallest_normal)
        np.testing.assert_allclose(gradients[0][:, 0], slopes, rtol=32 * limits.eps, atol=tiny)


def test_caps_that_are_no_normal_number_of_the_dtype_are_refused(library):
    for precision in ("float32", "float64"):
        arrays = [library.logits(np.ones((2, 2)), precision) for _ in range(2)]
        tiny, largest = float(np.finfo(precision).smallest_normal), float(np.finfo(precision).max)
        message = re.escape(f"softcap must lie in [{tiny:.4g}, {largest:.4g}], but is ")
        for cap in (tiny / 2, -1.0, 0, np.nan, np.inf, *([1e300] if precision == "float32" else [])):
            with pytest.raises(ValueError, match=message):
                linear_softmax_crossentropy(*arrays, library.array(np.zeros(2, np.int64)), softcap=cap)


@pytest.mark.only_backends("jax", "torch")
def test_third_derivatives_of_the_cap(library):
    """At 0, where `1 - tanh(z)**2` bends by -2 times the cap's inverse square, and elsewhere."""
    func, xp = library.transformations, library.xp
    weight, answers = library.array(np.asarray([[1.0], [0.0]])), library.array(np.asarray([0]))

    def loss(z):
        features = xp.reshape(z, (1, 1))
        return linear_softmax_crossentropy(features, weight, answers, softcap=0.5, reduction="none")[0]

    def same(z):
        return -xp.log(1 / (1 + xp.exp(-0.5 * xp.tanh(z / 0.5))))

    def third(function):
        first = func.grad(function)
        return func.grad(lambda z: func.jvp(first, (z,), (xp.ones_like(z),))[1])

    for z in (0.0, 0.3, -2.0):
        given, expected = (third(function)(library.array(np.asarray(z))) for function in (loss, same))
        np.testing.assert_allclose(float(given), float(expected), rtol=1e-9)


@pytest.mark.only_backends("numpy", "array-api-strict", "dask")
@pytest.mark.parametrize("softcap", [None, 30.0])
@pytest.mark.parametrize("precision", ["float32", pytest.param("float64", marks=pytest.mark.thorough_on("dask"))])
def test_numpy_reports_nothing_whatever_the_caller_wants(library, precision, softcap):
    """Products beyond the dtype, exponentials and products below it, infinities of both signs."""
    root = float(np.finfo(precision).max) ** 0.75
    tiny = float(np.finfo(precision).smallest_normal)
    cases = [
        (np.asarray([[0.3]]), np.asarray([[0.0], [-2450.0]]), np.zeros(2)),
        (np.asarray([[tiny], [3.0]]), np.asarray([[0.0], [-0.1]]), np.zeros(2)),
        (np.full((3, 2), root), np.asarray([[root, root], [root, -root], [-root, -root]]), np.zeros(3)),
        (np.full((3, 2), root), np.asarray([[root, root], [0, 0]]), np.asarray([-np.inf, root])),
    ]
    with np.errstate(all="raise"), dask_in_this_thread():
        for *floating, reduction in [(*case, name) for case in cases for name in ("none", "mean")]:
            arrays = [library.logits(array, precision) for array in floating]
            answers = library.array(np.zeros(len(floating[0]), np.int64))
            where = library.array(np.full(len(floating[1]), True))
            options = {"softcap": softcap, "reduction": reduction, "where": where}
            loss, gradients = value_and_grad_linear_softmax_crossentropy(*arrays[:2], answers, arrays[2], **options)
            alone = linear_softmax_crossentropy(*arrays[:2], answers, arrays[2], **options)
            np.testing.assert_array_equal(library.numpy(alone), library.numpy(loss))
            for gradient in gradients:
                library.numpy(gradient)


def dask_in_this_thread():
    """Return a context in which Dask computes as its caller does, errors of floating-point numbers included."""
    dask = sys.modules.get("dask")
    return dask.config.set(scheduler="synchronous") if dask else nullcontext()


NAMES = ("features", "weight", "bias")


@pytest.mark.parametrize("asked", ["features", ("weight",), ["bias", "features"], ("weight", "bias"), ()], ids=str)
def test_gradients_that_are_asked_for_and_none_else(library, asked):
    arrays, _ = on_backend(library, *drawn({}))
    given = {"reduction": "sum", "block_size": 7, "ignore_index": 3}
    value, gradients = value_and_grad_linear_softmax_crossentropy(*arrays, **given)
    loss, chosen = value_and_grad_linear_softmax_crossentropy(*arrays, **given, with_respect_to=asked)
    np.testing.assert_allclose(library.numpy(loss), library.numpy(value), rtol=1e-14)
    for name, gradient, same in zip(NAMES, chosen, gradients, strict=True):
        if name in asked:
            np.testing.assert_allclose(library.numpy(gradient), library.numpy(same), rtol=1e-14, atol=1e-15)
        else:
            assert gradient is None
    _, without = value_and_grad_linear_softmax_crossentropy(*arrays[:3], **given, with_respect_to=asked)
    assert [gradient is not None for gradient in without] == [name in asked and name != "bias" for name in NAMES]


@pytest.mark.only_backends("numpy")
def test_gradients_that_are_not_asked_for_take_no_product(monkeypatch):
    def counted(*arguments):
        counts.append(1)
        return own(*arguments)

    own, counts = Library.contract, []
    monkeypatch.setattr(Library, "contract", counted)
    arrays = drawn({})[:4]
    for asked, number in ((NAMES, 3), ("features", 2), ("weight", 2), ("bias", 1), ((), 1)):
        counts.clear()
        value_and_grad_linear_softmax_crossentropy(*arrays, with_respect_to=asked)
        assert len(counts) == number


def test_smoothing_keeps_the_digits_of_a_class_that_has_nearly_all_of_the_targets(library):
    """Logits are features times the identity."""
    logits, labels = np.asarray([[50.0, 0, 0], [0, 50, 0], [1, 2, 3]]), np.asarray([0, 0, 2])
    options = {"class_weights": np.asarray([1.0, 0, 0]), "label_smoothing": 0.1, "reduction": "sum"}
    arrays, given = on_backend(library, logits, np.eye(3), labels, np.zeros(3), options)
    _, (of_features, *_) = value_and_grad_linear_softmax_crossentropy(*arrays, **given)
    expected = stable_softmax.grad_softmax_crossentropy_with_logits(logits, labels, **options)
    np.testing.assert_allclose(library.numpy(of_features), expected, rtol=1e-13, atol=0)
    assert expected[0, 0] < 0
