"""PyTorch on one thread: without a gradient, forward and backward, and under its compiler."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

import stable_softmax
from benchmarks.work import Work

SHAPES = ((65536, 10), (16384, 100), (4096, 1000), (512, 50257))
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
BOTH = "value and gradient"

our_loss = partial(stable_softmax.softmax_crossentropy_with_logits, reduction="mean")
their_loss = torch.nn.functional.cross_entropy

# Each operation of one tensor: ours, PyTorch's, and the ratio to reach.
NORMALIZATIONS = {
    "softmax": (stable_softmax.softmax, partial(torch.softmax, dim=-1), 1.3),
    "log_softmax": (stable_softmax.log_softmax, partial(torch.log_softmax, dim=-1), 1.6),
    "logsumexp": (stable_softmax.logsumexp, partial(torch.logsumexp, dim=-1), 1.5),
}


def works(quick: bool) -> Iterator[Work]:
    """Yield all comparisons."""
    shapes, dtypes = (SHAPES[::2], DTYPES[::2]) if quick else (SHAPES, DTYPES)
    for table in (_without_gradient, _with_gradient, _compiled):
        for shape in shapes:
            for dtype in dtypes:
                yield from table(shape, dtype, *_examples(shape, dtype))


def _examples(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(shape, generator=generator)).to(dtype)
    return logits, torch.randint(shape[1], shape[:1], generator=generator)


def _work(table, operation, shape, dtype, peer, target, ours, theirs):
    name = str(dtype).removeprefix("torch.")
    return Work(f"PyTorch, {table}", operation, shape, name, peer, target, ours, theirs)


def _without_gradient(shape, dtype, logits, class_ids):
    for operation, (ours, theirs, target) in NORMALIZATIONS.items():
        calls = partial(ours, logits), partial(theirs, logits)
        yield _work("no gradient", operation, shape, dtype, f"torch.{operation}", target, *calls)
    calls = partial(our_loss, logits, class_ids), partial(their_loss, logits, class_ids)
    yield _work("no gradient", "loss", shape, dtype, "cross_entropy", 1.5, *calls)


def _with_gradient(shape, dtype, logits, class_ids):
    target = 1.0 if dtype == torch.float64 else 1.3 if dtype == torch.bfloat16 else 0.5 if shape[1] == 10 else 0.7
    calls = (_forward_and_backward(loss, logits, class_ids) for loss in (our_loss, their_loss))
    yield _work("autograd", BOTH, shape, dtype, "cross_entropy", target, *calls)


def _compiled(shape, dtype, logits, class_ids):
    if dtype == torch.float64:
        return
    torch.compiler.reset()
    for operation, (ours, theirs, _) in NORMALIZATIONS.items():
        if operation != "logsumexp":
            calls = (partial(_compile(function), logits) for function in (ours, theirs))
            yield _work("torch.compile", operation, shape, dtype, f"torch.{operation}", 1.1, *calls)
    losses = [_compile(loss) for loss in (our_loss, their_loss)]
    yield _work(
        "torch.compile",
        "loss",
        shape,
        dtype,
        "cross_entropy",
        1.1,
        *(partial(loss, logits, class_ids) for loss in losses),
    )
    calls = (_forward_and_backward(loss, logits, class_ids) for loss in losses)
    yield _work("torch.compile", BOTH, shape, dtype, "cross_entropy", 1.1, *calls)


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    # One function for each, so that none is compiled again for the options of another.
    return torch.compile(lambda *tensors: function(*tensors), dynamic=False)


def _forward_and_backward(loss, logits, class_ids):
    variable = logits.clone().requires_grad_()

    def run():
        variable.grad = None
        loss(variable, class_ids).backward()

    return run
