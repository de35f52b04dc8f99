"""What makes calls fast: shifts, blocks, PyTorch's own softmax, kept plans. Each is as right as the slow way."""

import gc
import weakref

import numpy as np
import pytest

import stable_softmax
from stable_softmax._arguments import arrays, options
from stable_softmax._core import layout as layouts
from stable_softmax.reference.bounds import PRECISIONS, error_shares, representable
from stable_softmax.reference.exact import exact_rows
from stable_softmax.reference.rows import leading_rows

pytestmark = pytest.mark.covering_on("numpy", "torch")

NORMALIZATIONS = ("softmax", "log_softmax", "logsumexp")
VALUE_AND_GRADIENT = stable_softmax.value_and_grad_softmax_crossentropy_with_logits


def per_row(backend, logits, class_ids, dtype):
    """Return everything that has an entry for each row, or for each class of a row."""
    z, y = backend.logits(logits, dtype), backend.array(class_ids)
    normalized = [backend.call(getattr(stable_softmax, name), z) for name in NORMALIZATIONS]
    return [*normalized, *backend.call(VALUE_AND_GRADIENT, z, y, reduction="none")]


@pytest.mark.only_backends("numpy", "torch", "array-api-strict")
@pytest.mark.parametrize("classes", [7, 100, 2000])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_row_does_not_depend_on_its_neighbours(library, precision, classes):
    """One row needs a shift, another the exact sum, in the next the label is without weight: no other row changes."""
    rng = np.random.default_rng(31)
    rows = np.abs(rng.normal(size=(12, classes)))
    class_ids = rng.integers(0, classes, size=12)
    odd = rows.copy()
    odd[1] = 1e4
    odd[3] = np.where(np.arange(classes) == 0, -np.log(2.0**-24), 0)
    odd[5, class_ids[5]] = -1e3
    odd[7] = -np.inf
    odd[9] = np.nan
    for value, beside in zip(
        per_row(library, rows, class_ids, precision), per_row(library, odd, class_ids, precision), strict=True
    ):
        np.testing.assert_array_equal(value[::2], beside[::2])


@pytest.mark.only_backends("numpy", "torch", "array-api-strict")
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_what_needs_no_shift_loses_nothing_to_one(library, precision):
    """The contract without its term for the range of the row, where the maximum lies in [0, 31]."""
    rng = np.random.default_rng(32)
    logits = representable(31 - 60 * rng.random((1000, 10)), precision)
    logits[:, 3] = np.clip(logits[:, 3], 0, None)
    class_ids = rng.integers(0, 10, size=len(logits))
    z, y = library.logits(logits, precision), library.array(class_ids)
    exact = exact_rows(logits, class_ids)
    loss, gradient = library.call(VALUE_AND_GRADIENT, z, y, reduction="none")
    bound = (2 * np.log2(10) + 16) * PRECISIONS[precision].unit_roundoff
    for values, expected in (
        (library.call(stable_softmax.softmax, z), exact.softmax),
        (gradient, exact.gradient),
        (loss, exact.crossentropy),
    ):
        assert np.all(expected.error(values) <= bound * np.abs(expected.nearest))


@pytest.mark.parametrize("label", ["leader", "last"])
def test_labels_whose_weight_is_next_to_nothing(backend, dtype, label):
    """The loss is the logarithm of the weight where the weight is there, and the logit's difference where not."""
    limit = -np.log(float(np.finfo("float64" if dtype == "float64" else "float32").smallest_normal))
    falls = limit + np.arange(-3, 3, 0.125) if dtype != "float16" else np.arange(80, 100, 0.5)
    for top in (0, 20, 200):
        logits = representable(np.stack([np.full_like(falls, top), top - falls, top - 2 * falls], axis=1), dtype)
        class_ids = np.full(len(logits), 0 if label == "leader" else 1)
        exact = exact_rows(logits, class_ids)
        loss = backend.call(
            stable_softmax.softmax_crossentropy_with_logits, backend.logits(logits, dtype), backend.array(class_ids)
        )
        assert error_shares(loss, exact.crossentropy, logits, dtype).max() <= 1


@pytest.mark.only_backends("torch")
@pytest.mark.parametrize("layout", ["rows", "short rows", "classes first", "in the middle", "Fortran order"])
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_tensors_without_gradient_in_blocks(library, monkeypatch, layout, precision):
    shape, axis = {
        "rows": ((90, 700), -1),
        "short rows": ((9000, 10), -1),
        "classes first": ((20, 6000), 0),
        "in the middle": ((5, 300, 40), 1),
        "Fortran order": ((700, 90), -1),
    }[layout]
    rng = np.random.default_rng(33)
    z = library.logits(rng.normal(size=shape) * 4, precision)
    z = z.T if layout == "Fortran order" else z
    y = library.array(rng.integers(0, z.shape[axis], size=np.delete(z.shape, axis)))

    def results():
        normalized = [library.call(getattr(stable_softmax, name), z, axis=axis) for name in NORMALIZATIONS]
        product = library.call(stable_softmax.hvp_softmax_crossentropy_with_logits, z, y, z.cos(), axis=axis)
        return [*normalized, *library.call(VALUE_AND_GRADIENT, z, y, axis=axis), product]

    monkeypatch.setattr(layouts, "SMALL", z.numel())
    whole = results()
    monkeypatch.setattr(layouts, "SMALL", 1)
    monkeypatch.setattr(layouts, "BLOCK_BYTES", 1 << 12)
    tolerance = 2 * PRECISIONS[precision].unit_roundoff if precision == "bfloat16" else 3e-6
    for ours, expected in zip(results(), whole, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=1e-9)


@pytest.mark.only_backends("torch")
@pytest.mark.parametrize(("readable", "factor"), [(True, 0.5), (False, 1), (False, 1.7)])
def test_librarys_own_softmax(library, monkeypatch, readable, factor):
    """Also where values cannot be read, as on a GPU, and where its sum is wrong, as in PyTorch's issue 147284."""
    from stable_softmax._libraries import torch as own

    kind = own.EagerOnCPU if readable else own.Eager

    def scaled(*arguments):
        probabilities = in_one_pass(*arguments)
        return None if probabilities is None else probabilities.mul_(factor)

    in_one_pass = kind.softmax
    monkeypatch.setattr(kind, "softmax", scaled)
    if not readable:
        monkeypatch.setattr(own, "ON_CPU", own.ON_DEVICE)
    leads = -np.log(2.0**-24 * np.asarray([0.6, 1.1, 1.7, 3.0]))
    rows = [leading_rows(lead, "float32") for lead in (3, 20, 80, 200)]
    logits = [np.concatenate([row, np.full((4, 300), -2.0)], axis=1) for row in rows]
    logits.append(np.where(np.arange(1500) == 0, leads[:, None], 0))
    for rows in logits:
        rows = representable(rows, "float32")
        for class_ids in (np.arange(4), (np.arange(4) + 1) % 4):
            exact = exact_rows(rows, class_ids)
            softmax, log_softmax, _, loss, gradient = per_row(library, rows, class_ids, "float32")
            for values, expected in (
                (softmax, exact.softmax),
                (log_softmax, exact.log_softmax),
                (loss, exact.crossentropy),
                (gradient, exact.gradient),
            ):
                assert error_shares(values, expected, rows, "float32").max() <= 1


@pytest.mark.only_backends("numpy")
def test_kept_plans_refuse_what_they_refused():
    """Values that are equal, such as True and 1, are not the same argument."""
    z, y = np.zeros((3, 2)), np.asarray([0, 1, 1])
    loss = stable_softmax.softmax_crossentropy_with_logits
    for _ in range(2):
        assert stable_softmax.softmax(z, 1).shape == (3, 2)
        assert loss(z, y, 1, label_smoothing=1).shape == (3,)
        for bad in (True, 1.0, (True,), [1], np.ones(1)):
            with pytest.raises(TypeError, match="axis must be an integer"):
                stable_softmax.softmax(z, bad)
            with pytest.raises(TypeError, match="axis must be an integer"):
                loss(z, y, bad)
        with pytest.raises(TypeError, match="label_smoothing must be a real number"):
            loss(z, y, 1, label_smoothing=True)
        with pytest.raises(ValueError, match=r"is 2 at position \(2,\)"):
            loss(z, np.asarray([0, 1, 2]), 1, label_smoothing=1)


@pytest.mark.only_backends("numpy")
def test_kept_plans_hold_no_array_and_are_bounded():
    for size in range(600):
        logits, class_ids = np.zeros((size + 1, 3)), np.zeros(size + 1, int)
        stable_softmax.softmax(logits)
        stable_softmax.softmax_crossentropy_with_logits(logits, class_ids)
    watched = [weakref.ref(array) for array in (logits, class_ids)]
    del logits, class_ids
    gc.collect()
    assert [reference() for reference in watched] == [None, None]
    for function in (arrays.layout_of, options._plan):
        assert function.cache_info().currsize <= 512


@pytest.mark.only_backends("numpy")
def test_kept_plans_know_an_index_by_its_value():
    class Axis:
        value = 0

        def __index__(self):
            return self.value

    axis, z, y = Axis(), np.arange(9.0).reshape(3, 3) ** 2, np.asarray([0, 1, 1])
    function = stable_softmax.softmax_crossentropy_with_logits
    first = function(z, y, axis)
    axis.value = 1
    np.testing.assert_array_equal(function(z, y, axis), function(z, y, 1))
    assert not np.array_equal(first, function(z, y, 1))
    watched = weakref.ref(axis)
    del axis
    gc.collect()
    assert watched() is None


@pytest.mark.only_backends("torch")
def test_blocks_are_where_the_logits_are(library, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(layouts, "BLOCK_BYTES", 1 << 10)
    z, y = (
        library.logits(np.random.default_rng(3).normal(size=(200, 100)), "float32"),
        library.array(np.zeros(200, int)),
    )
    with torch.device("meta"):
        losses = stable_softmax.softmax_crossentropy_with_logits(z, y)
        results = [losses, stable_softmax.logsumexp(z), stable_softmax.softmax(z[:1].expand(200, 100)), losses.mean()]
        results.append(stable_softmax.softmax_crossentropy_with_logits(z, y, reduction="mean"))
    assert {result.device.type for result in results} == {"cpu"}
    torch.testing.assert_close(results[3], results[4])


@pytest.mark.only_backends("numpy", "torch", "array-api-strict")
@pytest.mark.parametrize("classes", [10, 40, 100])
def test_rows_that_need_a_shift_leave_the_bits_of_others(library, dtype, classes):
    """Whether the first row needs one, some other does, or the maximum is near where one is needed."""
    rng = np.random.default_rng(classes)
    near = rng.normal(size=(12, classes)).astype(np.float32)
    near -= near.max(axis=1, keepdims=True)
    maxima = np.asarray([-1000, -20, -2.1, -1.9, -0.5, 0, 0.6, 3, 30.9, 31.1, 90, 1000], np.float32)
    rows, class_ids = near + maxima[:, None], rng.integers(classes, size=12)

    def results(chosen):
        z, y = library.logits(rows[chosen], dtype), library.array(class_ids[chosen])
        both = stable_softmax.value_and_grad_softmax_crossentropy_with_logits
        given = [library.call(function, z) for function in (stable_softmax.softmax, stable_softmax.logsumexp)]
        return [*given, *library.call(both, z, y, reduction="none")]

    alone = [np.concatenate(same) for same in zip(*(results([i]) for i in range(12)), strict=True)]
    for order in (np.arange(12), np.arange(12)[::-1], np.asarray([5, 0, 11, 7]), np.asarray([5, 4, 6, 7, 8])):
        for result, same in zip(results(order), alone, strict=True):
            np.testing.assert_array_equal(result, same[order])
