"""One behaviour for labels and special values, on every backend, in value and in gradient."""

import warnings

import numpy as np
import pytest

import stable_softmax
from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    log_softmax,
    logsumexp,
    softmax,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)

pytestmark = [
    pytest.mark.covering_on("numpy", "torch", "dask"),
    pytest.mark.quick_on("jax"),
    pytest.mark.versioned_on("jax"),
]

INF, NAN = np.inf, np.nan
LABELLED = [
    softmax_crossentropy_with_logits,
    grad_softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
]
OUTSIDE = {"C": 3, "C + 1": 4, "-1": -1, "-C": -3, "-C - 1": -4, "int64 max": 2**63 - 1, "int64 min": -(2**63)}


def loss_and_gradient(backend, logits, class_ids, dtype, **options):
    """Return the per-example loss and gradient rows, the same from the separate functions as from the joint one."""
    z, y = backend.logits(logits, dtype), backend.array(np.asarray(class_ids))
    options = {"reduction": "none", **options}
    loss, gradient = backend.call(value_and_grad_softmax_crossentropy_with_logits, z, y, **options)
    alone = backend.call(grad_softmax_crossentropy_with_logits, z, y, **options)
    np.testing.assert_array_equal(np.isnan(gradient), np.isnan(alone))
    np.testing.assert_array_equal(np.isnan(loss), np.isnan(backend.call(softmax_crossentropy_with_logits, z, y)))
    return loss, gradient


@pytest.mark.only_backends("numpy", "array-api-strict", "torch")
@pytest.mark.parametrize("function", LABELLED)
@pytest.mark.parametrize("label", OUTSIDE.values(), ids=OUTSIDE)
def test_class_id_outside_raises_with_position_value_and_range(backend, function, label):
    class_ids = np.zeros((2, 4), np.int64)
    class_ids[1, 2] = label
    expected = rf"reference_answers must be class ids in \[0, 3\), but is {label} at position \(1, 2\)"
    with pytest.raises(ValueError, match=expected):
        function(backend.array(np.zeros((2, 4, 3))), backend.array(class_ids))


@pytest.mark.only_backends("jax", "dask")
@pytest.mark.parametrize("label", OUTSIDE.values(), ids=OUTSIDE)
def test_class_id_outside_gives_nan_in_that_row_only(backend, dtype, label):
    loss, gradient = loss_and_gradient(backend, np.ones((3, 3)), np.asarray([0, label, 2]), dtype)
    np.testing.assert_array_equal(np.isnan(loss), [False, True, False])
    np.testing.assert_array_equal(np.isnan(gradient), [[False] * 3, [True] * 3, [False] * 3])


@pytest.mark.parametrize("label_dtype", [np.uint8, np.int8, np.int16, np.uint32, np.int32, np.int64, np.uint64])
def test_small_and_unsigned_class_ids_do_not_overflow(backend, label_dtype):
    logits = np.zeros((1, 300))
    logits[0, 100] = 5
    loss, gradient = loss_and_gradient(backend, logits, np.asarray([100], label_dtype), "float32")
    np.testing.assert_allclose(loss, np.log1p(299 * np.exp(-5)), rtol=32 * np.finfo(np.float32).eps)
    assert gradient[0, 100] < 0
    assert np.all(np.delete(gradient[0], 100) > 0)


@pytest.mark.only_backends("numpy", "array-api-strict", "torch")
def test_unsigned_class_id_beyond_int64_is_named_as_it_came(backend):
    with pytest.raises(ValueError, match=r"but is 18446744073709551615 at position \(\)"):
        softmax_crossentropy_with_logits(backend.array(np.zeros(3)), backend.array(np.asarray(2**64 - 1, np.uint64)))


def test_minus_infinity_has_probability_zero(backend, dtype):
    logits = [[0.0, -INF, 0.0]]
    z = backend.logits(logits, dtype)
    np.testing.assert_array_equal(backend.call(softmax, z), [[0.5, 0, 0.5]])
    assert backend.call(log_softmax, z)[0, 1] == -INF
    loss, gradient = loss_and_gradient(backend, logits, [0], dtype)
    assert np.isfinite(loss[0])
    np.testing.assert_array_equal(gradient, [[-0.5, 0, 0.5]])


def test_minus_infinity_at_the_label_gives_infinite_loss_and_finite_gradient(backend, dtype):
    loss, gradient = loss_and_gradient(backend, [[0.0, -INF, 0.0]], [1], dtype)
    assert loss[0] == INF
    np.testing.assert_array_equal(gradient, [[0.5, -1, 0.5]])


@pytest.mark.parametrize(
    ("special", "total"),
    [([-INF, -INF, -INF], -INF), ([INF, 0, 1], INF), ([INF, -INF, INF], INF), ([NAN, 0, 1], NAN), ([NAN, INF, 1], NAN)],
)
def test_row_without_a_finite_maximum_gives_nan_in_that_row_only(backend, dtype, special, total):
    logits = np.asarray([[0.0, 1, 2], special, [3, 2, 1]], np.float64)
    z = backend.logits(logits, dtype)
    spoiled = np.asarray([False, True, False])
    np.testing.assert_array_equal(backend.call(logsumexp, z)[1], total)
    assert np.all(np.isfinite(backend.call(logsumexp, z)[[0, 2]]))
    loss, gradient = loss_and_gradient(backend, logits, [0, 1, 2], dtype)
    np.testing.assert_array_equal(np.isnan(loss), spoiled)
    for rows in (backend.call(softmax, z), backend.call(log_softmax, z), gradient):
        np.testing.assert_array_equal(np.isnan(rows), np.tile(spoiled[:, None], 3))


def test_finite_logits_of_any_size_never_give_nan(backend, dtype):
    largest = float(backend.xp.finfo(backend.dtype(dtype)).max)
    logits = np.asarray([[largest, -largest, 0], [-largest] * 3, [largest] * 3, [1, 0, -largest]])
    z = backend.logits(logits, dtype)
    for label in range(3):
        for result in loss_and_gradient(backend, logits, [label] * 4, dtype):
            assert not np.any(np.isnan(result))
    for function in (softmax, log_softmax, logsumexp):
        assert not np.any(np.isnan(backend.call(function, z)))
    np.testing.assert_array_equal(backend.call(softmax, z)[0], [1, 0, 0])


def test_mean_is_finite_where_the_sum_is_not(backend):
    """Whatever the library: no intermediate sum may overflow."""
    z, y = backend.logits([[3e38, 0.0]] * 10, "float32"), backend.array(np.ones(10, np.int64))
    loss = backend.call(stable_softmax.softmax_crossentropy_with_logits, z, y, reduction="mean")
    np.testing.assert_allclose(loss, np.float32(3e38), rtol=1e-6)


@pytest.mark.only_backends("numpy")
def test_longdouble_gives_no_warning():
    infinite = np.asarray([[np.inf, 0]], np.longdouble)
    assert np.all(np.isnan(stable_softmax.softmax(infinite)))
    assert stable_softmax.logsumexp(infinite, dtype=np.float64) == np.inf


def test_empty_batch_gives_empty_results_and_zero_when_reduced(backend, dtype):
    z, y = backend.logits(np.zeros((0, 3)), dtype), backend.array(np.zeros(0, np.int64))
    loss, gradient = backend.call(value_and_grad_softmax_crossentropy_with_logits, z, y, reduction="none")
    assert loss.shape == (0,)
    assert gradient.shape == backend.call(softmax, z).shape == (0, 3)
    for reduction in ("mean", "sum"):
        loss, gradient = backend.call(value_and_grad_softmax_crossentropy_with_logits, z, y, reduction=reduction)
        assert loss == 0
        assert gradient.shape == (0, 3)


def test_one_class_has_loss_and_gradient_zero(backend, dtype):
    loss, gradient = loss_and_gradient(backend, [[5.0], [-3.0]], [0, 0], dtype)
    np.testing.assert_array_equal(loss, [0, 0])
    np.testing.assert_array_equal(gradient, [[0], [0]])


@pytest.mark.parametrize("shape", [(4,), (2, 1, 2, 1, 1, 3, 1, 4)])
def test_any_number_of_batch_axes(backend, dtype, shape):
    rng = np.random.default_rng(1)
    logits = rng.integers(-8, 8, size=shape) / 4
    class_ids = rng.integers(0, 4, size=shape[:-1])
    loss, gradient = loss_and_gradient(backend, logits, class_ids, dtype)
    flat_loss, flat_gradient = loss_and_gradient(backend, logits.reshape(-1, 4), class_ids.reshape(-1), dtype)
    assert loss.shape == shape[:-1]
    assert gradient.shape == shape
    tolerance = 8 * float(backend.xp.finfo(backend.dtype(dtype)).eps)
    np.testing.assert_allclose(loss.reshape(-1), flat_loss, rtol=tolerance)
    np.testing.assert_allclose(gradient.reshape(-1, 4), flat_gradient, rtol=tolerance)


def test_reductions_are_those_of_the_losses(backend, dtype):
    rng = np.random.default_rng(2)
    logits, class_ids = rng.integers(-8, 8, size=(5, 6, 4)) / 4, rng.integers(0, 4, size=(5, 6))
    z, y = backend.logits(logits, dtype), backend.array(class_ids)
    losses, rows = loss_and_gradient(backend, logits, class_ids, dtype)
    tolerance = 16 * float(backend.xp.finfo(backend.dtype(dtype)).eps)
    for reduction, divisor in (("sum", 1), ("mean", 30)):
        total = backend.call(softmax_crossentropy_with_logits, z, y, reduction=reduction)
        assert total.shape == ()
        np.testing.assert_allclose(total, losses.astype(np.float64).sum() / divisor, rtol=tolerance)
        gradient = backend.call(grad_softmax_crossentropy_with_logits, z, y, reduction=reduction)
        np.testing.assert_allclose(gradient, rows / divisor, rtol=tolerance, atol=1e-7 if dtype == "float16" else 0)


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (-1, 1), (2, 0, 1)])
def test_normalizations_take_every_form_of_axis(backend, dtype, axis):
    logits = np.random.default_rng(3).integers(-8, 8, size=(2, 3, 4)) / 4
    z = backend.logits(logits, dtype)
    tolerance = 16 * float(backend.xp.finfo(backend.dtype(dtype)).eps)
    total = np.log(np.exp(logits).sum(axis=axis, keepdims=True))
    np.testing.assert_allclose(backend.call(softmax, z, axis=axis), np.exp(logits - total), rtol=tolerance)
    np.testing.assert_allclose(backend.call(log_softmax, z, axis=axis), logits - total, rtol=tolerance)
    kept = backend.call(logsumexp, z, axis=axis, keepdims=True)
    np.testing.assert_allclose(kept, total, rtol=tolerance)
    np.testing.assert_array_equal(backend.call(logsumexp, z, axis=axis), np.squeeze(kept, axis=axis))


def test_integer_logits_become_the_default_real_dtype(backend):
    z = backend.array(np.asarray([[3, 1, -2]]))
    expected = backend.xp.__array_namespace_info__().default_dtypes()["real floating"]
    y = backend.array(np.asarray([0]))
    assert softmax(z).dtype == logsumexp(z).dtype == expected
    assert softmax_crossentropy_with_logits(z, y).dtype == expected
    np.testing.assert_allclose(backend.call(softmax, z).sum(), 1, rtol=1e-6)


def test_result_has_the_dtype_of_the_logits_or_the_one_asked_for(backend, dtype):
    z, y = backend.logits([[1.0, 2.0]], dtype), backend.array(np.asarray([0]))
    for function, arrays in ((softmax, (z,)), (log_softmax, (z,)), (logsumexp, (z,)), (LABELLED[0], (z, y))):
        assert function(*arrays).dtype == z.dtype
        for other in backend.dtypes:
            assert function(*arrays, dtype=backend.dtype(other)).dtype == backend.dtype(other)


def test_wider_dtype_is_that_of_the_work(backend):
    """A float32 lead of 700 has a float64 loss of 1e-304."""
    z, y = backend.logits([[700.0, 0.0]], "float32"), backend.array(np.asarray([0]))
    loss = backend.call(softmax_crossentropy_with_logits, z, y, dtype=backend.dtype("float64"))
    np.testing.assert_allclose(loss, [np.exp(-700.0)], rtol=16 * np.finfo(np.float64).eps)


def test_narrower_dtype_rounds_once_and_overflows_in_silence(backend):
    z, y = backend.logits([[3e5, 0.0]], "float64"), backend.array(np.asarray([1]))
    narrow = backend.dtype("float32")
    assert backend.call(softmax_crossentropy_with_logits, z, y, dtype=narrow)[0] == 3e5
    z = backend.logits([[1e300, 0.0]], "float64")
    assert backend.call(softmax_crossentropy_with_logits, z, y, dtype=narrow)[0] == INF
    assert backend.call(log_softmax, z, dtype=narrow)[0, 1] == -INF


def test_overflow_begins_halfway_beyond_the_largest_number(backend):
    if "float16" not in backend.dtypes:
        return
    for value, expected in ((65504, -65504), (65519, -65504), (65520, -INF), (65600, -INF)):
        z = backend.logits([value, 0.0], "float32")
        assert backend.call(log_softmax, z, dtype=backend.dtype("float16"))[1] == expected


@pytest.mark.only_backends("numpy")
def test_inputs_are_never_modified_and_may_be_read_only(backend):
    logits, class_ids = np.asarray([[1.0, NAN], [INF, 0.0], [-INF, 3.0]]), np.asarray([0, 1, 0])
    before = logits.copy(), class_ids.copy()
    logits.flags.writeable = class_ids.flags.writeable = False
    for function in (softmax, log_softmax, logsumexp):
        backend.call(function, logits)
    for function in LABELLED:
        backend.call(function, logits, class_ids)
    np.testing.assert_array_equal(logits, before[0])
    np.testing.assert_array_equal(class_ids, before[1])


@pytest.mark.only_backends("torch")
def test_torch_inputs_are_never_modified(backend):
    logits, class_ids = backend.array(np.asarray([[1.0, -INF, 2.0]])), backend.array(np.asarray([2]))
    before = logits.clone(), class_ids.clone()
    for function in LABELLED:
        function(logits, class_ids)
    assert bool((logits == before[0]).all() and (class_ids == before[1]).all())


@pytest.mark.only_backends("numpy", "dask")
def test_no_warning_from_legitimate_input(backend, dtype):
    largest = np.finfo(dtype).max
    logits = np.asarray(
        [[largest, -largest, 0], [INF, -INF, 0], [-INF] * 3, [NAN, 1, 2], [-largest, 1, largest], [0, -INF, 0]], dtype
    )
    z, y = backend.array(logits), backend.array(np.asarray([0, 1, 2, 0, 1, 2]))
    with warnings.catch_warnings(), np.errstate(over="warn", invalid="warn", divide="warn"):
        warnings.simplefilter("error")
        for function in (softmax, log_softmax, logsumexp):
            backend.call(function, z)
        for function in LABELLED:
            backend.call(function, z, y)


def test_namespace_is_kept(backend):
    z, y = backend.array(np.zeros((2, 3))), backend.array(np.asarray([0, 1]))
    for result in (softmax(z), logsumexp(z), *stable_softmax.value_and_grad_softmax_crossentropy_with_logits(z, y)):
        assert type(result) is type(z) or isinstance(result, np.generic)


@pytest.mark.only_backends("dask")
def test_dask_stays_lazy_and_takes_any_chunks(backend):
    import dask.array

    rng = np.random.default_rng(2)
    logits, class_ids, vector = rng.normal(size=(7, 5)), rng.integers(0, 5, size=7), rng.normal(size=(7, 5))
    z, y, v = (
        dask.array.from_array(array, chunks=chunks)
        for array, chunks in ((logits, (3, 2)), (class_ids, 2), (vector, (1, 4)))
    )
    for function, lazy, arrays in (
        (softmax, (z,), (logits,)),
        (softmax_crossentropy_with_logits, (z, y), (logits, class_ids)),
        (grad_softmax_crossentropy_with_logits, (z, y), (logits, class_ids)),
        (stable_softmax.hvp_softmax_crossentropy_with_logits, (z, y, v), (logits, class_ids, vector)),
        (stable_softmax.hessian_diagonal_softmax_crossentropy_with_logits, (z, y), (logits, class_ids)),
    ):
        result = function(*lazy)
        assert isinstance(result, dask.array.Array)
        expected = function(*arrays)
        assert result.shape == expected.shape
        # Rows in several pieces are summed in another order.
        np.testing.assert_allclose(backend.numpy(result), expected, rtol=1e-14)


@pytest.mark.only_backends("dask")
@pytest.mark.parametrize("options", [{}, {"reduction": "none"}])
def test_whole_rows_are_gathered_a_few_at_a_time(options):
    import dask.array

    rng = np.random.default_rng(2)
    logits, targets = rng.normal(size=(50, 4, 100)), rng.random(size=(50, 4, 100))
    lazy = dask.array.from_array(logits, chunks=(50, 4, 10))
    with dask.config.set({"array.chunk-size": "16 KiB"}):  # of which a row takes 800 bytes
        loss, gradient = stable_softmax.value_and_grad_softmax_crossentropy_with_logits(lazy, targets, **options)
    assert max(map(len, gradient.chunks)) > 1
    assert np.prod([max(sizes) for sizes in gradient.chunks]) * 8 <= 16 << 10
    expected = stable_softmax.value_and_grad_softmax_crossentropy_with_logits(logits, targets, **options)
    for result, same in zip((loss, gradient), expected, strict=True):
        np.testing.assert_allclose(result.compute(), same, rtol=1e-14, atol=1e-15)
