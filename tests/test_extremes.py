"""Numbers that are legitimate and far from 1: weights, penalties, vectors, and exponentials that underflow."""

import numpy as np
import pytest
from loss_options import with_arrays

import stable_softmax
from stable_softmax import (
    hvp_softmax_crossentropy_with_logits,
    set_workers,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)

pytestmark = pytest.mark.covering_on("numpy", "torch")

LOGITS, IDS = [[3.0, 0.0], [1.0, 2.0]], np.asarray([0, 1])
TOLERANCE = 32 * float(np.finfo(np.float32).eps)
WEIGHTED = with_arrays(value_and_grad_softmax_crossentropy_with_logits, ("class_weights",))


@pytest.mark.parametrize(
    ("weight", "precision"), [(3e38, "float32"), (2e-38, "float32"), (1e-300, "float64"), (1e300, "float64")]
)
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"ignore_index": 5}], ids=str)
def test_mean_is_that_of_weights_1_whatever_all_of_them_are(backend, weight, precision, options):
    z, y = backend.logits(LOGITS, "float32"), backend.array(IDS)
    results = backend.call(WEIGHTED, z, y, backend.logits([weight, weight], precision), **options)
    expected = backend.call(WEIGHTED, z, y, backend.logits([1, 1], precision), **options)
    for result, same in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, same, rtol=TOLERANCE)


def test_mean_over_a_class_of_a_tiny_weight(backend):
    """Beside another weight of 1, of which there is no example."""
    z, y = backend.logits(LOGITS[:1], "float32"), backend.array(IDS[:1])
    loss, _ = backend.call(WEIGHTED, z, y, backend.logits([1e-300, 1], "float64"))
    np.testing.assert_allclose(loss, np.log1p(np.exp(-3)), rtol=TOLERANCE)


def test_weight_beyond_the_dtype_of_the_work(backend):
    z, y = backend.logits(LOGITS, "float32"), backend.array(IDS)
    weighted, weights = with_arrays(softmax_crossentropy_with_logits, ("class_weights",)), [1.0, 1e39]
    if backend.reads_values:
        with pytest.raises(ValueError, match=r"^class_weights must lie in the range of float32, .*, but is 1e\+39 at"):
            backend.call(weighted, z, y, backend.logits(weights, "float64"))
    else:
        losses = backend.call(weighted, z, y, backend.logits(weights, "float64"))
        np.testing.assert_array_equal(np.isnan(losses), [False, True])


# One logit `z`, whose loss is `z_loss * z**2` and whose gradient is `2 * z_loss * z`.
@pytest.mark.parametrize(
    ("z_loss", "logit", "precision"),
    [
        (1e38, 1e-10, "float32"),
        (1e-90, 1e38, "float32"),
        (1e-40, 1e25, "float32"),
        (1e-115, 3e38, "float32"),
        (1e20, 1e-15, "float32"),
        (0.5, -3e18, "float32"),
        (1e307, 1e-200, "float64"),
        (1e-320, 1e300, "float64"),
    ],
)
def test_penalty_and_its_slope_where_they_fit(backend, z_loss, logit, precision):
    z, y = backend.logits([[logit, -np.inf]], precision), backend.array(np.zeros(1, np.int64))
    (logit, _) = np.asarray(backend.numpy(z), np.float64)[0]
    loss, gradient = backend.call(value_and_grad_softmax_crossentropy_with_logits, z, y, z_loss=z_loss, reduction="sum")
    limits, rtol = np.finfo(precision), 32 * float(np.finfo(precision).eps)
    tolerance = {"rtol": rtol, "atol": float(limits.smallest_normal)}
    root = np.sqrt(np.longdouble(z_loss)) * logit
    np.testing.assert_allclose(loss, float(root * root), **tolerance)
    np.testing.assert_allclose(gradient[0], [float(2 * np.longdouble(z_loss) * logit), 0], **tolerance)


@pytest.mark.parametrize("z_loss", [1e39, 1e300])
def test_penalty_beyond_the_dtype_of_the_work(backend, z_loss):
    with pytest.raises(ValueError, match=r"^z_loss must lie in \[0, 1.701e\+38\], but is 1e\+"):
        backend.call(
            softmax_crossentropy_with_logits, backend.logits(LOGITS, "float32"), backend.array(IDS), z_loss=z_loss
        )


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 0.01}], ids=["plain", "options"])
def test_product_with_the_largest_vectors(backend, options):
    logits = [[0.0, 0.0], [1.0, 0.5]]
    vector = np.asarray([[3e38, -3e38], [-3e38, 3e38]], np.float32)
    z, y = backend.logits(logits, "float32"), backend.array(IDS)
    product, expected = (
        backend.call(
            hvp_softmax_crossentropy_with_logits, z, y, backend.logits(v, "float32"), reduction="sum", **options
        )
        for v in (vector, vector / 2**30)
    )
    np.testing.assert_allclose(product, expected * 2.0**30, rtol=TOLERANCE)


def test_nothing_is_seen_of_a_vector_where_nothing_counts(backend):
    where = np.asarray([[True, True, False], [True, True, True]])
    z, y = backend.logits(np.zeros((2, 3)), "float64"), backend.array(np.asarray([0, -1]))
    options = {"label_smoothing": 0.1, "z_loss": 0.1, "ignore_index": -1, "reduction": "sum"}
    function = with_arrays(hvp_softmax_crossentropy_with_logits, ("where",))
    for vector in ([[1, 2, 0], [0, 0, 0]], [[1, 2, np.nan], [np.nan, np.inf, 0]]):
        given = z, y, backend.logits(vector, "float64"), backend.array(where)
        product = backend.call(function, *given, **options)
        np.testing.assert_array_equal(product[1], [0, 0, 0])
        assert product[0, 2] == 0
        assert np.all(np.isfinite(product))


UNDERFLOWING = {
    "float16": [0.0, -15.0, -11.0],
    "float32": [0.0, -100.0, -80.0],
    "float64": [0.0, -800.0, -700.0],
}


@pytest.mark.only_backends("numpy", "array-api-strict", "dask")
@pytest.mark.parametrize(
    "action", ["raise", pytest.param("warn", marks=pytest.mark.thorough_on("dask", "array-api-strict"))]
)
@pytest.mark.parametrize("count", [3, 60_000])
def test_underflow_is_part_of_a_right_result(library, dtype, action, count):
    """Also of weights and targets that are too small for the dtype, in blocks, chunks and threads."""
    z = library.logits(np.tile(UNDERFLOWING[dtype], (count, 1)), dtype)
    y, v = library.array(np.zeros(count, np.int64)), library.array(np.ones((count, 3)))
    targets = library.array(np.tile([0.5, 0.5, 1e-300], (count, 1)))
    weights = library.array(np.asarray([1e300, 1e-300, 1]))
    narrow = "float32" if dtype == "float64" else dtype
    with np.errstate(all=action), set_workers(2):
        before = np.geterr()
        for function in (stable_softmax.softmax, stable_softmax.log_softmax, stable_softmax.logsumexp):
            library.call(function, z)
            library.call(function, z, dtype=library.dtype(narrow))
        for reduction in ("none", "mean"):
            options = {"reduction": reduction, "z_loss": 1e-30, "label_smoothing": 1e-30}
            for answers in (y, targets):
                library.call(value_and_grad_softmax_crossentropy_with_logits, z, answers, **options)
                if (answers is y and reduction == "mean") or dtype == "float64":
                    library.call(value_and_grad_softmax_crossentropy_with_logits, z, answers, class_weights=weights)
                library.call(hvp_softmax_crossentropy_with_logits, z, answers, v, **options)
        assert np.geterr() == before


# Logits, answers and options whose exact results, or a step on the way to them, leave the dtype of float64.
OVERFLOWING = [
    ([[0.0, 0.0]], [[1e308, 1e308]], {"class_weights": [1e308, 1e308]}),
    ([[0.0, -1e308]], [[1e300, 1e300]], {}),
    ([[0.0, -1.7e308, -1.7e308]], [[0.0, 1.0, 1.0]], {}),
    ([[1e308, -1e308, 0.0]], [1], {"label_smoothing": 0.5, "z_loss": 1e300}),
    ([[-1e308, -1e308, -np.inf]], [2], {"class_weights": [1e-300, 1.0, 1e300]}),
]


@pytest.mark.only_backends("numpy", "array-api-strict", "dask")
@pytest.mark.parametrize("case", OVERFLOWING, ids=str)
def test_overflow_is_part_of_a_right_result(library, case):
    logits, answers, options = case
    z, y = library.array(np.asarray(logits)), library.array(np.asarray(answers))
    given = {name: library.array(np.asarray(v)) if isinstance(v, list) else v for name, v in options.items()}
    with np.errstate(all="raise"):
        for reduction in ("none", "sum", "mean"):
            both = library.call(value_and_grad_softmax_crossentropy_with_logits, z, y, reduction=reduction, **given)
            library.call(hvp_softmax_crossentropy_with_logits, z, y, z, reduction=reduction, **given)
        for function in (stable_softmax.softmax, stable_softmax.log_softmax, stable_softmax.logsumexp):
            library.call(function, z)
    assert both[0] > 1e250


@pytest.mark.only_backends("numpy")
def test_longdouble_beyond_the_range_of_double():
    if np.finfo(np.longdouble).max == np.finfo(np.float64).max:
        pytest.skip("longdouble is double here")
    logits = np.asarray([[np.longdouble("1e4930"), 0]])
    loss, gradient = value_and_grad_softmax_crossentropy_with_logits(
        logits, np.zeros(1, np.int64), z_loss=1e-3, reduction="sum"
    )
    assert loss == np.inf
    np.testing.assert_allclose(
        gradient, [[2 * np.longdouble(1e-3) * logits[0, 0], 0]], rtol=16 * np.finfo(np.longdouble).eps
    )


@pytest.mark.parametrize("weight", [1e-25, 1e-10, 2e19, 1e30])
def test_penalty_in_a_mean_over_weights_of_any_size(backend, weight):
    """It has no weight of its own, so that the mean divides it by the sum of those of the labels."""
    z, y = backend.logits(LOGITS, "float64"), backend.array(IDS)
    loss, _ = backend.call(WEIGHTED, z, y, backend.logits([weight, weight], "float64"), z_loss=0.1)
    plain, _ = backend.call(WEIGHTED, z, y, backend.logits([1, 1], "float64"))
    penalty = 0.1 * np.mean(np.log(np.sum(np.exp(LOGITS), axis=1)) ** 2) / weight
    np.testing.assert_allclose(loss, plain + penalty, rtol=1e-14)


def test_huge_weight_of_a_class_without_examples(backend):
    z, y = backend.logits([[100.0, 0.0], [1.0, 0.0]], "float64"), backend.array(np.zeros(2, np.int64))
    loss, _ = backend.call(WEIGHTED, z, y, backend.logits([1e-200, 1e200], "float64"))
    np.testing.assert_allclose(loss, np.log1p(np.exp(-1)) / 2, rtol=1e-14)


@pytest.mark.parametrize("by_class", [1e-37, 1e-19, 1.0, 1e15, 1e30])
@pytest.mark.parametrize("by_example", [1e-37, 1e-15, 1.0, 1e10, 1e38])
def test_a_mean_depends_on_the_ratios_of_weights_alone(library, by_class, by_example):
    function = with_arrays(value_and_grad_softmax_crossentropy_with_logits, ("class_weights", "example_weights"))
    logits, class_ids = [[0.0, -57.0, -60.0], [0.0, 1e25, 0.0]], library.array(np.asarray([0, 0]))

    def results(*sizes):
        weights = [
            library.logits(np.asarray(a) * size, "float32") for a, size in zip(([1, 2, 1], [1, 1]), sizes, strict=True)
        ]
        return library.call(
            function, library.logits(np.asarray(logits), "float32"), class_ids, *weights, reduction="mean"
        )

    for result, same in zip(results(by_class, by_example), results(1.0, 1.0), strict=True):
        np.testing.assert_allclose(result, same, rtol=32 * np.finfo(np.float32).eps)


@pytest.mark.only_backends("numpy")
def test_a_loss_beyond_float64_in_a_wider_dtype():
    logits, class_ids = np.asarray([[20000, 0], [0, np.nan]], np.longdouble), np.asarray([1, 1])
    np.testing.assert_array_equal(softmax_crossentropy_with_logits(logits[:1], class_ids[:1]), [20000])
    np.testing.assert_array_equal(softmax_crossentropy_with_logits(logits, class_ids), [20000, np.nan])
