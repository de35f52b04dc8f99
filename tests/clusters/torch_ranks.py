"""Two processes hold parts of the same tensors (DTensor), and find the results of one: `python torch_ranks.py`."""

import os
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed
from torch.distributed import ReduceOp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.nn.functional import all_reduce
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import stable_softmax
from stable_softmax import (
    hessian_diagonal_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    linear_softmax_crossentropy,
    linear_softmax_kl_divergence,
    linear_softmax_summary,
    softmax_crossentropy_with_logits,
    softmax_statistics,
    textbook,
    value_and_grad_linear_softmax_crossentropy,
    value_and_grad_linear_softmax_kl_divergence,
    value_and_grad_softmax_crossentropy_with_logits,
)

RANKS = 2
EVERYTHING = {"label_smoothing": 0.1, "z_loss": 0.1}
#: How logits, what has an entry for each example, and what has one for each class are split.
SPLITS = {
    "classes": (Shard(1), Replicate(), Shard(0)),
    "examples": (Shard(0), Shard(0), Replicate()),
    "nothing": (Replicate(), Replicate(), Replicate()),
}


class Arrays(NamedTuple):
    """Arguments, of logits and of the linear loss."""

    z: Any
    y: Any
    where: Any
    weights: Any
    targets: Any
    vector: Any
    features: Any
    head: Any


OF_LOGITS, OF_EXAMPLES, OF_CLASSES = ("z", "where", "targets", "vector"), ("y", "features"), ("weights", "head")
#: Which arguments stay plain tensors.
PLAIN = {
    "none": (),
    "labels": ("y",),
    "all but the logits and the weight": ("y", "where", "weights", "targets", "vector", "features"),
    "the logits and the weight": ("z", "head"),
    "options": ("where", "weights"),
    "vectors and targets": ("targets", "vector"),
}


def drawn():
    torch.manual_seed(0)
    class_ids = torch.randint(0, 8, (6,))
    where = (torch.rand(6, 8) < 0.8) | (torch.arange(8) == class_ids[:, None])
    weights = torch.rand(8, dtype=torch.float64) + 0.1
    z, targets, vector, features = torch.randn(4, 6, 8).double()
    return Arrays(z, class_ids, where, weights, targets.softmax(1), vector, features, torch.randn(8, 8).double())


def all_results(z, y, where, weights, targets, vector, features, head):
    """Yield what every function gives, alone and with every option."""
    for name in ("softmax", "log_softmax", "log_softmax_complement", "logsumexp"):
        yield getattr(stable_softmax, name)(z)
        yield getattr(stable_softmax, name)(z, where=where)
    for name in ("entropy", "kl_divergence", "js_divergence"):
        compared = (z,) if name == "entropy" else (z, vector)
        value, gradients = getattr(stable_softmax, f"value_and_grad_softmax_{name}")(*compared, where=where)
        yield from (value, *(gradients if isinstance(gradients, tuple) else (gradients,)))
        yield from slopes(partial(getattr(stable_softmax, f"softmax_{name}"), reduction="sum"), *compared)
    weighted = {"class_weights": weights, **EVERYTHING}
    for answers, options in ((y, {}), (targets, weighted), (y, {**weighted, "where": where, "ignore_index": 3})):
        for reduction in ("none", "mean"):
            yield from value_and_grad_softmax_crossentropy_with_logits(z, answers, **options, reduction=reduction)
            yield hvp_softmax_crossentropy_with_logits(z, answers, vector, **options, reduction=reduction)
            yield hessian_diagonal_softmax_crossentropy_with_logits(z, answers, **options, reduction=reduction)
        yield from slopes(partial(softmax_crossentropy_with_logits, **options, reduction="mean"), z, answers)
        loss, gradients = value_and_grad_linear_softmax_crossentropy(features, head, answers, weights, **options)
        yield from (loss, *gradients)
        yield linear_softmax_crossentropy(features, head, answers, **options, reduction="none")
        yield from slopes(partial(linear_softmax_crossentropy, **options), features, head, answers, weights)
    divergence, gradients = value_and_grad_linear_softmax_kl_divergence(features, head, features, head, where=where)
    yield from (divergence, *gradients.values())
    yield from slopes(linear_softmax_kl_divergence, features, head, features.cos(), head.cos())
    yield linear_softmax_summary(features, head, y, ignore_index=3).entropy
    for name in ("unstable_crossentropy", "crossentropy_via_probabilities", "shifted_crossentropy"):
        yield getattr(textbook, name)(z, y)
    for name in ("unstable_gradient", "shifted_gradient"):
        yield getattr(textbook, name)(z, y)
    statistics = softmax_statistics(z, y)
    yield from (statistics.logsumexp(), statistics.crossentropy())
    halves = softmax_statistics(z[:, :4], y), softmax_statistics(whole(z)[:, 4:], y, first_class=4)  # one of them plain
    yield halves[0].merge(halves[1]).crossentropy()
    yield halves[1].merge(halves[0]).crossentropy()
    of_labels = {"where": where, "class_weights": weights, "label_smoothing": 0.1, "ignore_index": 3}
    yield softmax_statistics(z, y, **of_labels).crossentropy(z_loss=0.1, reduction="mean")


def slopes(function, *arrays):
    """Yield the derivatives that autograd has with respect to each floating one, each of the kind of that."""
    leaves = [array.detach().requires_grad_(array.dtype.is_floating_point) for array in arrays]
    function(*leaves).backward()
    for leaf in leaves:
        if leaf.requires_grad:
            assert type(leaf.grad) is type(leaf)
            yield leaf.grad


def whole(result):
    return result.full_tensor() if isinstance(result, DTensor) else result


def compare(rank, store):
    warnings.simplefilter("ignore")  # PyTorch's, of its own collectives
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    mesh, arrays = init_device_mesh("cpu", (RANKS,)), drawn()
    expected = list(all_results(*arrays))
    for split, placements in SPLITS.items():
        of = {n: p for names, p in zip((OF_LOGITS, OF_EXAMPLES, OF_CLASSES), placements, strict=True) for n in names}
        parts = {name: distribute_tensor(array, mesh, [of[name]]) for name, array in arrays._asdict().items()}
        for kind, plain in PLAIN.items():
            given = arrays._replace(**{name: part for name, part in parts.items() if name not in plain})
            for number, result in enumerate(all_results(*given)):
                torch.testing.assert_close(
                    whole(result),
                    expected[number],
                    rtol=1e-13,
                    atol=1e-15,
                    msg=lambda text, at=(split, kind, number): f"{at}: {text}",
                )
    other = distribute_tensor(arrays.y, init_device_mesh("cpu", (RANKS, 1)), [Replicate()] * 2)
    with pytest.raises(
        TypeError, match=r"^reference_answers must lie on the device mesh of logits, .*: pass distribute_"
    ):
        softmax_crossentropy_with_logits(parts["z"], other)
    merge_over_processes(rank, *arrays[:2])
    torch.distributed.destroy_process_group()
    os._exit(0)  # without the interpreter's own end, which gloo's threads abort at times (pytorch/pytorch#190489)


def merge_over_processes(rank, logits, class_ids):
    """Each process holds half of the classes, of a label that leads by far and of a tie between processes, too."""
    logits[0, class_ids[0]] += 50
    logits[1, [0, -1]], logits[2] = 6, 0
    class_ids[3], logits[3] = -100, torch.nan
    width = logits.shape[1] // RANKS
    own_classes = slice(rank * width, (rank + 1) * width)
    weights = torch.linspace(0.5, 2, logits.shape[1], dtype=torch.float64)
    for options, weighted in (({}, False), ({"label_smoothing": 0.1}, True)):
        leaf = logits[:, own_classes].clone().requires_grad_()
        statistics = softmax_statistics(
            leaf,
            class_ids,
            first_class=rank * width,
            class_weights=weights[own_classes] if weighted else None,
            ignore_index=-100,
            **options,
        )
        merged = statistics.merge_over(partial(all_reduce, op=ReduceOp.MAX), all_reduce)
        mean = merged.crossentropy(reduction="mean", z_loss=0.1)
        (mean / RANKS).backward()  # each process has the mean, and all_reduce adds their gradients
        expected = value_and_grad_softmax_crossentropy_with_logits(
            logits,
            class_ids,
            class_weights=weights if weighted else None,
            ignore_index=-100,
            reduction="mean",
            z_loss=0.1,
            **options,
        )
        torch.testing.assert_close(mean, expected[0], rtol=1e-13, atol=0)
        torch.testing.assert_close(leaf.grad, expected[1][:, own_classes], rtol=1e-13, atol=1e-16)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(compare, (str(Path(folder) / "store"),), nprocs=RANKS)
    print("the same")
