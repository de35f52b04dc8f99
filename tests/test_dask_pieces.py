"""Dask arrays that are cut along the classes in any way give what NumPy gives, without a warning."""

import numpy as np
import pytest
from loss_options import ALL_WITH_IDS, ALL_WITH_PROBABILITIES, moderate_case

import stable_softmax

pytestmark = [pytest.mark.only_backends("dask"), pytest.mark.covering]

CUTS = {"uneven": (1, 3, 0, 1, 1, 3), "with nothing first": (0, 5, 4), "single": (1,) * 9}
OPTIONS = [(), ("where",), ("probabilities",), ("class_weights", "label_smoothing", "z_loss"), ALL_WITH_IDS]
OPTIONS += [("probabilities", "where", "z_loss"), ALL_WITH_PROBABILITIES]
LARGE = np.finfo(np.float64).max
#: Infinities, NaN, nothing but -inf, and distances whose sums leave the dtype.
ODD_ROWS = [
    [np.inf, 0, *([-np.inf] * 6), 1],
    [np.nan, *range(8)],
    [-np.inf] * 9,
    [-1, *([-np.inf] * 7), 1],
    [LARGE / 4, *([0] * 8)],
]
ODD_ANSWERS = [8, 1, 2, 8, 0]


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_normalizations(cuts):
    import dask.array

    logits = np.asarray([*ODD_ROWS, range(9), [700, *([0] * 8)]], float)
    where = np.arange(9) % 3 != 1
    lazy = dask.array.from_array(logits, chunks=(4, cuts))
    for function in (stable_softmax.softmax, stable_softmax.log_softmax, stable_softmax.logsumexp):
        for options in ({}, {"where": where}):
            np.testing.assert_allclose(function(lazy, **options), function(logits, **options), rtol=1e-13)


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("names", OPTIONS, ids="+".join)
def test_losses_and_derivatives(names, cuts):
    import dask.array

    case = moderate_case(names, count=8, classes=9)
    logits = np.concatenate([case.logits, ODD_ROWS])
    answers = np.eye(9)[ODD_ANSWERS] if "probabilities" in names else ODD_ANSWERS
    answers, arrays = np.concatenate([case.answers, answers]), dict(case.arrays)
    if "where" in names:
        arrays["where"] = np.concatenate([arrays["where"], np.ones((len(ODD_ROWS), 9), bool)])
    if "example_weights" in names:
        arrays["example_weights"] = np.concatenate([arrays["example_weights"], np.arange(len(ODD_ROWS))])
    if {"where", "probabilities"} <= set(names):
        arrays["where"][[1, 8, 10]] = False
    lazy, options = dask.array.from_array(logits, chunks=(5, cuts)), arrays | case.numbers | {"reduction": "none"}
    for function in (
        stable_softmax.value_and_grad_softmax_crossentropy_with_logits,
        stable_softmax.hessian_diagonal_softmax_crossentropy_with_logits,
    ):
        results, expected = function(lazy, answers, **options), function(logits, answers, **options)
        for result, same in zip(*((r if isinstance(r, tuple) else (r,)) for r in (results, expected)), strict=True):
            np.testing.assert_allclose(result.compute(), same, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("weights", [None, (1, 1, 1e-40)])
def test_smoothing_whose_share_is_hardly_a_number(weights):
    """It counts at a logit of -inf if and only if it does in one piece."""
    import dask.array

    logits, answers = np.asarray([[0, 1, -np.inf]], np.float32), np.asarray([0])
    options = {} if weights is None else {"class_weights": np.asarray(weights, np.float32)}
    for smoothing in (1e-46, 0.1):
        options["label_smoothing"] = smoothing
        expected = stable_softmax.softmax_crossentropy_with_logits(logits, answers, **options)
        for cuts in ((1, 1, 1), (2, 1)):
            lazy = dask.array.from_array(logits, chunks=(1, cuts))
            loss = stable_softmax.softmax_crossentropy_with_logits(lazy, answers, **options)
            np.testing.assert_allclose(loss.compute(), expected, rtol=1e-6)


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("rows", [1, 2])
def test_negative_target_spoils_its_example_whichever_chunk_it_is_in(cuts, rows):
    import dask.array

    targets = np.full((2, 9), 1 / 9)
    targets[1, 4] = -1
    lazy = (dask.array.from_array(array, chunks=(rows, cuts)) for array in (np.zeros((2, 9)), targets))
    losses = stable_softmax.softmax_crossentropy_with_logits(*lazy, where=np.arange(9) > 2)
    np.testing.assert_allclose(losses, [np.log(6) * 6 / 9, np.nan])


EMPTY = {"first": (0, 0, 1), "last": (1, 0), "all": (0, 0), "some": (2, 0, 3), "both": (0, 2, 0)}


@pytest.mark.parametrize("rows", EMPTY.values(), ids=EMPTY)
@pytest.mark.parametrize("classes", [(4,), (0, 4), (1, 0, 3)], ids=str)
def test_chunks_of_no_rows_or_classes(rows, classes):
    """As a selection by a mask leaves them. Dask itself cannot reshape them, or find their maximum."""
    import dask.array

    rng, count = np.random.default_rng(3), sum(rows)
    logits, ids, where = rng.normal(size=(count, 4)), rng.integers(0, 4, size=count), rng.random((count, 4)) < 2
    targets, weights = rng.dirichlet(np.ones(4), size=count), np.arange(1.0, 5)

    def results(z, y, t, where, weights):
        for function in (stable_softmax.softmax, stable_softmax.log_softmax, stable_softmax.logsumexp):
            yield function(z, where=where)
            yield function(z, axis=None)
        for answers, options in ((y, {"ignore_index": 2}), (y, {"class_weights": weights}), (t, {"z_loss": 0.1})):
            yield from stable_softmax.value_and_grad_softmax_crossentropy_with_logits(z, answers, **options)
            yield stable_softmax.softmax_crossentropy_with_logits(z, answers, where=where, **options)
            yield stable_softmax.hvp_softmax_crossentropy_with_logits(z, answers, t, **options)
            yield stable_softmax.hessian_diagonal_softmax_crossentropy_with_logits(z, answers, **options)
            loss, gradients = stable_softmax.value_and_grad_linear_softmax_crossentropy(
                z, np.eye(4), answers, **options
            )
            yield from (loss, *gradients[:2])
        statistics = stable_softmax.softmax_statistics(z, y)
        yield statistics.merge(stable_softmax.softmax_statistics(z[:, :0], y)).crossentropy()

    arrays = (logits, rows), (ids, rows), (targets, rows), (where, rows), (weights, None)
    lazy = [dask.array.from_array(array, chunks=(sizes or classes, classes)[: array.ndim]) for array, sizes in arrays]
    for result, expected in zip(results(*lazy), results(*(array for array, _ in arrays)), strict=True):
        np.testing.assert_allclose(result.compute(), expected, rtol=1e-12, atol=1e-15)
