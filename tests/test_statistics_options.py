"""Statistics of parts with options: from merged parts, the loss is what it is of all classes at once."""

from itertools import combinations

import numpy as np
import pytest
from loss_options import IGNORED, call, demanding_case
from merged_losses import CLASSES, WAYS, merged_in_pairs, parts, ways_to_merge

import stable_softmax
from stable_softmax import softmax_statistics
from stable_softmax.reference.bounds import PRECISIONS

pytestmark = pytest.mark.covering_on("numpy")

NAMES = ("where", "class_weights", "example_weights", "label_smoothing", "ignore_index", "z_loss")
COMBINATIONS = [
    *(
        pytest.param(names, id="+".join(names), marks=pytest.mark.thorough_on("array-api-strict", "torch", "dask"))
        for names in [*combinations(NAMES, 1), *combinations(NAMES, 2)]
    ),
    pytest.param(NAMES, id="all"),
]


@pytest.mark.parametrize("names", COMBINATIONS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.only_backends("numpy", "array-api-strict", "torch", "dask")
def test_losses_are_those_of_all_classes_at_once(library, way, names):
    for dtype in ("float32", "float64"):
        case = demanding_case(names, 40, CLASSES, dtype)
        for reduction in ("none", "mean", "sum"):
            given, expected = (
                call(library, function, case, dtype, reduction=reduction)
                for function in (ways_to_merge(library.xp)[way], stable_softmax.softmax_crossentropy_with_logits)
            )
            np.testing.assert_allclose(given, expected, rtol=1000 * PRECISIONS[dtype].unit_roundoff)


def test_ignored_examples_are_0_whatever_they_hold(library):
    z = library.array(np.asarray([[np.nan, np.inf, 1.0], [0.0, 0.0, 0.0], [np.nan, 0.0, 0.0]]))
    y, weights = library.array(np.asarray([IGNORED, 1, 0])), library.array(np.asarray([1.0, 1.0, 0.0]))
    merged = merged_in_pairs(parts((0, 1, 3), z, y, ignore_index=IGNORED, example_weights=weights))
    np.testing.assert_allclose(library.numpy(merged.crossentropy()), [0, np.log(3), 0], rtol=1e-6)
    np.testing.assert_allclose(library.numpy(merged.crossentropy(reduction="mean")), np.log(3), rtol=1e-6)
    np.testing.assert_allclose(library.numpy(merged.logsumexp()), [0, np.log(3), 0], rtol=1e-6)
    nothing = softmax_statistics(z, y, ignore_index=IGNORED, example_weights=weights * 0)
    assert float(library.numpy(nothing.crossentropy(reduction="mean"))) == 0


def test_an_ignored_id_that_no_label_can_have_ignores_nothing(library):
    z, y = library.array(np.zeros((2, 3))), library.array(np.asarray([0, 1], np.uint8))
    merged = merged_in_pairs(parts((0, 1, 3), z, y, ignore_index=IGNORED))
    np.testing.assert_allclose(library.numpy(merged.crossentropy()), np.log([3, 3]), rtol=1e-6)
    assert merged.example_weight is None


def test_the_largest_mean_is_in_range(library):
    z = library.logits(np.asarray([[1e30, 0.0]] * 4), "float32")
    statistics = softmax_statistics(z, library.array(np.ones(4, int)), class_weights=library.array(np.full(2, 1e8)))
    np.testing.assert_allclose(library.numpy(statistics.crossentropy(reduction="mean")), 1e30, rtol=1e-6)


@pytest.mark.thorough_on("jax")
def test_a_mask_may_leave_parts_without_classes(library):
    z, y = library.array(np.asarray([[9.0, np.nan, 0.0, 0.0]])), library.array(np.asarray([3]))
    where = library.array(np.asarray([[False, False, True, True]]))
    merged = merged_in_pairs(parts((0, 2, 4), z, y, where=where, label_smoothing=0.1))
    np.testing.assert_allclose(library.numpy(merged.crossentropy()), [np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(library.numpy(merged.logsumexp()), [np.log(2)], rtol=1e-6)
    np.testing.assert_array_equal(library.numpy(merged.classes), [2])
    without_labels = softmax_statistics(z, where=where)
    np.testing.assert_allclose(library.numpy(without_labels.logsumexp()), [np.log(2)], rtol=1e-6)


Z, Y = np.zeros((2, 3)), np.zeros(2, int)
BAD = [
    (
        {"class_weights": np.ones(4)},
        ValueError,
        r"class_weights must have shape \(3,\), one for each class, not \(4,\)",
    ),
    ({"class_weights": -np.ones(3)}, ValueError, r"class_weights must be finite and not negative, but is -1.0 at"),
    ({"example_weights": np.ones(3)}, ValueError, r"example_weights must have shape \(2,\), one for each example"),
    ({"label_smoothing": 1.5}, ValueError, r"label_smoothing must lie in \[0, 1\], but is 1.5"),
    ({"where": np.ones(3)}, TypeError, "where must be an array of booleans, not float64"),
    ({"ignore_index": 1.0}, TypeError, "ignore_index must be an integer, not 1.0"),
]


@pytest.mark.only_backends("numpy")
@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        softmax_statistics(Z, Y, **options)


@pytest.mark.only_backends("numpy")
def test_options_of_labels_need_labels():
    for name, value in (
        ("class_weights", np.ones(3)),
        ("example_weights", np.ones(2)),
        ("label_smoothing", 0.1),
        ("ignore_index", 0),
    ):
        with pytest.raises(ValueError, match=f"{name} needs labels: pass reference_answers, too"):
            softmax_statistics(Z, **{name: value})
    assert softmax_statistics(Z, label_smoothing=0).lag is None


@pytest.mark.only_backends("numpy")
def test_statistics_with_other_options_do_not_merge():
    plain = softmax_statistics(Z, Y)
    for options, name in (
        ({"class_weights": np.ones(3)}, "class_weights"),
        ({"label_smoothing": 0.1}, "label_smoothing"),
        ({"ignore_index": 2}, "example_weights or ignore_index"),
    ):
        with pytest.raises(ValueError, match=f"either both statistics must have {name}, or neither"):
            plain.merge(softmax_statistics(Z, Y, **options))


@pytest.mark.only_backends("numpy")
def test_bad_options_of_the_loss_are_refused():
    statistics = softmax_statistics(Z, Y)
    with pytest.raises(ValueError, match=r"z_loss must lie in \[0, .*\], but is -1"):
        statistics.crossentropy(z_loss=-1)
    with pytest.raises(ValueError, match=r"reduction must be 'none', 'mean' or 'sum', not 'average'; did you mean"):
        statistics.crossentropy(reduction="average")


def test_a_label_that_where_excludes_is_refused_or_gives_nan(library):
    z, y = library.array(Z), library.array(Y)
    statistics = softmax_statistics(z, y, where=library.array(np.asarray([[False, True, True], [True, True, True]])))
    if library.reads_values:
        with pytest.raises(ValueError, match=r"the label at position \(0,\) is in none: .* does where keep the label"):
            statistics.crossentropy()
    else:
        np.testing.assert_array_equal(np.isnan(library.numpy(statistics.crossentropy())), [True, False])
