"""Dask arrays on a cluster of two worker processes: larger than their memory, and with a worker that dies."""

import os
import signal
import sys
import threading
import time

import cloudpickle
import dask
import dask.array
import numpy as np
import pytest
import zarr
from dask.distributed import Client, LocalCluster
from loss_options import with_arrays

import stable_softmax

MEMORY = 400 << 20
EXAMPLES, CLASSES, CHUNK = 256, 1_000_000, 20_000


@pytest.fixture(scope="module")
def client():
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # which the workers cannot import
    # What Python itself takes is much of so little memory, so that a worker has to spill chunks earlier than usual.
    memory = {"distributed.worker.memory.target": 0.3, "distributed.worker.memory.spill": 0.5}
    with (
        dask.config.set(memory),
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=MEMORY, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def drawn_chunks():
    """Yield blocks of classes, of logits of which the label leads by far, leads hardly or does not."""
    rng = np.random.default_rng(3)
    for first in range(0, CLASSES, CHUNK):
        chunk = rng.standard_normal((EXAMPLES, CHUNK), np.float32) * 3
        chunk[:, 0] += np.where((class_ids() >= first) & (class_ids() < first + CHUNK), lead(), 0)
        yield first, chunk


def class_ids():
    return np.random.default_rng(2).integers(0, CLASSES // CHUNK, size=EXAMPLES) * CHUNK


def lead():
    return np.linspace(0, 60, EXAMPLES, dtype=np.float32)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """Return logits of 1 GB in a Zarr store, and their losses, by sums in float64, whose range is large enough."""
    path = tmp_path_factory.mktemp("zarr")
    stored = zarr.create_array(path / "logits", shape=(EXAMPLES, CLASSES), chunks=(EXAMPLES, CHUNK), dtype="float32")
    others, label = np.zeros(EXAMPLES), np.zeros(EXAMPLES)
    for first, chunk in drawn_chunks():
        stored[:, first : first + CHUNK] = chunk
        has_label = class_ids() == first
        label = np.where(has_label, chunk[:, 0], label)
        chunk[has_label, 0] = -np.inf
        others += np.exp(chunk, dtype=np.float64).sum(axis=1)
    return path / "logits", np.log1p(others / np.exp(label)), label + np.log1p(others / np.exp(label))


def peak_memory():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))


def test_a_loss_over_more_than_the_memory_of_the_workers(client, on_disk):
    path, expected, totals = on_disk
    logits = dask.array.from_zarr(str(path))
    assert logits.nbytes > 2 * MEMORY
    losses = stable_softmax.softmax_crossentropy_with_logits(logits, class_ids()).compute()
    span = 60 + 6 * 3  # of the logits, and what float32 allows for it
    np.testing.assert_allclose(losses, expected, rtol=(span + 56) * 2.0**-24)
    np.testing.assert_allclose(stable_softmax.logsumexp(logits).compute(), totals, rtol=32 * 2.0**-24)
    assert max(client.run(peak_memory).values()) < MEMORY


def test_a_gradient_over_more_than_the_memory_of_the_workers(client, on_disk):
    path, losses, _ = on_disk
    gradient = stable_softmax.grad_softmax_crossentropy_with_logits(
        dask.array.from_zarr(str(path)), class_ids(), reduction="none"
    )
    assert gradient.numblocks == (1, CLASSES // CHUNK)
    at_label = gradient.min(axis=1).compute()
    np.testing.assert_allclose(at_label, np.expm1(-losses), rtol=(60 + 6 * 3 + 56) * 2.0**-24)
    assert max(client.run(peak_memory).values()) < MEMORY


def test_a_worker_that_dies_changes_nothing(client, on_disk):
    path, expected, _ = on_disk

    def slowly(chunk):
        time.sleep(0.1)
        return chunk

    logits = dask.array.from_zarr(str(path)).map_blocks(slowly)
    before = client.run(os.getpid)
    killer = threading.Timer(1.5, os.kill, (next(iter(before.values())), signal.SIGKILL))
    killer.start()
    losses = stable_softmax.softmax_crossentropy_with_logits(logits, class_ids(), reduction="mean").compute()
    killer.join()
    np.testing.assert_allclose(losses, expected.mean(), rtol=1e-5)
    client.wait_for_workers(2)
    assert set(client.run(os.getpid).values()) != set(before.values())


def arguments():
    rng = np.random.default_rng(1)
    logits, ids = rng.normal(size=(12, 9)), rng.integers(0, 9, size=12)
    where = (rng.random((12, 9)) < 0.8) | (np.arange(9) == ids[:, None])
    return logits, ids, where, rng.random(9) + 0.1


NAMES = [name for name in stable_softmax.__all__ if "logits" in name or name in ("softmax", "log_softmax", "logsumexp")]


@pytest.mark.parametrize("name", NAMES)
def test_every_function_runs_on_the_cluster(client, name):  # noqa: ARG001
    logits, ids, where, weights = arguments()
    given, function = (logits, where), getattr(stable_softmax, name)
    names, options = ("where",), {}
    if "crossentropy" in name:
        vector = (np.cos(logits),) if name.startswith("hvp") else ()
        given, names = (logits, ids, *vector, where, weights), ("where", "class_weights")
        options = {"label_smoothing": 0.1, "z_loss": 0.1}
    lazy = [dask.array.from_array(a, chunks=tuple(-(-length // 3) for length in a.shape)) for a in given]
    results = with_arrays(function, names)(*lazy, **options)
    expected = with_arrays(function, names)(*given, **options)
    for result, same in zip(*((r if isinstance(r, tuple) else (r,)) for r in (results, expected)), strict=True):
        assert isinstance(result, dask.array.Array)
        np.testing.assert_allclose(result.compute(), same, rtol=1e-13, atol=1e-15)


def test_projected_features_run_on_the_cluster(client):  # noqa: ARG001
    rng = np.random.default_rng(1)
    features, weight, ids = rng.normal(size=(40, 4)), rng.normal(size=(9, 4)), rng.integers(0, 9, size=40)
    lazy = [dask.array.from_array(array, chunks=10) for array in (features, weight, ids)]
    loss, gradients = stable_softmax.value_and_grad_linear_softmax_crossentropy(*lazy, block_size=10)
    expected, of_all = stable_softmax.value_and_grad_linear_softmax_crossentropy(features, weight, ids)
    for result, same in ((loss, expected), *zip(gradients[:2], of_all[:2], strict=True)):
        np.testing.assert_allclose(result.compute(), same, rtol=1e-13, atol=1e-15)


class Counting:
    """Counts how often each part is read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.ndim, self.reads = array, array.shape, array.dtype, array.ndim, []

    def __getitem__(self, index):
        self.reads.append(str(index))
        return self.array[index]


@pytest.mark.parametrize("chunks", [(4, 9), (12, 3), (4, 3)])
def test_a_loss_reads_each_chunk_once(chunks):
    logits, ids, *_ = arguments()
    counting = Counting(logits)
    lazy = dask.array.from_array(counting, chunks=chunks)
    counting.reads.clear()  # of nothing, for its kind
    loss = stable_softmax.softmax_crossentropy_with_logits(lazy, ids, reduction="mean", z_loss=0.1)
    assert counting.reads == []
    with dask.config.set(scheduler="threads"):
        loss.compute()
    assert len(counting.reads) == len(set(counting.reads)) == lazy.npartitions
