"""Every result is within the accuracy contract of its exact value, on every backend, dtype, axis and layout."""

from itertools import product

import numpy as np
import pytest

import stable_softmax
from stable_softmax._core import layout as layouts
from stable_softmax.reference.bounds import PRECISIONS, error_shares, representable
from stable_softmax.reference.exact import Exact, exact_rows
from stable_softmax.reference.rows import LEADS, leading_rows


def results(backend, logits, class_ids, dtype, axis=-1):
    """Call every function; logits are (examples, classes) here, and have their classes along `axis` in the call."""
    z = backend.logits(np.moveaxis(logits, -1, axis).copy(), dtype)  # along it in memory, too
    y = backend.array(class_ids)
    options = {"axis": axis}
    loss, gradient = backend.call(
        stable_softmax.value_and_grad_softmax_crossentropy_with_logits, z, y, reduction="none", **options
    )
    by_class = {
        "softmax": backend.call(stable_softmax.softmax, z, **options),
        "log_softmax": backend.call(stable_softmax.log_softmax, z, **options),
        "gradient": gradient,
        "gradient alone": backend.call(
            stable_softmax.grad_softmax_crossentropy_with_logits, z, y, reduction="none", **options
        ),
    }
    by_row = {
        "crossentropy": loss,
        "crossentropy alone": backend.call(stable_softmax.softmax_crossentropy_with_logits, z, y, **options),
    }
    return {name: np.moveaxis(values, axis, -1) for name, values in by_class.items()} | by_row


def assert_contract(backend, logits, class_ids, dtype, axis=-1, exact=None):
    exact = exact or exact_rows(logits, class_ids)
    for name, values in results(backend, logits, class_ids, dtype, axis).items():
        shares = error_shares(values, getattr(exact, name.removesuffix(" alone")), logits, dtype)
        worst = np.unravel_index(np.argmax(shares), shares.shape)
        assert shares[worst] <= 1, f"{name}: {shares[worst]:.3g} of the bound for {logits[worst[0]]} at {worst}"


def random_rows(rng, count, classes, dtype):
    """Draw rows of every kind: moderate, confident, tied, offset, of mixed magnitude, over the whole range."""
    lead = rng.choice(LEADS[dtype], size=count)
    class_ids = rng.integers(0, classes, size=count)
    normal = rng.normal(size=(count, classes))
    at_label = np.arange(classes) == class_ids[:, None]
    largest = PRECISIONS[dtype].largest
    kinds = [
        normal * 3,
        normal + np.where(at_label, lead[:, None], 0),
        rng.integers(-2, 3, size=(count, classes)) * 1.0,
        normal * 5 + 10.0 ** rng.uniform(0, min(30, np.log10(largest) - 1), size=(count, 1)),
        normal * 10.0 ** rng.uniform(-8, 2.5, size=(count, classes)),
        rng.choice([-1, 1], size=(count, classes)) * largest ** rng.uniform(-1, 1, size=(count, classes)),
    ]
    return representable(np.choose(rng.integers(len(kinds), size=(count, 1)), kinds), dtype), class_ids


@pytest.mark.thorough_on("dask")
def test_random_rows_keep_the_contract(backend, dtype):
    """`nox -s soak` does it with ten million."""
    total = {"numpy": 15_000}.get(str(backend), 5_000)
    rng = np.random.default_rng(20)
    for classes, share in ((2, 0.3), (3, 0.3), (5, 0.2), (8, 0.15), (20, 0.04), (300, 0.01)):
        logits, class_ids = random_rows(rng, round(total * share), classes, dtype)
        assert_contract(backend, logits, class_ids, dtype)


def test_label_that_leads_by_far_keeps_its_relative_accuracy(backend, dtype):
    for lead in LEADS[dtype]:
        logits = leading_rows(lead, dtype)
        assert_contract(backend, logits, np.arange(4), dtype)
        for class_ids in (np.arange(4), (np.arange(4) + 1) % 4):
            computed = results(backend, logits, class_ids, dtype)
            assert np.all(computed["crossentropy"] > 0)
            assert np.all(np.take_along_axis(computed["gradient"], class_ids[:, None], 1) < 0)


@pytest.mark.parametrize("offset", [1e4, -1e4, 1e10, 1e20, 1e30, -1e30])
def test_common_offset_costs_nothing_but_the_rounding_of_the_logits(backend, dtype, offset):
    if abs(offset) > PRECISIONS[dtype].largest:
        offset = np.copysign(3e4, offset)
    logits = representable(np.random.default_rng(3).normal(size=(50, 6)) * 10 + offset, dtype)
    assert_contract(backend, logits, np.arange(50) % 6, dtype)


@pytest.mark.parametrize("tail", ["normal", "equal"])
def test_many_classes_keep_the_contract_along_every_axis(backend, dtype, tail):
    classes = 1_000_000 if str(backend) == "numpy" else 60_001
    rng = np.random.default_rng(5)
    # Equal terms round the same way each time they are added: nothing averages out. The others are some thousand
    # different ones, which exact arithmetic takes a moment for.
    row = np.round(rng.normal(size=classes) * 3, 2) if tail == "normal" else np.full(classes, -0.3)
    row[classes // 3] = 4.0 if tail == "normal" else 0.0
    row = representable(row, dtype)
    class_id = np.asarray(7)
    exact = exact_rows(row[None], class_id[None])
    logits = np.stack([row, row])
    class_ids = np.stack([class_id, class_id])
    twice = type(exact)(*(Exact(*(np.concatenate([part, part]) for part in quantity)) for quantity in exact))
    for axis in (-1, 0):
        assert_contract(backend, logits, class_ids, dtype, axis, twice)
    for name, values in results_in_the_middle(backend, logits, class_ids, dtype).items():
        assert error_shares(values, getattr(twice, name), logits, dtype).max() <= 1, name


def results_in_the_middle(backend, logits, class_ids, dtype):
    """Compute softmax and gradient of logits (2, classes, 3), of which the last axis repeats."""
    z = backend.logits(np.repeat(logits[:, :, None], 3, axis=2), dtype)
    y = backend.array(np.repeat(class_ids[:, None], 3, axis=1))
    gradient = backend.call(stable_softmax.grad_softmax_crossentropy_with_logits, z, y, axis=1, reduction="none")
    return {"softmax": backend.call(stable_softmax.softmax, z, axis=1)[..., 1], "gradient": gradient[..., 2]}


@pytest.mark.parametrize(
    ("classes", "axis"),
    [
        (256, -1),
        (256, 0),
        *(pytest.param(*pair, marks=pytest.mark.thorough_on("jax")) for pair in product((64, 1000), (-1, 0))),
    ],
)
def test_terms_at_the_rounding_edge_of_the_largest_keep_the_contract(backend, dtype, classes, axis):
    """Added to a 1 one by one, all of them are lost, or all are rounded up."""
    rng = np.random.default_rng(44)
    unit_roundoff = PRECISIONS["float64" if dtype == "float64" else "float32"].unit_roundoff
    leads = -np.log(unit_roundoff * rng.uniform(0.5, 4, size=(200, 1)))
    logits = np.where(np.arange(classes) == 0, leads, 0)
    class_ids = rng.integers(0, classes, size=len(leads))
    assert_contract(backend, representable(logits, dtype), class_ids, dtype, axis)


def test_several_class_axes_keep_the_contract_as_one_does(backend):
    """Two maxima, and terms at the rounding edge of their sum: sums along one axis after another would add up."""
    shape = (16,) * 5 if str(backend) == "numpy" else (16,) * 4
    row = np.zeros(int(np.prod(shape)))
    row[:2] = -np.log(2.0**-24 * 1.1)
    row = representable(row, "float32")
    exact = exact_rows(row[None], np.asarray([5]))
    z = backend.logits(row.reshape(shape), "float32")
    for name in ("softmax", "log_softmax"):
        values = backend.call(getattr(stable_softmax, name), z, axis=None).reshape(1, -1)
        assert error_shares(values, getattr(exact, name), row[None], "float32").max() <= 1, name


@pytest.mark.only_backends("numpy")
def test_memory_layout_changes_nothing(dtype, monkeypatch):
    monkeypatch.setattr(layouts, "BLOCK_BYTES", 1 << 16)  # several blocks
    rng = np.random.default_rng(6)
    logits, class_ids = random_rows(rng, 60, 700, dtype)
    logits = logits.astype(dtype)
    expected = exact_rows(logits, class_ids)
    views = {
        "fortran": np.asfortranarray(logits),
        "every second class": np.repeat(logits, 2, axis=1)[:, ::2],
        "reversed": logits[:, ::-1].copy()[:, ::-1],
        "read-only": logits.copy(),
        "transposed": logits.T.copy().T,
    }
    views["read-only"].flags.writeable = False
    for view, z in views.items():
        loss, gradient = stable_softmax.value_and_grad_softmax_crossentropy_with_logits(z, class_ids, reduction="none")
        for values, exact in (
            (loss, expected.crossentropy),
            (gradient, expected.gradient),
            (stable_softmax.softmax(z), expected.softmax),
            (stable_softmax.log_softmax(z), expected.log_softmax),
        ):
            assert error_shares(values, exact, logits, dtype).max() <= 1, view


def test_more_equal_float16_logits_than_float16_can_count(backend):
    if "float16" not in backend.dtypes:
        return
    logits = np.full((1, 70_000), 0.5)
    assert_contract(backend, logits, np.asarray([69_999]), "float16")


@pytest.mark.thorough_on("dask", "array-api-strict")
def test_every_two_class_float16_row(backend):
    """Value and gradient of [x, 0] for each of the 63,488 finite x, with the label at x, as the first and the second.

    Each x has its -x. What is not NumPy converts and computes in float32, and gets every seventh.
    """
    if "float16" not in backend.dtypes:
        return
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    x = x[np.isfinite(x)].astype(np.float64)
    assert x.size == 63_488
    x = x if backend.name == "numpy" else np.concatenate([x[::7], [65504.0, -65504.0, 2.0**-24]])
    logits = np.stack([x, np.zeros_like(x)], axis=1)
    exact = exact_rows(logits, np.zeros(x.size, int))
    assert_contract(backend, logits, np.zeros(x.size, int), "float16", exact=exact)
    swapped = type(exact)(
        *(Exact(*(part[..., ::-1] if part.ndim == 2 else part for part in quantity)) for quantity in exact)
    )
    assert_contract(backend, logits[:, ::-1], np.ones(x.size, int), "float16", exact=swapped)


def test_logsumexp_is_as_accurate_as_its_two_terms_allow(backend, dtype):
    """The maximum and the rest may cancel; the bound is therefore relative to the larger of them."""
    rng = np.random.default_rng(8)
    logits, class_ids = random_rows(rng, 3_000, 7, dtype)
    exact = exact_rows(logits, class_ids).logsumexp
    values = backend.call(stable_softmax.logsumexp, backend.logits(logits, dtype))
    eps = 2 * PRECISIONS[dtype].unit_roundoff
    finite = np.isfinite(values)
    scale = np.maximum(np.abs(logits.max(axis=1)), 2.0)
    assert np.all(exact.error(values)[finite] <= 16 * eps * scale[finite])
    assert np.all(np.abs(exact.nearest[~finite]) > PRECISIONS[dtype].largest * (1 - eps))
