"""Array libraries that this one does not know, nor they this one: results are right, since both follow the standard.

`nox -s foreign` runs this with the newest version of each.
"""

from functools import partial

import numpy as np
import pytest

import stable_softmax
from stable_softmax.reference.bounds import error_shares
from stable_softmax.reference.exact import exact_rows


def by_cubed():
    """With a spec of its own: in one computation, cubed refuses arrays of any other, the default one included."""
    import cubed
    import cubed.array_api

    return as_given(
        partial(cubed.array_api.asarray, spec=cubed.Spec(executor_name="single-threaded", allowed_mem="1GB")),
        cubed.compute,
    )


def by_marray(library):
    import marray

    return as_given(getattr(marray, library).asarray, lambda *results: [result.data for result in results])


def by_mlx():
    import mlx.core

    return as_given(mlx.core.array, lambda *results: results)


def as_given(from_numpy, to_numpy):
    """Return how to call a function: NumPy arrays in, a list of NumPy arrays out."""
    return lambda function, *arrays: [
        np.asarray(result) for result in to_numpy(*flat(function(*map(from_numpy, arrays))))
    ]


def by_ndonnx():
    """In a model that ndonnx writes, and onnxruntime runs."""
    import ndonnx
    import onnxruntime

    def run(function, *arrays):
        given = {f"a{i}": array for i, array in enumerate(arrays)}
        inputs = {
            name: ndonnx.argument(shape=array.shape, dtype=getattr(ndonnx, array.dtype.name))
            for name, array in given.items()
        }
        results = flat(function(*inputs.values()))
        model = ndonnx.build(inputs, {f"r{i}": result for i, result in enumerate(results)})
        return onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)

    return run


def flat(results):
    if isinstance(results, tuple):
        return [part for result in results if result is not None for part in flat(result)]
    return [results]


LIBRARIES = {
    "cubed": by_cubed,
    "marray-numpy": partial(by_marray, "numpy"),
    "marray-torch": partial(by_marray, "torch"),
    "mlx": by_mlx,
    "ndonnx": by_ndonnx,
}


@pytest.fixture(params=LIBRARIES, scope="module")
def run(request):
    return LIBRARIES[request.param]()


RNG = np.random.default_rng(0)
LOGITS = (RNG.normal(size=(6, 5)) * 3).astype(np.float32)
LOGITS[0, 1], LOGITS[4, 2] = 40, -np.inf
IDS = np.asarray([1, 2, 3, 4, 0, 1])
TARGETS = RNG.dirichlet(np.ones(5), size=6).astype(np.float32)
TARGETS[4, 2] = 0
WEIGHTS, WHERE = np.asarray([1, 2, 0.5, 1, 1], np.float32), RNG.random((6, 5)) < 0.8
WHERE[np.arange(6), IDS] = True
NORMALIZATIONS = ("softmax", "log_softmax", "logsumexp")
DERIVATIVES = tuple(f"{kind}softmax_crossentropy_with_logits" for kind in ("", "value_and_grad_", "hessian_diagonal_"))


def assert_as_numpy(run, function, *arrays):
    given = run(function, *arrays)
    for result, same in zip(given, map(np.asarray, flat(function(*arrays))), strict=True):
        assert result.dtype == same.dtype
        np.testing.assert_allclose(result, same, rtol=64 * np.finfo(np.float32).eps, atol=1e-7)


@pytest.mark.parametrize("axis", [-1, 0])
def test_results_are_within_the_bound_of_the_exact_ones(run, axis):
    rows = np.stack([*LOGITS, [7, 80, 0, -1.5, 0.25], np.zeros(5), LOGITS[1] + 1000]).astype(np.float32)
    class_ids = np.asarray([*IDS, 1, 4, 2])
    exact = exact_rows(rows, class_ids)

    def all_functions(z, y):
        both = stable_softmax.value_and_grad_softmax_crossentropy_with_logits(z, y, axis, reduction="none")
        return *(getattr(stable_softmax, name)(z, axis) for name in NORMALIZATIONS), *both

    results = run(all_functions, np.moveaxis(rows, -1, axis).copy(), class_ids)
    for name, values in zip((*NORMALIZATIONS, "crossentropy", "gradient"), results, strict=True):
        values = np.moveaxis(values, axis, -1) if values.ndim == 2 else values
        assert np.max(error_shares(values, getattr(exact, name), rows, "float32")) <= 1, name


def test_entropy_and_divergences(run):
    def all_functions(z, w):
        return (
            stable_softmax.value_and_grad_softmax_entropy(z, reduction="none"),
            stable_softmax.value_and_grad_softmax_kl_divergence(z, w, reduction="none"),
            stable_softmax.value_and_grad_softmax_js_divergence(z, w, reference_weight=0.3),
        )

    assert_as_numpy(run, all_functions, LOGITS, (0.9 * LOGITS[::-1]).astype(np.float32))


def test_weighted_sums(run):
    for weights in (WEIGHTS, np.asarray([1, -2, 0, 3, -1], np.float32), LOGITS[::-1].copy()):
        assert_as_numpy(run, lambda z, w: stable_softmax.logsumexp(z, weights=w, return_sign=True), LOGITS, weights)


def test_sums_of_many_classes_are_within_the_bound(run):
    """Of which some libraries add up one after another, along an axis that is not the last."""
    classes = 10**5
    logits = np.zeros((classes, 2), np.float32)
    logits[7, 0] = 48
    (losses,) = run(partial(stable_softmax.softmax_crossentropy_with_logits, axis=0), logits, np.asarray([7, 7]))
    exact = [np.log1p((classes - 1) * np.exp(-48)), np.log(classes)]
    np.testing.assert_allclose(losses, exact, rtol=(48 + 2 * np.log2(classes) + 16) * 2.0**-24)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_normalizations_of_some_classes_and_of_several_axes(run, name):
    function = getattr(stable_softmax, name)
    for axis in (-1, 0, None):
        assert_as_numpy(
            run, lambda z, where, axis=axis: (function(z, axis), function(z, axis, where=where)), LOGITS, WHERE
        )


@pytest.mark.parametrize(
    ("name", "reduction"), [*((name, "mean") for name in DERIVATIVES), (DERIVATIVES[1], "none")], ids=str
)
def test_losses_and_derivatives_with_all_options(run, name, reduction):
    function = partial(getattr(stable_softmax, name), reduction=reduction)
    more = {"label_smoothing": 0.1, "z_loss": 0.1}
    assert_as_numpy(run, function, LOGITS, IDS)
    assert_as_numpy(run, function, LOGITS, TARGETS)
    assert_as_numpy(run, lambda z, t, w: function(z, t, class_weights=w, **more), LOGITS[:4], TARGETS[:4], WEIGHTS)
    more["ignore_index"] = 3
    assert_as_numpy(
        run, lambda z, y, w, left: function(z, y, class_weights=w, where=left, **more), LOGITS, IDS, WEIGHTS, WHERE
    )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where a library leaves the work to it
@pytest.mark.parametrize("name", DERIVATIVES)
def test_special_values(run, name):
    nan, inf = np.nan, np.inf
    rows = [[nan, 1, 2], [inf, 1, 2], [-inf, 1, 2], [-inf, -inf, -inf], [3e38, -3e38, 0], [0, 1, 2], [nan, inf, 0]]
    rows, class_ids = np.asarray(rows, np.float32), np.asarray([1, 1, 0, 0, 1, 2, 9])
    function = partial(getattr(stable_softmax, name), reduction="none", ignore_index=9)
    assert_as_numpy(run, function, rows, class_ids)
    assert_as_numpy(run, lambda z: tuple(getattr(stable_softmax, n)(z) for n in NORMALIZATIONS), rows)
    for result in run(function, np.zeros((4, 3), np.float32), np.asarray([0, 3, -1, 9])):
        assert np.all(np.isnan(result[1:3]))
        assert np.all(np.isfinite(result[::3]))


def test_product_statistics_and_projection(run):
    hvp = stable_softmax.hvp_softmax_crossentropy_with_logits
    assert_as_numpy(run, hvp, LOGITS[:4], IDS[:4], TARGETS[:4])

    def merged(left, right, y):
        parts = stable_softmax.softmax_statistics(left, y).merge(
            stable_softmax.softmax_statistics(right, y, first_class=3)
        )
        return parts.logsumexp(), parts.crossentropy()

    assert_as_numpy(run, merged, LOGITS[:, :3], LOGITS[:, 3:], IDS)

    def weighted(z, y, w):
        part = stable_softmax.softmax_statistics(z, y, class_weights=w, label_smoothing=0.1, ignore_index=3)
        return part.crossentropy(z_loss=0.1), part.crossentropy(reduction="mean")

    assert_as_numpy(run, weighted, LOGITS, IDS, WEIGHTS)
    linear = stable_softmax.value_and_grad_linear_softmax_crossentropy
    finite = LOGITS[:4]
    assert_as_numpy(
        run, lambda z, w, y: linear(z, w, y, with_respect_to=("features", "weight")), finite, finite, IDS[:4] % 4
    )
    divergence = stable_softmax.value_and_grad_linear_softmax_kl_divergence
    assert_as_numpy(run, lambda z, w: tuple(divergence(z, w, w, z)[1].values()), finite, finite + 1)


def test_errors(run):
    loss = stable_softmax.softmax_crossentropy_with_logits
    for error, message, function, *arrays in (
        (TypeError, "logits must have a real floating-point or integer dtype", stable_softmax.softmax, WHERE),
        (TypeError, "all arrays must come from one array library", lambda z: loss(z, IDS), LOGITS),
        (TypeError, "where must be an array of booleans", lambda z, w: loss(z, z, where=w), LOGITS, WEIGHTS),
        (ValueError, "axis must lie in", lambda z: stable_softmax.softmax(z, 2), LOGITS),
        (ValueError, "reference_answers must have", loss, LOGITS, IDS[:5]),
        (ValueError, "label_smoothing must", lambda z, y: loss(z, y, label_smoothing=2), LOGITS, IDS),
    ):
        with pytest.raises(error, match=f"^{message}"):
            run(function, *arrays)


def test_one_model_for_any_number_of_rows():
    """ndonnx knows a length with a name only when the model runs: its shape says None."""
    import ndonnx
    import onnxruntime

    def results(z, y, t, w, left):
        for name in NORMALIZATIONS:
            yield from (getattr(stable_softmax, name)(z), getattr(stable_softmax, name)(z, where=left))
        yield stable_softmax.softmax_statistics(z, y).crossentropy()
        for name in DERIVATIVES:
            function = getattr(stable_softmax, name)
            for reduction in ("none", "mean", "sum"):
                yield from (function(z, y, reduction=reduction), function(z, t, reduction=reduction))
            more = {"class_weights": w, "label_smoothing": 0.1, "z_loss": 0.1, "reduction": "mean"}
            yield from (function(z, y, ignore_index=3, **more), function(z, t, where=left, **more))

    arrays = {"z": LOGITS, "y": IDS, "t": TARGETS, "w": WEIGHTS, "left": WHERE}
    given = {
        name: ndonnx.argument(
            shape=array.shape if name == "w" else ("N", *array.shape[1:]), dtype=getattr(ndonnx, array.dtype.name)
        )
        for name, array in arrays.items()
    }
    named = {f"r{i}": result for i, result in enumerate(flat(tuple(results(**given))))}
    session = onnxruntime.InferenceSession(ndonnx.build(given, named).SerializeToString())
    for rows in (6, 4, 1, 0):
        chosen = {name: array if name == "w" else array[:rows] for name, array in arrays.items()}
        expected = flat(tuple(results(**chosen)))
        for result, same in zip(session.run(None, chosen), expected, strict=True):
            np.testing.assert_allclose(result, same, rtol=64 * np.finfo(np.float32).eps, atol=1e-7)


def test_other_unknown_lengths_are_refused():
    import ndonnx

    array = partial(ndonnx.argument, dtype=ndonnx.float32)
    with pytest.raises(ValueError, match=r"^logits must have a known number of classes along axis -1, but its shape"):
        stable_softmax.softmax(array(shape=(2, "C")))
    with pytest.raises(ValueError, match=r"^features must have a known shape, not \(None, 5\)$"):
        stable_softmax.linear_softmax_crossentropy(array(shape=("N", 5)), array(shape=(3, 5)), array(shape=("N", 3)))
