"""Tensor-parallel PyTorch: two processes share the classes of a head, and learn what one process learns.

`python examples/tensor_parallel.py` starts two processes on the loopback interface, each with half of the classes, and
trains the same head three times: on one process; with DTensors, where PyTorch splits the head and finds the
collectives; and with plain tensors, where the statistics of each process's classes are merged by two all-reduces. As in
a language model, some labels are -100, and do not count.
"""

import os
import tempfile
from functools import partial
from pathlib import Path

import torch
import torch.distributed
from torch.distributed._functional_collectives import all_reduce  # the one that has derivatives
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

from stable_softmax import softmax_crossentropy_with_logits, softmax_statistics

PROCESSES, EXAMPLES, FEATURES, CLASSES = 2, 64, 16, 512
STEPS, LEARNING_RATE, IGNORED = 20, 5.0, -100


def mean_loss(logits, labels):
    """Return the loss of all classes."""
    return softmax_crossentropy_with_logits(logits, labels, ignore_index=IGNORED, reduction="mean")


def drawn():
    """Return a head, features and labels: the same in each process."""
    torch.manual_seed(0)
    head = torch.nn.Linear(FEATURES, CLASSES, bias=False)
    features, labels = torch.randn(EXAMPLES, FEATURES), torch.randint(0, CLASSES, (EXAMPLES,))
    labels[::5] = IGNORED
    return head, features, labels


def trained(parameters, loss_of):
    """Return the loss before each step down the gradient."""
    optimizer, losses = torch.optim.SGD(parameters, lr=LEARNING_RATE), []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def on_one_process():
    """Return the losses of the whole head."""
    head, features, labels = drawn()
    return trained(head.parameters(), lambda: mean_loss(head(features), labels))


def with_dtensors(mesh):
    """Return the losses where logits are DTensors that are split over the classes; features and labels are plain."""
    head, features, labels = drawn()
    head = parallelize_module(head, mesh, ColwiseParallel(use_local_output=False))
    losses = trained(head.parameters(), lambda: mean_loss(head(features), labels))
    return [loss.full_tensor() for loss in losses]


def with_statistics(rank):
    """Return the losses where each process has plain tensors: the rows of the head's weight for its own classes."""
    head, features, labels = drawn()
    first_class = rank * CLASSES // PROCESSES
    maximum, total = (
        partial(all_reduce, reduceOp=kind, group=torch.distributed.group.WORLD) for kind in ("max", "sum")
    )
    weight = head.weight.detach()[first_class : (rank + 1) * CLASSES // PROCESSES].clone().requires_grad_()

    def merged_loss():
        own = softmax_statistics(features @ weight.T, labels, first_class=first_class, ignore_index=IGNORED)
        return own.merge_over(maximum, total).crossentropy(reduction="mean")

    # Each process has the whole loss, and the backward pass of `all_reduce` adds up the gradients of all of them.
    return [loss * PROCESSES for loss in trained([weight], lambda: merged_loss() / PROCESSES)]


def train(rank, store):
    """Train in one of the processes, and compare."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=PROCESSES)
    torch.set_num_threads(1)
    expected = torch.stack(on_one_process())
    for name, losses in (
        ("DTensors", with_dtensors(init_device_mesh("cpu", (PROCESSES,)))),
        ("statistics", with_statistics(rank)),
    ):
        torch.testing.assert_close(torch.stack(losses), expected, rtol=1e-5, atol=1e-6)
        if rank == 0:
            print(f"{name}: loss {losses[0]:.6f} at first, {losses[-1]:.6f} in the end, as on one process", flush=True)
    torch.distributed.destroy_process_group()
    os._exit(0)  # without the interpreter's own end, which gloo's threads abort at times (pytorch/pytorch#190489)


def main():
    """Start the processes."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(train, (str(Path(folder) / "store"),), nprocs=PROCESSES)


if __name__ == "__main__":
    main()
