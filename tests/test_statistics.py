"""Statistics of parts of the classes: however they are cut and merged, the results are those of all classes at once."""

import random
from contextlib import nullcontext
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest

import stable_softmax
from stable_softmax import SoftmaxStatistics, softmax_statistics
from stable_softmax.reference.bounds import PRECISIONS, error_shares, representable
from stable_softmax.reference.exact import exact_rows
from stable_softmax.reference.rows import LEADS

pytestmark = pytest.mark.covering_on("numpy", "array-api-strict")

INF, NAN = np.inf, np.nan


def merged(first, second):
    return first.merge(second)


def in_sequence(parts):
    return reduce(merged, parts)


def backwards(parts):
    return reduce(lambda first, second: second.merge(first), reversed(parts))


def in_pairs(parts):
    while len(parts) > 1:
        parts = [in_sequence(parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return parts[0]


def in_a_random_tree(parts):
    parts, rng = list(parts), random.Random(3)
    while len(parts) > 1:
        first, second = (parts.pop(rng.randrange(len(parts))) for _ in range(2))
        parts.append(first.merge(second))
    return parts[0]


ORDERS = (in_sequence, backwards, in_pairs, in_a_random_tree)


def cut(logits, reference_answers, number):
    """Return the statistics of consecutive classes, of which some parts may be empty."""
    edges = np.linspace(0, logits.shape[-1], number + 1).astype(int)
    return [
        softmax_statistics(logits[..., first:last], reference_answers, first_class=int(first))
        for first, last in pairwise(edges)
    ]


def rows(dtype, classes):
    """Draw rows that are demanding to merge: sorted, with a label that leads by far, with a heavy tail, tied."""
    rng = np.random.default_rng(5)
    class_ids = rng.integers(0, classes, size=6)
    logits = rng.normal(size=(6, classes)) * 2
    logits[0].sort()
    logits[1] = -np.sort(-logits[1])
    logits[2:4, :] += np.where(np.arange(classes) == class_ids[2:4, None], np.asarray([LEADS[dtype][1:3]]).T, 0)
    logits[4] = np.where(np.arange(classes) == class_ids[4], 0, -1)
    logits[5] = rng.integers(-2, 2, size=classes)
    return representable(logits, dtype), class_ids


def assert_exact(statistics, exact, logits, dtype):
    """The loss within the contract of the dtype that the work is done in, logsumexp within 32 units of the maximum."""
    working = "float64" if dtype == "float64" else "float32"
    losses, totals = (np.asarray(values) for values in (statistics.crossentropy(), statistics.logsumexp()))
    assert str(losses.dtype).endswith(working)
    assert error_shares(losses, exact.crossentropy, logits, working).max() <= 1
    scale = np.maximum(2, np.abs(logits.max(axis=1)))
    assert np.max(exact.logsumexp.error(totals) / (32 * PRECISIONS[working].unit_roundoff * scale)) <= 1


@pytest.mark.only_backends("numpy", "torch", "array-api-strict")
@pytest.mark.thorough_on("torch", "array-api-strict")
def test_any_cut_and_any_order_keep_the_contract(library, dtype):
    logits, class_ids = rows(dtype, 2000)
    exact = exact_rows(logits, class_ids)
    z, y = library.logits(logits, dtype), library.array(class_ids)
    for number, orders in ((1, ORDERS[:1]), (7, ORDERS), (1000, (in_sequence, in_a_random_tree))):
        parts = cut(z, y, number)
        for order in orders:
            assert_exact(order(parts), exact, logits, dtype)


def test_a_cut_keeps_the_contract_on_every_library(backend, dtype):
    logits, class_ids = rows(dtype, 60)
    exact = exact_rows(logits, class_ids)

    def both(z, y):
        statistics = in_sequence(cut(z, y, 5))
        return statistics.logsumexp(), statistics.crossentropy()

    totals, losses = backend.call(both, backend.logits(logits, dtype), backend.array(class_ids))
    working = "float64" if dtype == "float64" else "float32"
    assert error_shares(losses, exact.crossentropy, logits, working).max() <= 1
    np.testing.assert_allclose(totals, exact.logsumexp.nearest, rtol=64 * PRECISIONS[working].unit_roundoff)


def test_no_classes_are_the_identity_bit_by_bit(library):
    logits, class_ids = rows("float32", 20)
    z, y = library.logits(logits, "float32"), library.array(class_ids)
    some, none = softmax_statistics(z[:, :15], y), softmax_statistics(z[:, :0], y)
    for whole in (some.merge(none), none.merge(some)):
        for field, expected in zip(whole[:5], some[:5], strict=True):
            np.testing.assert_array_equal(library.numpy(field), library.numpy(expected))


@pytest.mark.parametrize("position", [1, 2, 3])
def test_special_values_mean_in_parts_what_they_mean_in_one_piece(library, position):
    largest = float(np.finfo(np.float32).max)
    special = [
        *([-INF] * 4, [INF, 0, 1, 2], [0, 1, 2, INF], [INF, 0, 0, INF], [NAN, 1, 2, 3], [0, 1, -INF, NAN]),
        *([0, 1, -INF, 2], [-INF, -INF, 0, 1], [1, 2, -INF, -INF], [largest, -largest, 0, 1]),
        *(
            [-largest, -largest, largest, largest],
            [0, largest, -largest, 0],
            [INF, 900, 0, 1],
            [900, 0, 1, INF],
            [-largest] * 4,
            [largest] * 4,
        ),
    ]
    z = library.logits(special, "float32")
    for class_id in range(4):
        y = library.array(np.full(len(special), class_id))
        first, second = (
            softmax_statistics(z[:, :position], y),
            softmax_statistics(z[:, position:], y, first_class=position),
        )
        for whole in (first.merge(second), second.merge(first)):
            for given, expected in (
                (whole.logsumexp(), stable_softmax.logsumexp(z)),
                (whole.crossentropy(), stable_softmax.softmax_crossentropy_with_logits(z, y)),
            ):
                np.testing.assert_allclose(library.numpy(given), library.numpy(expected), rtol=1e-6)


@pytest.mark.thorough_on("jax")
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_classes_may_lie_along_any_axis(library, axis):
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(4, 3, 5))
    class_ids = rng.integers(0, logits.shape[axis], size=np.delete(logits.shape, axis))
    statistics = softmax_statistics(library.array(logits), library.array(class_ids), axis)
    expected = stable_softmax.softmax_crossentropy_with_logits(logits, class_ids, axis)
    np.testing.assert_allclose(library.numpy(statistics.crossentropy()), expected, rtol=1e-13)


def test_label_of_no_part_or_of_two_is_refused_or_gives_nan(library):
    z, y = library.array(np.zeros((3, 4))), library.array(np.asarray([0, 4, -1]))
    once, twice = softmax_statistics(z, y), softmax_statistics(z, y).merge(softmax_statistics(z[:, :1], y))
    if library.reads_values:
        with pytest.raises(ValueError, match=r"exactly one part, but the label at position \(1,\) is in none"):
            once.crossentropy()
        with pytest.raises(ValueError, match=r"exactly one part, but the label at position \(0,\) is in 2"):
            twice.crossentropy()
    else:
        np.testing.assert_array_equal(np.isnan(library.numpy(once.crossentropy())), [False, True, True])
        np.testing.assert_array_equal(np.isnan(library.numpy(twice.crossentropy())), [True, True, True])


def test_answers_are_needed_for_the_loss_alone(library):
    z = library.array(np.zeros((2, 3)))
    statistics = softmax_statistics(z[:, :1]).merge(softmax_statistics(z[:, 1:]))
    assert statistics.lag is None
    assert statistics.weight is None
    np.testing.assert_allclose(library.numpy(statistics.logsumexp()), np.log([3, 3]), rtol=1e-6)
    with pytest.raises(ValueError, match="the loss needs statistics with labels"):
        statistics.crossentropy()


def test_collectives_merge_as_merge_does(library):
    """Here of processes whose parts are all in one array, as what the collectives return."""
    logits, class_ids = rows("float64", 12)
    z, y = library.array(logits), library.array(class_ids)
    xp = library.xp
    for answers in (None, y):
        parts = [softmax_statistics(z[:, i : i + 4], answers, first_class=i) for i in (0, 4, 8)]
        seen = []

        def recorded(array, seen=seen):
            seen.append(array)
            return array

        for part in parts:
            part.merge_over(recorded, recorded)
        peak = xp.max(xp.stack(seen[::2]), axis=0)
        seen.clear()
        for part in parts:
            part.merge_over(lambda _, peak=peak: peak, recorded)
        total = xp.sum(xp.stack(seen), axis=0)
        whole = parts[0].merge_over(lambda _, peak=peak: peak, lambda _, total=total: total)
        expected = in_sequence(parts)
        np.testing.assert_allclose(
            library.numpy(whole.logsumexp()), library.numpy(expected.logsumexp()), rtol=1e-15, atol=1e-15
        )
        if answers is not None:
            losses = library.numpy(whole.crossentropy())
            np.testing.assert_allclose(losses, library.numpy(expected.crossentropy()), rtol=1e-14)


def test_parts_may_be_read_from_files(tmp_path):
    logits, class_ids = rows("float32", 1000)
    logits = logits.astype(np.float32)
    for i in range(0, 1000, 250):
        np.save(tmp_path / f"{i}.npy", logits[:, i : i + 250])
    statistics = softmax_statistics(logits[:, :0], class_ids)
    for i in (500, 0, 750, 250):
        part = np.load(tmp_path / f"{i}.npy", mmap_mode="r")
        statistics = statistics.merge(softmax_statistics(part, class_ids, first_class=i))
    assert_exact(statistics, exact_rows(logits.astype(float), class_ids), logits.astype(float), "float32")


BAD = {
    "logits": ([1.0, 2.0], TypeError, "logits must be an array"),
    "reference_answers": (np.zeros(2), TypeError, "reference_answers must be class ids of an integer dtype, not float"),
    "answers' shape": (np.zeros(3, int), ValueError, r"reference_answers must have shape \(2,\)"),
    "axis": ((0, 1), TypeError, r"axis must be an integer, not \(0, 1\)"),
    "first_class": (0.0, TypeError, "first_class must be an integer, not 0.0"),
    "negative": (-1, ValueError, "first_class must not be negative, but is -1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_argument(name):
    value, error, message = BAD[name]
    given = {"logits": np.zeros((2, 3)), "reference_answers": np.zeros(2, int)}
    argument = {"answers' shape": "reference_answers", "negative": "first_class"}.get(name, name)
    with pytest.raises(error, match=message):
        softmax_statistics(**(given | {argument: value}))


def test_what_does_not_belong_together_is_refused():
    z, y = np.zeros((2, 3)), np.zeros(2, int)
    statistics = softmax_statistics(z, y)
    with pytest.raises(TypeError, match="other must be SoftmaxStatistics, not ndarray"):
        statistics.merge(z)
    with pytest.raises(ValueError, match="either both statistics must have labels"):
        statistics.merge(softmax_statistics(z))
    with pytest.raises(ValueError, match=r"examples of these statistics, \(2,\), not \(1,\)"):
        statistics.merge(softmax_statistics(z[:1], y[:1]))
    with pytest.raises(TypeError, match=r"the dtype of these statistics, float64, not float32"):
        statistics.merge(softmax_statistics(z.astype(np.float32), y))


def test_a_tuple_of_arrays_survives_what_tuples_do(library):
    statistics = softmax_statistics(library.array(np.zeros((2, 3))), library.array(np.zeros(2, np.int64)))
    again = SoftmaxStatistics(*statistics)
    np.testing.assert_array_equal(library.numpy(again.crossentropy()), library.numpy(statistics.crossentropy()))


@pytest.mark.parametrize("bits", [pytest.param(32, marks=pytest.mark.only_backends("jax")), 64])
def test_class_ids_do_not_wrap_around(library, bits):
    """The difference of the largest class id and the smallest integer is 1 once it has wrapped around."""
    largest = 2 ** (bits - 1) - 1
    with library.in_32_bits() if bits == 32 else nullcontext():
        z = library.array(np.zeros((3, 3), np.float32))
        y = library.array(np.asarray([-largest - 1, largest, -largest], f"int{bits}"))
        statistics = softmax_statistics(z, y, first_class=largest)
        np.testing.assert_array_equal(library.numpy(statistics.weight), [0, 1, 0])
        for beyond in (largest + 1, 2 * largest, 10**30):
            with pytest.raises(ValueError, match=rf"^first_class must lie in \[0, {largest}\], .*, but is {beyond}$"):
                softmax_statistics(z, y, first_class=beyond)


@pytest.mark.only_backends("jax")
@pytest.mark.parametrize("bits", [32, 64])
def test_traced_first_class_out_of_range_makes_losses_nan(library, bits):
    jax, largest = library.jax, 2 ** (bits - 1) - 1

    @jax.jit
    def weights(y, first_class):
        return softmax_statistics(jax.numpy.zeros((y.shape[0], 3)), y, first_class=first_class).weight

    with library.in_32_bits() if bits == 32 else nullcontext():
        y = library.array(np.asarray([-largest - 1, -5, -1, 0, 2, largest], f"int{bits}"))
        for kind, first_class, expected in (
            ("int", largest, [0, 0, 0, 0, 0, 1]),
            ("int", 1, [0, 0, 0, 0, 1, 0]),
            ("int", -1, [0] * 6),
            ("int", -5, [0] * 6),
            ("int", -largest - 1, [0] * 6),
            ("uint", 0, [0, 0, 0, 1, 1, 0]),
            ("uint", largest + 1, [0] * 6),
            ("uint", 2 * largest + 1, [0] * 6),
        ):
            first_class = library.array(np.asarray(first_class, f"{kind}{bits}"))
            np.testing.assert_array_equal(weights(y, first_class), expected)
            if first_class < 0 or first_class > largest:
                with pytest.raises(ValueError, match=r"^first_class must "):
                    softmax_statistics(jax.numpy.zeros((6, 3)), y, first_class=first_class)


@pytest.mark.only_backends("numpy", "jax", "torch", "array-api-strict")
def test_first_class_may_be_an_array_of_any_integer_dtype(library):
    z, y = library.array(np.zeros((2, 3))), library.array(np.asarray([5, 8]))
    for kind in ("uint8", "int16", "uint32", "int64"):
        statistics = softmax_statistics(z, y, first_class=library.array(np.asarray(5, kind)))
        np.testing.assert_array_equal(library.numpy(statistics.weight), [1, 0])
    with pytest.raises(ValueError, match=r"^first_class must not be negative, but is -5$"):
        softmax_statistics(z, y, first_class=library.array(np.asarray(-5)))
