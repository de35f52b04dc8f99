"""Statistics in PyTorch programs: derivatives through merged parts, and under its compiler."""

from functools import reduce
from itertools import pairwise

import pytest
import torch
from loss_options import ALL_WITH_IDS, demanding_case
from merged_losses import ways_to_merge

from stable_softmax import softmax_crossentropy_with_logits, softmax_statistics

pytestmark = pytest.mark.covering


def rows(examples=6, classes=24):
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(examples, classes, generator=generator, dtype=torch.float64) * 3
    class_ids = torch.randint(0, classes, (examples,), generator=generator)
    logits[torch.arange(examples), class_ids] += torch.linspace(0, 60, examples, dtype=torch.float64)
    logits[2] = logits[2].round()
    return logits, class_ids


def in_parts(logits, reference_answers):
    edges = [0, 5, 6, 17, logits.shape[1]]
    parts = [
        softmax_statistics(logits[:, first:last], reference_answers, first_class=first)
        for first, last in pairwise(edges)
    ]
    return reduce(lambda first, second: first.merge(second), parts).crossentropy()


def gradients(losses, logits, reference_answers):
    """Yield the gradient by autograd and by torch.func, and the gradient's slope."""
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(losses(leaf, reference_answers).sum(), leaf, create_graph=True)
    yield gradient.detach()
    yield torch.autograd.grad((gradient * logits.cos()).sum(), leaf)[0]
    yield torch.func.grad(lambda z: losses(z, reference_answers).sum())(logits)


def test_merged_parts_keep_the_digits_of_the_derivatives():
    given, expected = (list(gradients(f, *rows())) for f in (in_parts, softmax_crossentropy_with_logits))
    torch.testing.assert_close(given, expected, rtol=1e-13, atol=0)


def test_forward_mode_gives_the_slopes_of_reverse_mode():
    logits, class_ids = rows()
    slopes = torch.func.jvp(lambda z: in_parts(z, class_ids), (logits,), (logits.cos(),))[1]
    gradient = torch.func.grad(lambda z: in_parts(z, class_ids).sum())(logits)
    torch.testing.assert_close(slopes, (gradient * logits.cos()).sum(1), rtol=1e-12, atol=0)


def derivatives_in_every_argument(losses, case):
    """Yield losses, gradients and the gradients' slopes, with respect to logits, weights and numbers."""
    smooth, rest = case.arguments(lambda values: torch.asarray(values.copy()))
    smooth |= {name: torch.tensor(rest.pop(name), dtype=torch.float64) for name in ("label_smoothing", "z_loss")}
    leaves = {name: values.requires_grad_() for name, values in smooth.items()}
    values = losses(**leaves, **rest)
    yield values.detach()
    total = torch.where(values.isfinite(), values, 0).sum()
    gradients = torch.autograd.grad(total, list(leaves.values()), create_graph=True)
    yield [gradient.detach() for gradient in gradients]
    along = sum(
        (gradient * leaf.detach().clip(-9, 9).cos()).sum()
        for gradient, leaf in zip(gradients, leaves.values(), strict=True)
    )
    yield torch.autograd.grad(along, list(leaves.values()))


@pytest.mark.parametrize("way", ["parts", "classes", "processes"])
def test_derivatives_with_all_options_are_those_of_all_classes_at_once(way):
    case = demanding_case(ALL_WITH_IDS, 24, 12, "float64")
    given, expected = (
        list(derivatives_in_every_argument(losses, case))
        for losses in (ways_to_merge(torch)[way], softmax_crossentropy_with_logits)
    )
    torch.testing.assert_close(given, expected, rtol=1e-10, atol=1e-13, equal_nan=True)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's compiler itself uses what it deprecates
def test_compiled_parts_give_the_same_for_all_sizes():
    compiled = torch.compile(in_parts, fullgraph=True, backend="aot_eager")
    for examples in (6, 9):
        logits, class_ids = rows(examples)
        torch.testing.assert_close(compiled(logits, class_ids), in_parts(logits, class_ids), rtol=1e-13, atol=0)
        gradient, expected = (
            torch.autograd.grad(losses(leaf := logits.clone().requires_grad_(), class_ids).sum(), leaf)[0]
            for losses in (compiled, in_parts)
        )
        torch.testing.assert_close(gradient, expected, rtol=1e-13, atol=0)
