"""Entropies and divergences of projected features in PyTorch programs: derivatives, compilers, and what they cost."""

from functools import partial
from itertools import product

import pytest
import torch
from linear_forms import EXAMPLES, FORMS
from torch.utils.flop_counter import FlopCounterMode

from stable_softmax import linear_softmax_kl_divergence

# PyTorch's compiler itself uses what it deprecates.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.covering]


def drawn(shapes, examples=EXAMPLES):
    generator = torch.Generator().manual_seed(0)
    sizes = [(examples if shape[0] == EXAMPLES else shape[0], *shape[1:]) for shape in shapes]
    return [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]


def total_of(function, reduction):
    def total(*arrays):
        values = function(*arrays, reduction=reduction)
        return (values * torch.arange(1, values.numel() + 1, dtype=torch.float64).sin().reshape(values.shape)).sum()

    return total


def assert_same(given, expected):
    torch.testing.assert_close(given, expected, rtol=1e-11, atol=1e-13)


def by_autograd(total, arrays):
    leaves = [array.clone().requires_grad_() for array in arrays]
    first = torch.autograd.grad(total(*leaves), leaves, create_graph=True)
    along = sum((g * leaf.detach().cos()).sum() for g, leaf in zip(first, leaves, strict=True))
    return [array.detach() for array in (*first, *torch.autograd.grad(along, leaves))]


def by_transformations(total, arrays):
    gradient = torch.func.grad(total, tuple(range(len(arrays))))
    return torch.func.jvp(gradient, tuple(arrays), tuple(array.cos() for array in arrays))


@pytest.mark.parametrize(
    ("name", "derivatives", "reduction"),
    [
        ("kl_divergence", by_autograd, "mean"),
        ("kl_divergence", by_transformations, "none"),
        ("summary", by_autograd, "none"),
        *(
            pytest.param(*case, marks=pytest.mark.thorough)
            for case in product(("entropy", "summary"), (by_autograd, by_transformations), ("mean",))
        ),
    ],
)
def test_derivatives_are_those_by_way_of_all_logits(name, derivatives, reduction):
    form = FORMS[name]
    given, expected = (
        derivatives(total_of(function, reduction), drawn(form.shapes)) for function in (form.in_blocks, form.of_logits)
    )
    assert_same(given, expected)


def products(arrays, trained):
    """Count the floating-point operations of the matrix products of loss and backward pass."""
    leaves = [array.requires_grad_(i in trained) for i, array in enumerate(arrays)]
    with FlopCounterMode(display=False) as counter:
        linear_softmax_kl_divergence(*(leaves[i] for i in (0, 1, 3, 4, 2, 5)), block_size=7).backward()
    return counter.get_total_flops()


def test_a_reference_that_is_not_trained_costs_one_product():
    shapes = FORMS["kl_divergence"].shapes
    (rows, features), (classes, _), _, (_, others), *_ = shapes
    own, reference = (2 * rows * classes * number for number in (features, others))
    assert products(drawn(shapes), (0, 1)) == 3 * own + reference
    assert products(drawn(shapes), (0, 1, 3, 4)) == 3 * own + 3 * reference


@pytest.mark.thorough
@pytest.mark.parametrize("name", FORMS)
def test_compiled_for_all_sizes(name):
    torch.compiler.reset()
    form = FORMS[name]
    compiled = torch.compile(partial(form.in_blocks, reduction="mean"), fullgraph=True, backend="aot_eager")
    for examples in (EXAMPLES, 11):
        leaves = [array.requires_grad_() for array in drawn(form.shapes, examples)]
        given = torch.autograd.grad(compiled(*leaves), leaves)
        assert_same(given, torch.autograd.grad(form.of_logits(*leaves), leaves))


@pytest.mark.thorough
@pytest.mark.parametrize("name", FORMS)
def test_one_exported_program_serves_all_sizes(name):
    form = FORMS[name]

    class Head(torch.nn.Module):
        def forward(self, *arrays):
            return form.in_blocks(*arrays, reduction="none")

    rows = torch.export.Dim("rows", min=2)
    dims = ({0: rows} if shape[0] == EXAMPLES else None for shape in form.shapes)
    program = torch.export.export(Head(), tuple(drawn(form.shapes)), dynamic_shapes={"arrays": tuple(dims)}).module()
    for examples in (EXAMPLES, 11):
        arrays = drawn(form.shapes, examples)
        assert_same(program(*arrays), form.of_logits(*arrays, reduction="none"))
