"""With every option and every pair of options, results are as near to their exact values as their terms allow."""

import numpy as np
import pytest
from exact_options import exact_results
from loss_options import COMBINATIONS, EACH_COMBINATION, Case, call, demanding_case, divisor, with_arrays

import stable_softmax
from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    hessian_diagonal_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)
from stable_softmax.reference.bounds import PRECISIONS, representable
from stable_softmax.reference.rows import LEADS, leading_rows

pytestmark = pytest.mark.quick_on("numpy")

CLASSES = (2, 5, 20)
EXAMPLES = 200 // len(CLASSES)


def vector_for(logits, dtype):
    return representable(np.random.default_rng(7).normal(size=logits.shape), dtype)


def all_at_once(logits, reference_answers, vector, **options):
    """Return loss, gradient, Hessian-vector product and the Hessian's diagonal: one program for a compiler."""
    both = value_and_grad_softmax_crossentropy_with_logits(logits, reference_answers, **options)
    product = hvp_softmax_crossentropy_with_logits(logits, reference_answers, vector, **options)
    return *both, product, hessian_diagonal_softmax_crossentropy_with_logits(logits, reference_answers, **options)


def results(backend, case, dtype, vector):
    """Call every function, also those that share their code with another where no compiler makes two of it."""
    options = {"reduction": "none"}
    names = ("loss", "gradient", "product", "diagonal")
    yield from zip(names, call(backend, all_at_once, case, dtype, vector, **options), strict=True)
    if str(backend) != "jax-jit":
        yield "loss", call(backend, softmax_crossentropy_with_logits, case, dtype, **options)
        yield "gradient", call(backend, grad_softmax_crossentropy_with_logits, case, dtype, **options)


def assert_contract(name, values, scaled, case, spans, dtype, **options):
    shares = scaled.shares(values, spans, case.logits.shape[1], dtype, **options)
    worst = np.unravel_index(np.argmax(shares), shares.shape)
    assert shares[worst] <= 1, (
        f"{name} at {worst}: {shares[worst]:.3g} of the bound, {values[worst]!r} for {scaled.exact.nearest[worst]!r}; "
        f"{case.examples([worst[0]])}"
    )


@pytest.mark.parametrize("names", EACH_COMBINATION)
def test_every_combination_of_options_keeps_the_contract(backend, dtype, names):
    # JAX compiles for each number of classes.
    chosen = [CLASSES[COMBINATIONS.index(names) % len(CLASSES)]] if backend.name == "jax" else CLASSES
    for classes in chosen:
        case = demanding_case(names, 200 // len(chosen), classes, dtype)
        vector = vector_for(case.logits, dtype)
        exact = exact_results(case, vector)
        for name, values in results(backend, case, dtype, vector):
            # Of a product of two probabilities, each of which may be off by the bound.
            more_units = {"product": 16, "diagonal": exact.spans + 2 * np.log2(classes) + 16}.get(name, 0)
            assert_contract(name, values, getattr(exact, name), case, exact.spans, dtype, more_units=more_units)
            if values.ndim == 2 and "where" in case.arrays:
                assert np.all(values[~case.arrays["where"]] == 0)


@pytest.mark.parametrize(
    "names",
    [
        ("ignore_index",),
        ("class_weights", "ignore_index"),
        ("probabilities", "where"),
        ("example_weights", "probabilities"),
        ("example_weights", "class_weights", "ignore_index"),
    ],
    ids="+".join,
)
def test_mean_keeps_the_contract_too(backend, dtype, names):
    """The divisor of the mean is a sum of as many weights as there are examples."""
    case = demanding_case(names, EXAMPLES, 5, dtype)
    # The sum over the others would be inf as well.
    case = case.examples(~np.any(np.isneginf(case.logits), axis=1))
    exact, count = exact_results(case, np.zeros(case.logits.shape)), len(case.logits)
    loss, gradient = call(backend, value_and_grad_softmax_crossentropy_with_logits, case, dtype, reduction="mean")
    options = {"more_units": 2 * np.log2(count) + 4, "divisor": divisor(case)}
    assert_contract("gradient", gradient, exact.gradient, case, exact.spans, dtype, **options)
    expected = exact.loss.exact.nearest.sum() / divisor(case)
    units = exact.spans.max() + 2 * np.log2(5) + 20 + 2 * np.log2(count)
    working = PRECISIONS["float64" if dtype == "float64" else "float32"].unit_roundoff
    np.testing.assert_allclose(loss, expected, rtol=units * working + PRECISIONS[dtype].unit_roundoff)


def test_normalization_of_the_classes_that_are_left_keeps_the_contract(backend, dtype):
    for classes in CLASSES:
        case = demanding_case(("where",), EXAMPLES, classes, dtype)
        exact = exact_results(case, np.zeros(case.logits.shape))
        z, where = backend.logits(case.logits, dtype), backend.array(case.arrays["where"])
        for name in ("softmax", "log_softmax", "logsumexp"):
            values = backend.call(with_arrays(getattr(stable_softmax, name), ("where",)), z, where)
            assert_contract(name, values, getattr(exact, name), case, exact.spans, dtype)


@pytest.mark.thorough_on("jax")
def test_probabilities_that_are_one_hot_give_the_digits_of_class_ids(backend, dtype):
    for names in ((), ("where",), ("class_weights",), ("z_loss",), ("where", "class_weights", "z_loss")):
        case = demanding_case(names, EXAMPLES, 5, dtype)
        one_hot = case._replace(answers=(np.arange(5) == case.answers[:, None]) * 1.0)
        vector = vector_for(case.logits, dtype)
        pairs = zip(results(backend, one_hot, dtype, vector), results(backend, case, dtype, vector), strict=True)
        for (_, values), (_, expected) in pairs:
            # Elsewhere sums, and compiled code, may be ordered otherwise; Dask merges pieces for class ids alone.
            rtol = {"numpy": 0, "dask": 128}.get(backend.name, 8) * PRECISIONS[dtype].unit_roundoff
            np.testing.assert_allclose(values, expected, rtol=rtol, atol=0)


@pytest.mark.parametrize("names", [(), ("class_weights",), ("label_smoothing",), ("probabilities",)], ids="+".join)
def test_no_loss_where_one_class_is_left(backend, dtype, names):
    case = demanding_case((*names, "where"), EXAMPLES, 5, dtype)
    label = np.nanargmax(np.where(case.arrays["where"], case.logits, np.nan), axis=1)
    answers = case.answers if "probabilities" in names else label
    only = Case(case.logits, answers, case.arrays | {"where": np.arange(5) == label[:, None]}, case.numbers)
    for _, values in results(backend, only, dtype, vector_for(case.logits, dtype)):
        np.testing.assert_array_equal(values, np.zeros_like(values))


def test_smoothing_keeps_the_digits_of_a_label_that_leads(backend, dtype):
    """A smoothed target is far from its probability: the loss is about smoothing times the lead."""
    for lead in LEADS[dtype]:
        logits = leading_rows(lead, dtype)
        case = Case(logits, np.arange(4), {}, {"label_smoothing": 0.1})
        loss, gradient = call(backend, value_and_grad_softmax_crossentropy_with_logits, case, dtype, reduction="none")
        at_label = gradient[np.arange(4), np.arange(4)].astype(np.float64)
        assert np.all(loss > 0.07 * lead)
        assert np.all(at_label > 0)


MASKS = {
    "all": [[True] * 4] * 4,
    "some": [[True, False, True, True], [True] * 4, [True, True, True, False], [True] * 4],
}


@pytest.mark.parametrize("where", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("weights", [(1, 0, 0, 0), (0, 1, 0, 0), (1, 1e-3, 0, 1e-3), (1e-4, 1e-4, 1e-4, 1)], ids=str)
def test_smoothing_keeps_the_digits_of_a_class_that_has_nearly_all_of_the_targets(backend, dtype, weights, where):
    """Which need not be the label's: it has a weight of 0 here, as often as not."""
    weights, where = representable(np.asarray(weights, float), dtype), np.asarray(where)
    for lead in LEADS[dtype]:
        logits, labels = np.tile(leading_rows(lead, dtype), (4, 1)), np.repeat(np.arange(4), 4)
        mask = np.tile(where, (4, 1)) | (np.arange(4) == labels[:, None])
        case = Case(logits, labels, {"class_weights": weights, "where": mask}, {"label_smoothing": 0.1})
        exact = exact_results(case, np.zeros(logits.shape))
        loss, gradient = call(backend, value_and_grad_softmax_crossentropy_with_logits, case, dtype, reduction="none")
        assert_contract("loss", loss, exact.loss, case, exact.spans, dtype)
        assert_contract("gradient", gradient, exact.gradient, case, exact.spans, dtype)
