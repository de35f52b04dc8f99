"""Entropies and divergences are within their documented bound of their exact values, and so are their gradients."""

import numpy as np
import pytest

import stable_softmax
from stable_softmax.reference.bounds import representable
from stable_softmax.reference.divergences import divergence_shares, exact_divergences

WEIGHT = 0.3
LEADS = {"float16": 11, "bfloat16": 80, "float32": 100, "float64": 300}


def all_results(logits, reference_logits, axis=-1):
    """Return the results of all functions, each alone and with its gradients: one program for a compiler."""
    options = {"axis": axis}
    entropy, entropy_gradient = stable_softmax.value_and_grad_softmax_entropy(logits, reduction="none", **options)
    both, options = (logits, reference_logits), options | {"reduction": "none"}
    kl, kl_gradients = stable_softmax.value_and_grad_softmax_kl_divergence(*both, **options)
    js, js_gradients = stable_softmax.value_and_grad_softmax_js_divergence(*both, reference_weight=WEIGHT, **options)
    return (
        *(entropy, entropy_gradient, kl, *kl_gradients, js, *js_gradients),
        stable_softmax.softmax_entropy(logits, axis),
        stable_softmax.softmax_kl_divergence(*both, axis),
        stable_softmax.softmax_js_divergence(*both, axis, reference_weight=WEIGHT),
    )


NAMES = (
    *("entropy", "entropy_gradient", "kl", "kl_gradient", "kl_reference_gradient"),
    *("js", "js_gradient", "js_reference_gradient", "entropy", "kl", "js"),
)


def assert_bound(backend, logits, reference, dtype, axis=-1, exact=None):
    exact = exact or exact_divergences(logits, reference, WEIGHT)
    arrays = [backend.logits(np.moveaxis(rows, -1, axis).copy(), dtype) for rows in (logits, reference)]
    for name, values in zip(NAMES, backend.call(all_results, *arrays, axis=axis), strict=True):
        values = np.moveaxis(values, axis, -1) if values.ndim == 2 else values
        shares = divergence_shares(values, getattr(exact, name), logits, reference, dtype)
        worst = np.unravel_index(np.argmax(shares), shares.shape)
        assert shares[worst] <= 1, (
            f"{name}: {shares[worst]:.3g} of the bound for {logits[worst[0]]}, {reference[worst[0]]} at {worst}: "
            f"{values[worst]!r} for {getattr(exact, name).exact.nearest[worst]!r}"
        )


def next_larger(rows, dtype):
    """Return the next larger number of a dtype."""
    bits = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}[dtype]
    return rows + np.exp2(np.frexp(rows)[1] - bits)


def pairs_of(rng, size, lead, count, classes, dtype):
    """Draw rows, one class of which leads, and others that differ from them by `size` nats."""
    reference = rng.normal(size=(count, classes)) * 2
    reference[np.arange(count), rng.integers(classes, size=count)] += lead
    reference = representable(reference, dtype)
    if size == 0:
        return np.where(rng.random(reference.shape) < 0.5, reference, next_larger(reference, dtype)), reference
    logits = reference + rng.normal(size=reference.shape) * size
    logits[::3] += rng.normal(size=(len(logits[::3]), 1)) * 50  # which changes nothing
    return representable(logits, dtype), reference


@pytest.mark.parametrize(
    "size", [0, 1e-3, 1, 80, *(pytest.param(n, marks=pytest.mark.thorough_on("torch")) for n in (1e-12, 1e-6, 0.1, 10))]
)
def test_random_rows_keep_the_bound(backend, dtype, size):
    rng = np.random.default_rng(11)
    for classes, count in ((2, 20), (3, 20), (10, 20), (300, 2)):
        pairs = [pairs_of(rng, size, lead, count, classes, dtype) for lead in (0, 5, 20, LEADS[dtype])]
        assert_bound(backend, *map(np.concatenate, zip(*pairs, strict=True)), dtype)


def changed(base, changes):
    rows = np.array(base)
    for place, value in changes:
        rows[place] = value
    return rows


#: What is changed of equal logits, and of equal reference logits: the leader may deviate from all others.
FEW = {
    "one class ahead": ([(0, 12)], []),
    "one class far behind": ([(0, -30)], []),
    "one class a little ahead": ([(0, 1e-4)], []),
    "one class that hardly counts": ([(0, -20)], [(0, -60)]),
    "one class that hardly counts, and some others": ([(0, -20), (slice(5, 30), 2.0**-20)], [(0, -60)]),
    "another class leads": ([(0, -40), (2, 0.25)], [(1, 0.5)]),
    "far ahead": ([(0, 300)], []),
    "both far ahead": ([(0, 500)], [(1, 50)]),
}


@pytest.mark.parametrize("classes", [100, pytest.param(100_000, marks=pytest.mark.thorough_on("torch"))])
@pytest.mark.parametrize("few", FEW.values(), ids=FEW)
def test_few_classes_that_deviate_keep_the_bound(backend, dtype, few, classes):
    """The mean of the differences is then far from most of them."""
    for offset in (0, 12_345.0, 1e8):
        logits = changed(np.zeros(classes), few[0]) + min(offset, 1e4 if dtype == "float16" else offset)
        rows = [representable(row, dtype)[None] for row in (logits, changed(np.zeros(classes), few[1]))]
        assert_bound(backend, *rows, dtype)


@pytest.mark.parametrize("scale", [5, 30])
def test_classes_that_lead_in_one_array_only_keep_the_bound(backend, dtype, scale):
    """The gradient at a class that leads by far is minus the sum of those at all others."""
    scale = min(scale, 5) if dtype == "float16" else scale
    for classes in (2, 5, 40):
        rows = representable(np.random.default_rng(14).normal(size=(30, classes)) * scale, dtype)
        assert_bound(backend, rows, -rows, dtype)


@pytest.mark.covering_on("numpy")
@pytest.mark.parametrize("axis", [0, pytest.param(-1, marks=pytest.mark.thorough_on("jax"))])
def test_along_every_axis(backend, dtype, axis):
    pairs = [pairs_of(np.random.default_rng(12), size, 5, 3, 1_000, dtype) for size in (0, 1e-3, 10)]
    assert_bound(backend, *map(np.concatenate, zip(*pairs, strict=True)), dtype, axis)


def test_divergences_are_0_where_distributions_are_equal_and_positive_elsewhere(backend, dtype):
    rng = np.random.default_rng(13)
    reference = representable(rng.normal(size=(2_000, 7)) * 2 + 3, dtype)
    logits = np.where(rng.random(reference.shape) < 0.2, next_larger(reference, dtype), reference)
    logits[::2] = reference[::2]
    are_equal = np.all(logits == reference, axis=1)
    arrays = [backend.logits(rows, dtype) for rows in (logits, reference)]
    for function in (stable_softmax.softmax_kl_divergence, stable_softmax.softmax_js_divergence):
        values = backend.call(function, *arrays, dtype="float32" if dtype == "float16" else dtype)
        np.testing.assert_array_equal(values > 0, ~are_equal)
        assert np.all(values[are_equal] == 0)
