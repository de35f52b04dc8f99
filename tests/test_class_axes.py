"""Losses of classes along several axes are those of the same classes along one."""

import numpy as np
import pytest

import stable_softmax

pytestmark = pytest.mark.covering_on("numpy")

SHAPE = (2, 3, 4, 5)
AXES = [(1, 2), (2, 1), (-1, 1), (0, -1, 2), (0, 1, 2, 3), (3,)]
LOSSES = {
    name: getattr(stable_softmax, f"{name}softmax_crossentropy_with_logits")
    for name in ("", "grad_", "value_and_grad_", "hvp_", "hessian_diagonal_")
}


def flat(array, axes):
    """Return an array with its class axes made one, the last, in their order."""
    others = [i for i in range(len(SHAPE)) if i not in axes]
    return np.transpose(array, (*others, *axes)).reshape(*(SHAPE[i] for i in others), -1)


def arguments_for(axes, kind):
    """Return the arguments of a loss along several axes, and of the same along one."""
    rng, kept = np.random.default_rng(3), [SHAPE[i] for i in range(len(SHAPE)) if i not in axes]
    logits = rng.normal(size=SHAPE)
    classes = int(np.prod([SHAPE[i] for i in axes]))
    options = {"class_weights": rng.random(classes) + 0.5, "example_weights": rng.random(kept) + 0.5}
    where = rng.random(tuple(n if i in (axes[0], 3) else 1 for i, n in enumerate(SHAPE))) < 0.7
    if kind == "class ids":
        answers = rng.integers(0, classes, size=kept)
        return (logits, answers, options), (flat(logits, axes), answers, options)
    targets = flat(rng.random(SHAPE), axes)
    targets = targets / targets.sum(-1, keepdims=True)
    original = np.empty(SHAPE)
    others = [i for i in range(len(SHAPE)) if i not in axes]
    order = (*others, *axes)
    np.transpose(original, order)[...] = targets.reshape([SHAPE[i] for i in order])
    masked = {**options, "where": where}
    along_one = {**options, "where": flat(np.broadcast_to(where, SHAPE), axes)}
    return (logits, original, masked), (flat(logits, axes), targets, along_one)


@pytest.mark.thorough_on("jax")
@pytest.mark.parametrize("reduction", [pytest.param("none", marks=pytest.mark.thorough_on("dask")), "mean"])
@pytest.mark.parametrize("kind", ["class ids", "probabilities"])
@pytest.mark.parametrize("axes", AXES, ids=str)
def test_several_axes_are_one_axis_of_all_their_classes(library, axes, kind, reduction):
    several, one = arguments_for(tuple(np.asarray(axes) % len(SHAPE)), kind)
    for name, function in LOSSES.items():
        vectors = [[np.cos(several[0])], [flat(np.cos(several[0]), np.asarray(axes) % len(SHAPE))]]
        results = []
        for (logits, answers, options), vector, axis in zip((several, one), vectors, (axes, -1), strict=True):
            arrays = [logits, answers, *(vector if name == "hvp_" else [])]
            given = {key: library.array(array) for key, array in options.items()}
            result = function(*map(library.array, arrays), axis=axis, reduction=reduction, **given)
            results.append([library.numpy(array) for array in (result if isinstance(result, tuple) else (result,))])
        for result, expected in zip(*results, strict=True):
            if result.shape == SHAPE:
                result = flat(result, np.asarray(axes) % len(SHAPE))
            np.testing.assert_allclose(result, expected, rtol=1e-13, atol=1e-16)


@pytest.mark.only_backends("jax", "torch")
def test_derivatives_along_several_axes(library):
    (logits, answers, options), _ = arguments_for((1, 2), "class ids")
    given = {key: library.array(array) for key, array in options.items()}
    z, y = library.array(logits), library.array(answers)

    def loss(z):
        return stable_softmax.softmax_crossentropy_with_logits(z, y, (1, 2), reduction="sum", **given)

    gradient = library.transformations.grad(loss)
    expected = stable_softmax.grad_softmax_crossentropy_with_logits(z, y, (1, 2), reduction="sum", **given)
    np.testing.assert_allclose(library.numpy(gradient(z)), library.numpy(expected), rtol=1e-13, atol=1e-16)
    v = library.array(np.cos(logits))
    product = stable_softmax.hvp_softmax_crossentropy_with_logits(z, y, v, (1, 2), reduction="sum", **given)
    second = library.transformations.jvp(gradient, (z,), (v,))[1]
    np.testing.assert_allclose(library.numpy(second), library.numpy(product), rtol=1e-12, atol=1e-15)


def test_ids_count_the_classes_in_the_order_of_the_axes(library):
    z = np.zeros((1, 2, 3))
    z[0, 1, 2] = 50
    for axis, label in (((1, 2), 5), ((2, 1), 5), ((-1, -2), 5)):
        loss = stable_softmax.softmax_crossentropy_with_logits(
            library.array(z), library.array(np.asarray([label])), axis
        )
        assert 0 < float(library.numpy(loss)[0]) < 1e-20
    z = np.zeros((1, 2, 3))
    z[0, 1, 0] = 50
    for axis, label in (((1, 2), 3), ((2, 1), 1)):
        loss = stable_softmax.softmax_crossentropy_with_logits(
            library.array(z), library.array(np.asarray([label])), axis
        )
        assert 0 < float(library.numpy(loss)[0]) < 1e-20


ERRORS = {
    "ids of another shape": (
        {"reference_answers": np.zeros((2, 4), int)},
        ValueError,
        r"^reference_answers must have shape \(2, 5\), which is logits' shape \(2, 3, 4, 5\) without the axes \(1, 2\)",
    ),
    "an axis twice": ({"axis": (1, -3)}, ValueError, r"^axis must not name a dimension twice, but is \(1, -3\)$"),
    "an axis out of range": ({"axis": (1, 4)}, ValueError, r"^axis must lie in \[-4, 4\) .* but is \(1, 4\)$"),
    "no integer": (
        {"axis": (1, 2.0)},
        TypeError,
        r"^axis must be an integer, a tuple of integers or None, not \(1, 2.0\)",
    ),
    "a mask that does not fit": (
        {"where": np.ones((2, 3), bool)},
        ValueError,
        r"^where must broadcast to logits' shape \(2, 3, 4, 5\), not \(2, 3\)",
    ),
    "too few weights": (
        {"class_weights": np.ones(4)},
        ValueError,
        r"^class_weights must have shape \(12,\), one for each class, not \(4,\)$",
    ),
    "a vector of another shape": (
        {"vector": np.ones((2, 3, 4))},
        ValueError,
        r"^vector must have logits' shape \(2, 3, 4, 5\), not \(2, 3, 4\)$",
    ),
}


@pytest.mark.parametrize(("changes", "error", "message"), ERRORS.values(), ids=ERRORS)
def test_bad_arguments(library, changes, error, message):
    good = {
        "logits": np.zeros(SHAPE),
        "reference_answers": np.zeros((2, 5), int),
        "vector": np.ones(SHAPE),
        "axis": (1, 2),
    }
    given = {name: library.array(v) if isinstance(v, np.ndarray) else v for name, v in (good | changes).items()}
    with pytest.raises(error, match=message):
        LOSSES["hvp_"](**given)
