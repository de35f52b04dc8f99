"""The table of ways in PyTorch: gradients, second derivatives and scaled losses, of every row."""

from functools import partial

import pytest
import torch
import ways
from ways import MERGES, Table, statistics, working

import stable_softmax

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def wide(tensor):
    return torch.promote_types(tensor.dtype, torch.float32)


def whole(z, y):
    return stable_softmax.softmax_crossentropy_with_logits(z, y, dtype=wide(z))


def of_merged(name, library):
    return lambda z, y: statistics(name, library)(z, y).crossentropy()


def projected(block_size):
    return lambda z, y: ways.projected(z, y, block_size=block_size, dtype=wide(z))


def scaled(losses, z, y, scale):
    return torch.sum(losses(z, y) * scale)


def by_backward(losses, z, y, v):
    """Yield gradients and the second derivative by autograd, of a graph that is kept, recorded and freed."""
    for scale, options in (
        (1.0, {}),
        (2.0**-4, {"retain_graph": True}),
        (2.0**16, {}),
        (2.0**16, {"create_graph": True}),
    ):
        leaf = z.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(scaled(losses, leaf, y, scale), leaf, **options)
        yield "gradient", scale, gradient.detach()
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(scaled(losses, leaf, y, 1.0), leaf, create_graph=True)
    yield "product", 1.0, torch.autograd.grad(gradient, leaf, v)[0]


def by_transformations(losses, z, y, v):
    for scale in (1.0, 2.0**-4, 2.0**16):
        yield "gradient", scale, torch.func.grad(lambda z, s=scale: scaled(losses, z, y, s))(z)
    gradient = torch.func.grad(lambda z: scaled(losses, z, y, 1.0))
    yield "product", 1.0, torch.func.jvp(gradient, (z,), (v,))[1]


def check(table, losses, library, derivatives):
    table.check(library.numpy(losses(table.z, table.y).detach()), "loss", working(table.dtype))
    for field, scale, values in derivatives(losses, table.z, table.y, table.v):
        table.check(library.numpy(values), field, scale=scale)


WAYS = {"whole": lambda _: whole} | {name: partial(of_merged, name) for name in MERGES}


@pytest.mark.parametrize("derivatives", [by_backward, by_transformations])
@pytest.mark.parametrize("name", WAYS)
def test_derivatives(library, dtype, name, derivatives):
    check(Table(library, dtype), WAYS[name](library), library, derivatives)


@pytest.mark.parametrize("derivatives", [by_backward, by_transformations])
@pytest.mark.parametrize("block_size", [5, pytest.param(None, marks=pytest.mark.thorough)])
def test_derivatives_of_projected_features(library, dtype, block_size, derivatives):
    check(Table(library, dtype, finite=True), projected(block_size), library, derivatives)


@pytest.mark.thorough
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", ["whole", "halves"])
def test_compiled(library, name, compiler):
    torch.compiler.reset()
    table = Table(library, "float32")
    losses = torch.compile(WAYS[name](library), backend=compiler, fullgraph=True)
    table.check(library.numpy(losses(table.z, table.y)), "loss")
    for scale in (1.0, 2.0**-4, 2.0**16):
        leaf = table.z.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(scaled(losses, leaf, table.y, scale), leaf)
        table.check(library.numpy(gradient), "gradient", scale=scale)


def test_the_gradient_of_a_row_has_its_own_bits_whatever_the_memory_of_the_cotangent():
    generator = torch.Generator().manual_seed(0)
    logits, cotangent = (torch.randn(shape, generator=generator) for shape in ((6, 56), (56, 6)))
    for function in (stable_softmax.softmax, stable_softmax.log_softmax):

        def gradient(rows, f=function):
            leaf = logits[rows].clone().requires_grad_()
            return torch.autograd.grad(f(leaf), leaf, cotangent.T[rows])[0]

        alone = [gradient(slice(i, i + 1)) for i in range(6)]
        assert torch.equal(gradient(slice(None)), torch.cat(alone))
