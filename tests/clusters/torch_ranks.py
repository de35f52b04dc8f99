"""Two processes hold parts of the same tensors (DTensor), and find the results of one: `python torch_ranks.py`."""

import os
import tempfile
import warnings
from functools import partial
from pathlib import Path

import torch
import torch.distributed
from torch.distributed import ReduceOp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.nn.functional import all_reduce
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

import stable_softmax
from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    hessian_diagonal_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    softmax_statistics,
    value_and_grad_softmax_crossentropy_with_logits,
)

RANKS = 2
EVERYTHING = {"label_smoothing": 0.1, "z_loss": 0.1}
#: How logits, class ids and class weights are split.
SPLITS = {
    "classes": (Shard(1), Replicate(), Shard(0)),
    "examples": (Shard(0), Shard(0), Replicate()),
    "nothing": (Replicate(), Replicate(), Replicate()),
}


def drawn():
    torch.manual_seed(0)
    class_ids = torch.randint(0, 8, (6,))
    where = (torch.rand(6, 8) < 0.8) | (torch.arange(8) == class_ids[:, None])
    weights = torch.rand(8, dtype=torch.float64) + 0.1
    return torch.randn(6, 8).double(), class_ids, where, weights, torch.softmax(torch.randn(6, 8).double(), 1)


def all_results(z, y, where, weights, targets):
    """Yield what every function gives, alone and with every option."""
    for name in ("softmax", "log_softmax", "logsumexp"):
        yield getattr(stable_softmax, name)(z)
        yield getattr(stable_softmax, name)(z, where=where)
    weighted = {"class_weights": weights, **EVERYTHING}
    for answers, options in ((y, {}), (targets, weighted), (y, {**weighted, "where": where, "ignore_index": 3})):
        for reduction in ("none", "mean"):
            yield from value_and_grad_softmax_crossentropy_with_logits(z, answers, **options, reduction=reduction)
            yield hvp_softmax_crossentropy_with_logits(z, answers, z, **options, reduction=reduction)
            yield hessian_diagonal_softmax_crossentropy_with_logits(z, answers, **options, reduction=reduction)
        leaf = z.detach().requires_grad_()
        softmax_crossentropy_with_logits(leaf, answers, **options, reduction="mean").backward()
        yield leaf.grad


def compare(rank, store):
    warnings.simplefilter("ignore")  # PyTorch's, of its own collectives
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    mesh, arrays = init_device_mesh("cpu", (RANKS,)), drawn()
    for of_logits, of_ids, of_weights in SPLITS.values():
        placements = (of_logits, of_ids, of_logits, of_weights, of_logits)
        parts = [distribute_tensor(array, mesh, [part]) for array, part in zip(arrays, placements, strict=True)]
        for result, expected in zip(all_results(*parts), all_results(*arrays), strict=True):
            torch.testing.assert_close(result.full_tensor(), expected, rtol=1e-13, atol=1e-15)
    merge_over_processes(rank, *arrays[:2])
    torch.distributed.destroy_process_group()
    os._exit(0)  # without the interpreter's own end, which gloo's threads abort at times (pytorch/pytorch#190489)


def merge_over_processes(rank, logits, class_ids):
    """Each process holds half of the classes, of a loss that leads by far among others."""
    logits[0, class_ids[0]] += 50
    width = logits.shape[1] // RANKS
    leaf = logits[:, rank * width : (rank + 1) * width].clone().requires_grad_()
    statistics = softmax_statistics(leaf, class_ids, first_class=rank * width)
    losses = statistics.merge_over(partial(all_reduce, op=ReduceOp.MAX), all_reduce).crossentropy()
    torch.testing.assert_close(losses, softmax_crossentropy_with_logits(logits, class_ids), rtol=1e-13, atol=0)
    (losses.sum() / RANKS).backward()  # each process has the sum, and all_reduce adds their gradients
    expected = grad_softmax_crossentropy_with_logits(logits, class_ids, reduction="sum")
    torch.testing.assert_close(leaf.grad, expected[:, rank * width : (rank + 1) * width], rtol=1e-13, atol=0)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(compare, (str(Path(folder) / "store"),), nprocs=RANKS)
    print("the same")
