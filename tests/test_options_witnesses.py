"""The options against central differences, and what holds for them on every backend."""

import numpy as np
import pytest
from loss_options import EACH_COMBINATION, IGNORED, Case, call, demanding_case, divisor, moderate_case

import stable_softmax
from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    hessian_diagonal_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)
from stable_softmax.reference.bounds import PRECISIONS

EPS = np.finfo(np.float64).eps
STEP = 1e-5
# Of the moderate rows, logits and logsumexp are below 10, targets sum to at most 6, and z_loss is 0.05. Truncation
# costs STEP**2 / 6 times a third derivative, which is below the targets' sum and 2 * z_loss * (|logsumexp| + 3).
# Rounding costs a unit of the largest loss, which is below 100, over STEP.
SLOPE = {"rtol": 0, "atol": 8 * STEP**2 / 6 + 100 * EPS / STEP}

pytestmark = [pytest.mark.thorough_on("jax"), pytest.mark.quick_on("numpy")]


@pytest.mark.parametrize("names", EACH_COMBINATION)
def test_gradient_is_the_slope_of_the_loss(library, names):
    case = moderate_case(names)
    gradient = call(library, grad_softmax_crossentropy_with_logits, case, "float64", reduction="none")
    for j in range(case.logits.shape[1]):
        along = STEP * (np.arange(case.logits.shape[1]) == j)
        up, down = (
            call(library, softmax_crossentropy_with_logits, case._replace(logits=logits), "float64")
            for logits in (case.logits + along, case.logits - along)
        )
        np.testing.assert_allclose(gradient[:, j], (up - down) / (2 * STEP), **SLOPE)


@pytest.mark.parametrize("names", EACH_COMBINATION)
def test_hessian_product_is_the_slope_of_the_gradient(library, names):
    case = moderate_case(names)
    vector = np.sin(np.arange(case.logits.size)).reshape(case.logits.shape)
    product = call(library, hvp_softmax_crossentropy_with_logits, case, "float64", vector, reduction="none")
    up, down = (
        results_of(library, case._replace(logits=logits), "float64", reduction="none")[1]
        for logits in (case.logits + STEP * vector, case.logits - STEP * vector)
    )
    np.testing.assert_allclose(product, (up - down) / (2 * STEP), **SLOPE)


@pytest.mark.parametrize("names", EACH_COMBINATION)
def test_hessian_diagonal_is_that_of_the_products(library, names):
    case = moderate_case(names)
    for reduction in ("none", "mean"):
        diagonal = call(
            library, hessian_diagonal_softmax_crossentropy_with_logits, case, "float64", reduction=reduction
        )
        for j in range(case.logits.shape[1]):
            unit = np.broadcast_to(np.arange(case.logits.shape[1]) == j, case.logits.shape) * 1.0
            product = call(library, hvp_softmax_crossentropy_with_logits, case, "float64", unit, reduction=reduction)
            np.testing.assert_allclose(diagonal[:, j], product[:, j], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("names", EACH_COMBINATION)
def test_reductions_are_sums_of_the_rows_over_their_divisor(library, names):
    case = moderate_case(names)
    vector = np.sin(np.arange(case.logits.size)).reshape(case.logits.shape)
    losses, rows = call(library, value_and_grad_softmax_crossentropy_with_logits, case, "float64", reduction="none")
    products = call(library, hvp_softmax_crossentropy_with_logits, case, "float64", vector, reduction="none")
    for reduction, by in (("sum", 1), ("mean", divisor(case))):
        options = {"reduction": reduction}
        loss, gradient = call(library, value_and_grad_softmax_crossentropy_with_logits, case, "float64", **options)
        product = call(library, hvp_softmax_crossentropy_with_logits, case, "float64", vector, **options)
        # The sums are of 12 rows, in any order.
        np.testing.assert_allclose(loss, losses.sum() / by, rtol=12 * EPS)
        np.testing.assert_allclose(gradient, rows / by, rtol=12 * EPS)
        np.testing.assert_allclose(product, products / by, rtol=12 * EPS)


@pytest.mark.parametrize("names", [("probabilities",), ("where", "class_weights", "probabilities")], ids="+".join)
def test_loss_and_gradient_are_linear_in_the_probabilities(library, dtype, names):
    """Whatever their sum is: multiples of 1/16 make the combinations of targets exact."""
    case = moderate_case(names, dtype=dtype)
    first, second = np.random.default_rng(9).integers(0, 9, size=(2, *case.logits.shape)) / 16

    def results(targets):
        function = value_and_grad_softmax_crossentropy_with_logits
        values = call(library, function, case._replace(answers=targets), dtype, reduction="none")
        return [result.astype(np.float64) for result in values]

    # Each of three results is off by its own rounding, relative to its terms; three units are for the final one.
    working = PRECISIONS["float64" if dtype == "float64" else "float32"]
    units = 3 * PRECISIONS[dtype].unit_roundoff + 64 * working.unit_roundoff
    targets = np.sum((first + 2 * second) * case.option("class_weights", 1.0), axis=1, keepdims=True)
    for factor in (0.5, 1.0, 2.0):
        loss, gradient = results(first + factor * second)
        (loss_a, gradient_a), (loss_b, gradient_b) = results(first), results(second)
        assert np.all(np.abs(loss - (loss_a + factor * loss_b)) <= units * (loss_a + factor * loss_b))
        assert np.all(np.abs(gradient - (gradient_a + factor * gradient_b)) <= units * targets)


NEUTRAL = {
    "class_weights": np.ones(5),
    "example_weights": np.ones(200),
    "label_smoothing": 0.0,
    "z_loss": 0,
    "where": np.asarray(True),
    "where of one class axis": np.ones(5, bool),
    "where of all": np.ones((200, 5), bool),
    "ignore_index": IGNORED,
    "ignore_index that no int64 holds": 1 << 70,
}


@pytest.mark.parametrize("option", NEUTRAL)
def test_neutral_options_change_nothing(library, dtype, option):
    name, value = option.split()[0], NEUTRAL[option]
    chosen = {"arrays": {name: value}} if isinstance(value, np.ndarray) else {"numbers": {name: value}}
    for names in [()] if name == "ignore_index" else [(), ("probabilities",)]:
        case = demanding_case(names, 200, 5, dtype)
        neutral = case._replace(**chosen)
        for reduction in ("none", "mean", "sum"):
            # Elsewhere the 200 losses may be added in another order.
            rtol = 0 if library.name == "numpy" else 32 * PRECISIONS[dtype].unit_roundoff
            if reduction == "mean" and name in ("class_weights", "example_weights", "ignore_index"):
                # A divisor that is counted divides after the softmax does, and not in one step: one more rounding.
                rtol = max(rtol, 4 * PRECISIONS[dtype].unit_roundoff)
            results, expected = (results_of(library, c, dtype, reduction=reduction) for c in (neutral, case))
            for result, same in zip(results, expected, strict=True):
                np.testing.assert_allclose(result, same, rtol=rtol, atol=0)


@pytest.mark.parametrize("names", EACH_COMBINATION)
def test_class_axis_may_be_anywhere_with_options(library, names):
    case = demanding_case(names, 60, 5, "float64")
    losses, rows = results_of(library, case, "float64", reduction="none")
    for shape, axis in (((3, 20), 0), ((3, 20), 1), ((60,), -2)):
        arrays = dict(case.arrays)
        if "where" in arrays:
            arrays["where"] = moved(arrays["where"], shape, axis)
        if "example_weights" in arrays:
            arrays["example_weights"] = arrays["example_weights"].reshape(shape)
        answers = case.answers
        answers = moved(answers, shape, axis) if answers.ndim == 2 else answers.reshape(shape)
        there = Case(moved(case.logits, shape, axis), answers, arrays, case.numbers)
        loss, gradient = results_of(library, there, "float64", reduction="none", axis=axis)
        # Sums along another axis are ordered otherwise, and terms of 60 that cancel leave their rounding.
        np.testing.assert_allclose(loss.reshape(-1), losses, rtol=32 * EPS)
        np.testing.assert_allclose(gradient, moved(rows, shape, axis), rtol=32 * EPS, atol=64 * EPS)


def moved(rows, shape, axis):
    return np.moveaxis(rows.reshape(*shape, -1), -1, axis)


@pytest.mark.parametrize("shape", [(5,), (1, 5), (60, 1), (1, 1), ()], ids=str)
def test_mask_broadcasts(library, shape):
    """A mask along the examples may leave one no class, which is for the normalizations only."""
    case = demanding_case((), 60, 5, "float64")
    where = np.random.default_rng(6).random(shape) < 0.6
    masks = [library.array(mask) for mask in (where, np.broadcast_to(where, (60, 5)))]
    z = library.logits(case.logits, "float64")
    for function in (stable_softmax.softmax, stable_softmax.log_softmax, stable_softmax.logsumexp):
        result, expected = (library.call(function, z, where=mask) for mask in masks)
        np.testing.assert_allclose(result, expected, rtol=8 * EPS)
    # For the losses, leave the first class, which is the label.
    where |= np.arange(shape[-1]) == 0 if shape else True
    case = case._replace(answers=np.zeros(60, int), logits=np.where(np.isfinite(case.logits), case.logits, 1.0))
    narrow, full = (case._replace(arrays={"where": mask}) for mask in (where, np.broadcast_to(where, (60, 5))))
    for result, expected in zip(*(results_of(library, c, "float64") for c in (narrow, full)), strict=True):
        np.testing.assert_allclose(result, expected, rtol=8 * EPS)


def results_of(library, case, dtype, **options):
    return call(library, value_and_grad_softmax_crossentropy_with_logits, case, dtype, **options)
