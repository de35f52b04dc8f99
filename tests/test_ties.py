"""Derivatives where entries are equal: a maximum shares its own among them, and no result of ours may."""

import numpy as np
import pytest

import stable_softmax
from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
)

pytestmark = [pytest.mark.only_backends("jax", "torch"), pytest.mark.versioned_on("jax")]

STEP = 1e-5
#: Central differences of functions whose third derivatives are below 10.
TOLERANCE = {"rtol": 0, "atol": 20 * STEP**2 + 64 * np.finfo(np.float64).eps / STEP}
TIED = np.asarray([[1.0, 1, 1], [2, 2, -1], [0, 0, 0], [0, 1, 2]])
APART = np.asarray([[1.0, 2, 3], [0.5, -1, 2], [0, 0.1, -2], [2, 1, 0]])
UNIFORM, HALVES = np.full((4, 3), 1 / 3), np.tile([0.5, 0.5, 0], (4, 1))
NONE, ONES, IDS = np.zeros((4, 3)), np.ones(3), np.asarray([0, 1, 2, 1])
MASK = np.asarray([[True, True, False], [True] * 3, [False, True, True], [True] * 3])

# logits, and all else that a loss is called with
CASES = {
    "uniform targets": (APART, {"reference_answers": UNIFORM}),
    "uniform targets, tied logits": (TIED, {"reference_answers": UNIFORM}),
    "two equal targets": (APART, {"reference_answers": HALVES}),
    "targets 0": (TIED, {"reference_answers": NONE}),
    "equal targets, weights": (APART, {"reference_answers": HALVES, "class_weights": ONES}),
    "equal products": (APART, {"reference_answers": np.tile([0.2, 0.4, 0.1], (4, 1)), "class_weights": 1 / ONES}),
    "smoothing 1": (APART, {"reference_answers": HALVES, "class_weights": ONES, "label_smoothing": 1.0}),
    "smoothing 1, ids": (TIED, {"reference_answers": IDS, "class_weights": ONES, "label_smoothing": 1.0}),
    "smoothed": (TIED, {"reference_answers": UNIFORM, "class_weights": ONES, "label_smoothing": 0.1}),
    "masked": (TIED, {"reference_answers": UNIFORM, "class_weights": ONES, "where": MASK}),
    "ids, tied logits": (TIED, {"reference_answers": IDS, "class_weights": ONES, "z_loss": 0.1}),
    "ids, mask, mean": (TIED, {"reference_answers": np.asarray([0, 1, 2, 0]), "class_weights": ONES, "where": MASK}),
    "weights 0": (APART, {"reference_answers": UNIFORM, "class_weights": 0 * ONES}),
    "extreme weights": (APART, {"reference_answers": IDS, "class_weights": 1e-30 * ONES}),
    "z_loss of 1/2": (APART, {"reference_answers": IDS, "z_loss": np.asarray(0.5)}),
    "smoothing as an array": (TIED, {"reference_answers": UNIFORM, "label_smoothing": np.asarray(0.5)}),
}


def derivatives(library, function, arrays, directions):
    """Return a number's gradients with respect to some of its arrays, and its slopes along directions."""
    func, names = library.transformations, list(directions)

    def of_one(name, values, direction):
        def number(x):
            return function(**arrays | {name: x})

        return func.grad(number)(values), func.jvp(number, (values,), (direction,))[1]

    def of_all(*given):
        return [part for i, name in enumerate(names) for part in of_one(name, given[i], directions[name])]

    results = library.compiled.call(lambda *given: tuple(of_all(*given)), *(arrays[name] for name in names))
    return zip(names, results[::2], results[1::2], strict=True)


def differences(function, arrays, name):
    """Return the gradient by central differences, relative to the size of the argument if that is tiny."""
    values = arrays[name]
    step = STEP * min(1.0, np.max(np.abs(values)) or 1.0)
    gradient = np.zeros(values.shape)
    for i in np.ndindex(values.shape):
        change = np.zeros(values.shape)
        change[i] = step
        up, down = (function(**arrays | {name: values + sign * change}) for sign in (1, -1))
        gradient[i] = (up - down) / (2 * step)
    return gradient


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    "function",
    [
        softmax_crossentropy_with_logits,
        pytest.param(grad_softmax_crossentropy_with_logits, marks=pytest.mark.thorough_on("jax")),
    ],
)
def test_derivative_in_every_argument(library, function, case):
    logits, rest = case
    arrays = {"logits": logits} | {name: value for name, value in rest.items() if isinstance(value, np.ndarray)}
    options = {name: value for name, value in rest.items() if name not in arrays}
    mix = np.cos(np.arange(12.0)).reshape(4, 3)

    def number(xp, mix, **arrays):
        if function is softmax_crossentropy_with_logits:
            return function(**arrays, **options, reduction="mean")
        return xp.sum(mix * function(**arrays, **options, reduction="mean"))

    given = {name: library.array(values) for name, values in arrays.items()}
    smooth = [name for name, values in arrays.items() if values.dtype.kind == "f"]
    if np.all(arrays.get("class_weights", 1) == 0):  # which may not become negative
        smooth.remove("class_weights")
    directions = {name: np.cos(np.arange(arrays[name].size) + 1.0).reshape(arrays[name].shape) for name in smooth}
    for name, gradient, slope in derivatives(
        library,
        lambda **a: number(library.xp, library.array(mix), **a),
        given,
        {name: library.array(direction) for name, direction in directions.items()},
    ):
        expected = differences(lambda **a: number(np, mix, **a), arrays, name)
        scale = 1 / min(1.0, np.max(np.abs(arrays[name])) or 1.0)
        tolerance = {"rtol": 0, "atol": TOLERANCE["atol"] * scale}
        np.testing.assert_allclose(gradient, expected, err_msg=name, **tolerance)
        np.testing.assert_allclose(slope, np.sum(expected * directions[name]), err_msg=name, **tolerance)


def test_uniform_targets_give_each_class_its_own_slope(library):
    logits, targets = np.asarray([1.0, 2, 3]), np.full(3, 1 / 3)
    loss = {"logits": library.array(logits), "reference_answers": library.array(targets)}
    direction = {"reference_answers": loss["logits"]}
    ((_, gradient, _),) = derivatives(library, softmax_crossentropy_with_logits, loss, direction)
    np.testing.assert_allclose(gradient, np.log(np.sum(np.exp(logits))) - logits, rtol=1e-14)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("axis", [1, (0, 1)])
def test_normalizations_of_equal_logits(library, name, axis):
    function = getattr(stable_softmax, name)
    mix = np.cos(np.arange(12.0)).reshape(4, 3)
    along = np.sin(np.arange(12.0)).reshape(4, 3)

    def number(xp, mix, logits):
        values = function(logits, axis=axis)
        return xp.sum(values if name == "logsumexp" else mix * values)

    expected = differences(lambda logits: number(np, mix, logits), {"logits": TIED}, "logits")
    ((_, gradient, slope),) = derivatives(
        library,
        lambda logits: number(library.xp, library.array(mix), logits),
        {"logits": library.array(TIED)},
        {"logits": library.array(along)},
    )
    np.testing.assert_allclose(gradient, expected, **TOLERANCE)
    np.testing.assert_allclose(slope, np.sum(expected * along), **TOLERANCE)


def test_product_is_differentiable_in_its_vector_and_logits_at_ties(library):
    vector = np.sin(np.arange(12.0)).reshape(4, 3)
    arrays = {"logits": TIED, "vector": vector}

    def number(xp, mix, **arrays):
        return xp.sum(mix * hvp_softmax_crossentropy_with_logits(reference_answers=ids[xp], z_loss=0.1, **arrays))

    ids = {np: IDS, library.xp: library.array(IDS)}
    mix = np.cos(np.arange(12.0)).reshape(4, 3)
    given = {name: library.array(values) for name, values in arrays.items()}
    directions = dict.fromkeys(arrays, given["vector"])
    for name, gradient, slope in derivatives(
        library, lambda **a: number(library.xp, library.array(mix), **a), given, directions
    ):
        expected = differences(lambda **a: number(np, mix, **a), arrays, name)
        np.testing.assert_allclose(gradient, expected, **TOLERANCE)
        np.testing.assert_allclose(slope, np.sum(expected * vector), **TOLERANCE)
