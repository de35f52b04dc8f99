"""The derivatives of entropies and divergences that PyTorch returns, against those of the definitions."""

import numpy as np
import pytest
import torch
from compared_rows import FUNCTIONS, WEIGHT, pairs
from torch.func import grad, hessian, jacfwd, jacrev, vmap

import stable_softmax
from stable_softmax import softmax_kl_divergence


def definition(name):
    """Return the definition of a function, for PyTorch to differentiate without any rule of ours."""

    def entropy(z):
        logs = torch.log_softmax(z, -1)
        return -(logs.exp() * logs).sum(-1)

    def kl(z, w):
        log_p, log_q = torch.log_softmax(z, -1), torch.log_softmax(w, -1)
        return (log_q.exp() * (log_q - log_p)).sum(-1)

    def js(z, w):
        log_p, log_q = torch.log_softmax(z, -1), torch.log_softmax(w, -1)
        log_m = (WEIGHT * log_q.exp() + (1 - WEIGHT) * log_p.exp()).log()
        of_q = (log_q.exp() * (log_q - log_m)).sum(-1)
        return WEIGHT * of_q + (1 - WEIGHT) * (log_p.exp() * (log_p - log_m)).sum(-1)

    return {"entropy": entropy, "kl": kl, "js": js}[name]


def leaves(results):
    return [leaf for result in results for leaf in leaves(result)] if isinstance(results, tuple) else [results]


def derivatives(function, count):
    every = tuple(range(count))
    return {
        "gradient": grad(function, every),
        "forward": jacfwd(function, every),
        "hessian": hessian(function, every),
        "reverse over reverse": jacrev(jacrev(function, every), every),
        "third": jacrev(jacrev(jacrev(function, every), every), every),
        "autograd": lambda *rows: torch.autograd.functional.jacobian(function, rows),
        "autograd, twice": lambda *rows: torch.autograd.functional.hessian(function, rows),
        "mapped": lambda *rows: vmap(grad(function, every))(*(torch.stack([row, row + 1, 2 * row]) for row in rows)),
    }


@pytest.mark.covering
@pytest.mark.parametrize("kind", pairs())
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_those_of_the_definition(name, kind):
    function, count = FUNCTIONS[name]
    rows = tuple(torch.asarray(row) for row in pairs()[kind][:count])
    expected = derivatives(definition(name), count)
    for key, derivative in derivatives(function, count).items():
        for values, same in zip(leaves(derivative(*rows)), leaves(expected[key](*rows)), strict=True):
            torch.testing.assert_close(values, same, rtol=1e-13, atol=1e-14, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_impossible_classes_have_no_part_in_derivatives(name):
    """With respect to all arrays, and to each alone, forwards and twice."""
    function, count = FUNCTIONS[name]
    rows = [torch.tensor(row, dtype=torch.float64) for row in ([0.5, 1, -0.3], [1, 0, 0.2])][:count]
    padded = [torch.cat([row, torch.tensor([-torch.inf])]) for row in rows]
    for wanted in [*range(count), tuple(range(count))]:
        for derive in (grad, jacfwd, hessian):
            given, expected = (leaves(derive(function, wanted)(*arrays)) for arrays in (padded, rows))
            for values, same in zip(given, expected, strict=True):
                with_zeros = torch.nn.functional.pad(same, (0, 1) * same.ndim)
                torch.testing.assert_close(values, with_zeros, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_graphs_of_graphs(name):
    """With `create_graph` again and again, and no transformation of torch.func around it."""
    function, count = FUNCTIONS[name]
    vectors = tuple(torch.cos(torch.arange(4.0, dtype=torch.float64) + i) for i in range(count))

    def orders(f):
        rows = tuple(torch.asarray(row).requires_grad_() for row in pairs()["ordinary"][:count])
        value = f(*rows)
        for _ in range(3):
            gradients = torch.autograd.grad(value, rows, create_graph=True)
            yield gradients
            value = sum((gradient * vector).sum() for gradient, vector in zip(gradients, vectors, strict=True))
        yield torch.autograd.functional.hvp(f, rows, vectors)[1]

    for given, expected in zip(orders(function), orders(definition(name)), strict=True):
        torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
@pytest.mark.parametrize("name", ["kl", "js"])
def test_gradients_of_one_array_alone(name, wanted):
    z, w = (torch.asarray(row).requires_grad_(needs) for row, needs in zip(pairs()["ordinary"], wanted, strict=True))
    for create_graph in (False, True):
        (gradient,) = torch.autograd.grad(FUNCTIONS[name][0](z, w), z if wanted[0] else w, create_graph=create_graph)
        (expected,) = torch.autograd.grad(definition(name)(z, w), z if wanted[0] else w)
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16], ids=str)
def test_a_scaled_loss_keeps_its_gradients_in_range(narrow):
    """As mixed precision scales it: the scale and the mean's divisor are far from 1."""
    rng = np.random.default_rng(24)
    z, w = (torch.asarray(rng.normal(size=(64, 10))).to(narrow).requires_grad_() for _ in range(2))
    for name, (function, count) in FUNCTIONS.items():
        given = (z, w)[:count]
        gradients = torch.autograd.grad(function(*given, reduction="mean") * 2.0**14, given)
        wide = tuple(array.detach().double().requires_grad_() for array in given)
        expected = torch.autograd.grad(definition(name)(*wide).mean() * 2.0**14, wide)
        for values, same in zip(gradients, expected, strict=True):
            eps = torch.finfo(narrow).eps
            torch.testing.assert_close(values.double(), same, rtol=2 * eps, atol=float(same.abs().max()) * eps / 4)


def test_autocast_gives_single_precision():
    z = torch.randn(3, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert softmax_kl_divergence(z, z.flip(1)).dtype == torch.float32


@pytest.mark.covering
@pytest.mark.parametrize("axis", [0, 1])
def test_gradients_of_large_arrays_come_from_blocks(axis):
    generator = torch.Generator().manual_seed(0)
    z, w = torch.randn(2, 700, 500, generator=generator, dtype=torch.float64)
    for name, count in (("entropy", 1), ("kl_divergence", 2), ("js_divergence", 2)):
        leaves = [array.clone().requires_grad_() for array in (z, w)[:count]]
        value = getattr(stable_softmax, f"softmax_{name}")(*leaves, axis, reduction="sum")
        both = getattr(stable_softmax, f"value_and_grad_softmax_{name}")
        expected, gradients = both(*(leaf.detach() for leaf in leaves), axis, reduction="sum")
        torch.testing.assert_close(value.detach(), expected, rtol=1e-13, atol=0)
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        torch.testing.assert_close(torch.autograd.grad(value, leaves), gradients, rtol=1e-13, atol=1e-17)
