"""PyTorch: its cross_entropy, forward and backward, on one thread."""

from collections.abc import Iterator

import torch

import stable_softmax
from benchmarks.work import Work

SHAPES = ((65536, 10), (16384, 100), (4096, 1000), (512, 50257))


def works(quick: bool) -> Iterator[Work]:
    """Yield all comparisons."""
    for shape in SHAPES[::2] if quick else SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            yield _work(shape, dtype)


def _work(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(shape, generator=generator)).to(dtype).requires_grad_()
    class_ids = torch.randint(shape[1], shape[:1], generator=generator)

    def forward_and_backward(loss, **options):
        logits.grad = None
        loss(logits, class_ids, **options).backward()

    return Work(
        "PyTorch, autograd",
        "value and gradient",
        shape,
        str(dtype).removeprefix("torch."),
        "cross_entropy",
        1.0,
        lambda: forward_and_backward(stable_softmax.softmax_crossentropy_with_logits, reduction="mean"),
        lambda: forward_and_backward(torch.nn.functional.cross_entropy),
    )
