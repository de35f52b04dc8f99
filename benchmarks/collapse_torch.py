"""The runs of `benchmarks.collapse` in PyTorch: the same pairs, the same initial weights, PyTorch's own Adam."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.nn.functional import cross_entropy, embedding, relu

from benchmarks.addition import DECAYS, EPSILON, INTERVAL, LEARNING_RATE, MODULUS, Examples, Parameters

usual = partial(cross_entropy, reduction="none")


def records(
    crossentropy: Callable[..., Any], parameters: Parameters, train: Examples, test: Examples, steps: int, scale: float
) -> Iterator[dict[str, Any]]:
    """Train, and yield what is recorded every so many steps."""
    weights = [torch.tensor(array, requires_grad=True) for array in parameters]
    optimizer = torch.optim.Adam(weights, LEARNING_RATE, DECAYS, EPSILON)
    train, test = (Examples(*(torch.tensor(part, dtype=torch.int64) for part in part_of)) for part_of in (train, test))
    update = 0.0
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        (scale * crossentropy(logits_of(weights, train), train.sums).mean()).backward()
        before = [weight.detach().clone() for weight in weights]
        optimizer.step()
        changes = [(weight.detach() - old).abs().max() for weight, old in zip(weights, before, strict=True)]
        update = max(update, *map(float, changes))
        if step % INTERVAL == 0 or step == steps:
            gradient = max(float(weight.grad.abs().max()) for weight in weights) / scale
            largest = {"gradient": gradient, "update": update / LEARNING_RATE}
            yield {"step": step} | largest | _evaluated(crossentropy, weights, train, test)
            update = 0.0


def logits_of(weights: Parameters, examples: Examples) -> Any:
    """Apply the network, whose first layer adds two rows of its weight."""
    first, second, third = weights
    hidden = relu(embedding(examples.left, first) + embedding(MODULUS + examples.right, first))
    return relu(hidden @ second) @ third


@torch.no_grad()
def _evaluated(crossentropy: Callable[..., Any], weights: Parameters, train: Examples, test: Examples) -> Any:
    logits = logits_of(weights, train)
    losses = crossentropy(logits, train.sums)
    return {
        "train loss": losses.mean(),
        "zero": (losses == 0).float().mean(),
        "collapsed": (usual(logits, train.sums) == 0).float().mean(),
        "train accuracy": (logits.argmax(1) == train.sums).float().mean(),
        "test accuracy": (logits_of(weights, test).argmax(1) == test.sums).float().mean(),
    }
