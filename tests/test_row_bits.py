"""The bits of a row depend on its own values, dtype, memory order and options: on no neighbour, block or worker."""

import numpy as np
import pytest

import stable_softmax
from stable_softmax import set_workers
from stable_softmax._core import layout as layouts

pytestmark = pytest.mark.only_backends("numpy", "torch")

#: The shape of logits and where their classes lie: next to each other in memory, or far from each other.
LAYOUTS = {
    "classes last": lambda z: (z, 1),
    "classes first": lambda z: (z.T.copy(), 0),
    "Fortran order": lambda z: (np.asfortranarray(z), 1),
    "Fortran order, classes first": lambda z: (z.T, 0),
    "classes in the middle": lambda z: (np.ascontiguousarray(z.reshape(-1, 5, z.shape[1]).swapaxes(1, 2)), 1),
    "channels last": lambda z: (z.reshape(-1, 5, z.shape[1]).swapaxes(1, 2), 1),
    "every second class": lambda z: (np.repeat(z, 2, axis=1)[:, ::2], 1),
}
NORMALIZATIONS = ("softmax", "log_softmax", "logsumexp")
OPTIONS = [{}, {"label_smoothing": 0.1, "z_loss": 0.01}, {"ignore_index": 2, "class_weights": True, "where": True}]


def drawn(rows, classes, dtype):
    """Return rows, some of which need a shift or the exact sum, or have a label without weight."""
    rng = np.random.default_rng(classes)
    z = rng.normal(size=(rows, classes)) * 3
    y = rng.integers(0, classes, size=rows)
    z[::7, 0] += 20
    z[::11] -= 50
    z[np.arange(3, rows, 13), y[3::13]] += 18
    z[np.arange(5, rows, 17), y[5::17]] -= 150
    return z.astype(dtype), y


def all_results(z, y, axis, options):
    """Yield everything that has entries for each row, with the classes last."""
    for name in NORMALIZATIONS:
        yield getattr(stable_softmax, name)(z, axis)
    of_statistics = {name: values for name, values in options.items() if name not in ("z_loss", "reduction")}
    statistics = stable_softmax.softmax_statistics(z, y, axis, **of_statistics)
    yield from (field for field in statistics if field is not None)
    options = {"reduction": "none", **options}
    yield stable_softmax.softmax_crossentropy_with_logits(z, y, axis, **options)
    yield stable_softmax.grad_softmax_crossentropy_with_logits(z, y, axis, **options)
    yield from stable_softmax.value_and_grad_softmax_crossentropy_with_logits(z, y, axis, **options)
    yield stable_softmax.hvp_softmax_crossentropy_with_logits(z, y, z, axis, **options)
    yield stable_softmax.hessian_diagonal_softmax_crossentropy_with_logits(z, y, axis, **options)
    masked = {"where": options.get("where"), "reduction": "none"}
    yield from stable_softmax.value_and_grad_softmax_entropy(z, axis, **masked)
    for name in ("kl", "js"):
        compare = getattr(stable_softmax, f"value_and_grad_softmax_{name}_divergence")
        divergences, gradients = compare(z, z * 0.9, axis, **masked)
        yield from (divergences, *gradients)


def with_classes_last(library, result, ndim, axis):
    result = library.numpy(result)
    return np.moveaxis(result, axis, -1) if result.ndim == ndim else result


def given_options(library, options, classes, dtype):
    given = dict(options)
    if "class_weights" in given:
        given["class_weights"] = library.array(np.linspace(0.5, 2, classes).astype(dtype))
    return given


def on_library(library, array):
    """Return an array with the same strides, which copies do not keep."""
    if library.name == "numpy":
        return array
    import torch

    base = np.array(array, copy=True, order="K")
    order = np.argsort([-s for s in array.strides], kind="stable")
    if sorted(base.strides) != sorted(array.strides):  # with gaps
        wide = np.repeat(np.asarray(array), 2, axis=-1)
        return torch.asarray(wide)[..., ::2]
    dense = torch.asarray(np.ascontiguousarray(np.transpose(array, order)))
    return dense.permute(*np.argsort(order).tolist())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "classes", [10, *(pytest.param(n, marks=pytest.mark.thorough_on("torch")) for n in (1, 2, 17, 48, 49, 300))]
)
@pytest.mark.parametrize("precision", ["float32", pytest.param("float64", marks=pytest.mark.thorough_on("torch"))])
def test_a_row_alone_has_the_bits_that_it_has_among_others(library, layout, classes, precision, monkeypatch):
    monkeypatch.setattr(layouts, "BLOCK_BYTES", 1 << 14)
    rows = 5 * (8_000 // (5 * classes) + 1)
    z, y = drawn(rows, classes, precision)
    array, axis = LAYOUTS[layout](z)
    ids = y if array.ndim == 2 else y.reshape(-1, 5)
    whole, labels = on_library(library, array), library.array(ids)
    places = [np.unravel_index(i, ids.shape) for i in range(0, rows, max(1, rows // 4))]
    for options in OPTIONS:
        given = given_options(library, options, classes, precision)
        where = np.arange(classes) < max(1, classes - 2)
        masked = "where" in given
        if masked:
            shape = [classes if i == axis else 1 for i in range(array.ndim)]
            given["where"] = library.array(where.reshape(shape))
            labels = library.array(np.minimum(ids, max(0, classes - 3)))
        expected = [with_classes_last(library, r, array.ndim, axis) for r in all_results(whole, labels, axis, given)]
        with set_workers(2):
            shared = [with_classes_last(library, r, array.ndim, axis) for r in all_results(whole, labels, axis, given)]
        for result, same in zip(shared, expected, strict=True):
            np.testing.assert_array_equal(result, same)
        for place in places:
            kept = tuple(slice(int(i), int(i) + 1) for i in place)
            alone = whole[(*kept[:axis], slice(None), *kept[axis:])]
            for result, same in zip(all_results(alone, labels[kept], axis, given), expected, strict=True):
                np.testing.assert_array_equal(with_classes_last(library, result, array.ndim, axis), same[kept])
            line = whole[(*map(int, place[:axis]), slice(None), *map(int, place[axis:]))]
            flat = given | ({"where": library.array(where)} if masked else {})
            for result, same in zip(all_results(line, labels[tuple(map(int, place))], 0, flat), expected, strict=True):
                np.testing.assert_array_equal(library.numpy(result), same[place])


def windows(library, values, classes):
    """Return rows that overlap in memory."""
    if library.name == "torch":
        return library.array(values).unfold(0, classes, 1)
    return np.lib.stride_tricks.sliding_window_view(values, classes)


def repeated(library, row, rows):
    """Return rows that lie in the same memory."""
    if library.name == "torch":
        return library.array(row).expand(rows, len(row))
    return np.broadcast_to(row, (rows, len(row)))


def backwards(library, values, rows):
    """Return rows whose classes lie in memory in reverse, which PyTorch's cannot."""
    return library.array(values[: rows * 40].reshape(rows, 40)[:, ::-1])


@pytest.mark.parametrize("precision", ["float16", "float32", "float64"])
@pytest.mark.parametrize("rows", [5, 60, 300])
def test_rows_that_share_memory_have_the_bits_of_one_row(library, precision, rows):
    rng = np.random.default_rng(rows)
    values, y = (rng.normal(size=rows * 40) * 3).astype(precision), rng.integers(0, 5, size=rows)
    kinds = [windows(library, values[: rows + 19], 20), repeated(library, values[:200], rows)]
    if library.name == "numpy":
        kinds += [backwards(library, values, rows), repeated(library, values[:17], rows)]
    labels = library.array(y)
    for z in kinds:
        for options in OPTIONS[:2]:
            expected = list(all_results(z, labels, 1, options))
            for i in range(0, rows, max(1, rows // 4)):
                kept = slice(i, i + 1)
                for result, same in zip(all_results(z[kept], labels[kept], 1, options), expected, strict=True):
                    np.testing.assert_array_equal(library.numpy(result), library.numpy(same[kept]))


@pytest.mark.parametrize("shape", [(5, 20), (64, 1000)], ids=str)
@pytest.mark.parametrize("transposed", ["where", "reference_answers", "vector"])
def test_masks_targets_and_vectors_may_lie_in_another_order(library, shape, transposed):
    rng = np.random.default_rng(1)
    z, targets, vector, left = (rng.random(shape).astype(np.float32) for _ in range(4))
    arrays = {"where": left < 0.8, "reference_answers": targets, "vector": vector}
    given = {name: library.array(array) for name, array in arrays.items()}
    given[transposed] = library.array(np.ascontiguousarray(arrays[transposed].T)).T
    logits = library.array(z)

    def results(rows):
        where, targets, vector = (array[rows] for array in given.values())
        for name in NORMALIZATIONS:
            yield getattr(stable_softmax, name)(logits[rows], where=where)
        options = {"where": where, "reduction": "none"}
        yield from stable_softmax.value_and_grad_softmax_crossentropy_with_logits(logits[rows], targets, **options)
        yield stable_softmax.hvp_softmax_crossentropy_with_logits(logits[rows], targets, vector, **options)

    whole = list(results(slice(None)))
    for i in range(5):
        for result, same in zip(results(slice(i, i + 1)), whole, strict=True):
            np.testing.assert_array_equal(library.numpy(result), library.numpy(same[i : i + 1]))
