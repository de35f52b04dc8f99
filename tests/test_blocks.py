"""Large NumPy arrays, on which the work is done block by block: any layout, any option, little memory, any file."""

import os
import subprocess
import sys

import numpy as np
import pytest

import stable_softmax
from stable_softmax._core import layout as layouts

pytestmark = [pytest.mark.only_backends("numpy"), pytest.mark.covering, pytest.mark.quick]

# What to swap the axes of, shape, class axis. Each is of several blocks.
LAYOUTS = {
    "short rows": (lambda z: z, (60_000, 10), -1),
    "long rows": (lambda z: z, (700, 1_000), -1),
    "one row for each block": (lambda z: z, (3, 300_000), -1),
    "classes first": (lambda z: z, (10, 60_000), 0),
    "classes in the middle": (lambda z: z, (5, 300, 400), 1),
    "short rows in the middle": (lambda z: z, (500, 7, 200), 1),
    "Fortran order": (np.asfortranarray, (6_000, 100), -1),
    "seven batch axes": (lambda z: z, (3, 2, 5, 4, 2, 5, 3, 200), -1),
    "swapped axes": (lambda z: np.swapaxes(z, 0, 2), (9, 700, 100), 1),
    "reversed": (lambda z: z[::-1, ::-1], (60_000, 10), -1),
    "every second class": (lambda z: z[:, ::2], (60_000, 20), -1),
    "the same row again and again": (lambda z: np.broadcast_to(z, (60_000, 10)), (1, 10), -1),
}
VALUE_AND_GRADIENT = stable_softmax.value_and_grad_softmax_crossentropy_with_logits


def drawn(layout, dtype="float64"):
    view, shape, axis = LAYOUTS[layout]
    rng = np.random.default_rng(9)
    logits = view((rng.normal(size=shape) * 3).astype(dtype))
    class_ids = rng.integers(0, logits.shape[axis], size=np.delete(logits.shape, axis))
    return logits, class_ids, axis


def all_results(logits, class_ids, axis, **options):
    loss, gradient = VALUE_AND_GRADIENT(logits, class_ids, axis, **options)
    normalized = [getattr(stable_softmax, name)(logits, axis) for name in ("softmax", "log_softmax", "logsumexp")]
    losses = stable_softmax.softmax_crossentropy_with_logits(logits, class_ids, axis)
    product = stable_softmax.hvp_softmax_crossentropy_with_logits(logits, class_ids, np.cos(logits), axis, **options)
    diagonal = stable_softmax.hessian_diagonal_softmax_crossentropy_with_logits(logits, class_ids, axis, **options)
    compared = [stable_softmax.softmax_entropy(logits, axis)]
    for name in ("kl", "js"):
        compare = getattr(stable_softmax, f"value_and_grad_softmax_{name}_divergence")
        divergence, gradients = compare(logits, np.cos(logits), axis)
        compared += [divergence, *gradients]
    return [loss, losses, gradient, product, diagonal, *normalized, *compared]


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 1e-3, "ignore_index": 2}])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_blocks_give_what_the_whole_array_gives(monkeypatch, layout, options):
    logits, class_ids, axis = drawn(layout)
    in_blocks = all_results(logits, class_ids, axis, **options)
    monkeypatch.setattr(layouts, "SMALL", logits.size)
    whole = all_results(logits, class_ids, axis, **options)
    for ours, expected in zip(in_blocks, whole, strict=True):
        assert ours.shape == expected.shape
        assert ours.dtype == expected.dtype
        np.testing.assert_allclose(ours, expected, rtol=1e-13, atol=1e-18)


def test_masks_weights_and_probabilities_are_cut_like_the_logits():
    rng = np.random.default_rng(10)
    logits, targets = rng.normal(size=(60_000, 10)), rng.dirichlet(np.ones(10), size=60_000)
    options = {"where": rng.random((60_000, 10)) < 0.9, "class_weights": rng.random(10), "reduction": "none"}
    loss, gradient = VALUE_AND_GRADIENT(logits, targets, **options)
    for rows in (slice(0, 300), slice(30_000, 30_300)):
        of_rows = options | {"where": options["where"][rows]}
        part_loss, part_gradient = VALUE_AND_GRADIENT(logits[rows], targets[rows], **of_rows)
        np.testing.assert_allclose(loss[rows], part_loss, rtol=1e-13)
        np.testing.assert_allclose(gradient[rows], part_gradient, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("given", ["float16", "float32", "int64"])
def test_blocks_are_converted_like_small_arrays(given):
    logits, _, _ = drawn("long rows", given)
    for name in ("softmax", "log_softmax", "logsumexp"):
        function = getattr(stable_softmax, name)
        result = function(logits)
        assert result.dtype == function(logits[:1]).dtype
        np.testing.assert_array_equal(result[-2:], function(logits[-2:]))


def test_the_first_bad_class_id_is_found_beyond_the_first_block():
    logits, class_ids, axis = drawn("short rows")
    class_ids[50_000] = 10
    with pytest.raises(ValueError, match=r"is 10 at position \(50000,\)"):
        VALUE_AND_GRADIENT(logits, class_ids, axis)


def test_results_lie_in_memory_like_the_logits():
    assert stable_softmax.softmax(drawn("Fortran order")[0]).flags.f_contiguous
    assert stable_softmax.softmax(drawn("short rows")[0]).flags.c_contiguous


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other ways")
def test_losses_of_a_file_larger_than_the_memory_that_the_process_may_use(tmp_path):
    """256 MiB of logits with 64 MiB of memory."""
    path = tmp_path / "logits"
    np.memmap(path, dtype=np.float32, mode="w+", shape=(64_000, 1_000))[::1_000, 0] = 5
    script = f"""
import resource
import numpy as np
import stable_softmax
logits = np.memmap({str(path)!r}, dtype=np.float32, mode="r", shape=(64_000, 1_000))
class_ids = np.zeros(len(logits), np.int64)
resource.setrlimit(resource.RLIMIT_DATA, (using() + 2**26, resource.RLIM_INFINITY))
loss = stable_softmax.softmax_crossentropy_with_logits(logits, class_ids, reduction="mean")
totals = stable_softmax.logsumexp(logits)
assert type(totals) is np.ndarray
np.testing.assert_allclose(totals[1], np.log(1000), rtol=1e-6)
np.testing.assert_allclose(loss, 0.999 * np.log(1000) + 0.001 * np.log1p(999 * np.exp(-5)), rtol=1e-6)
try:
    stable_softmax.softmax(logits)
except MemoryError:
    print("the limit holds")
"""
    using = """
def using():
    lines = open("/proc/self/status").readlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmData")) * 1024
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", using + script], capture_output=True, text=True, env=environment)
    assert run.stdout == "the limit holds\n", run.stderr
