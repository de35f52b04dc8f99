"""Second and third derivatives in every order of forward and reverse mode, by each of PyTorch's three ways to them."""

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

import stable_softmax
from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)

pytestmark = pytest.mark.covering

# Of third derivatives of a few terms, each below 10.
TOLERANCE = {"rtol": 0, "atol": 256 * torch.finfo(torch.float64).eps}
IDS = torch.tensor([0, 3, 2, 1])
TARGETS = torch.tensor([[0.25] * 4, [0.5, 0.5, 0, 0], [0.1, 0.2, 0.3, 0.4], [1.0, 0, 0, 1.0]]).double()
WEIGHTS = torch.tensor([1.0, 2, 0.5, 1]).double()
WHERE = torch.tensor([[True] * 4, [True, False, True, True], [True] * 4, [False, True, True, True]])
CRITERIA = {
    "ids": {},
    "smoothed": {"label_smoothing": 0.1},
    "weighted": {"class_weights": WEIGHTS, "ignore_index": 2},
    "masked": {"where": WHERE},
    "z_loss": {"z_loss": 0.1},
    "probabilities": {"reference_answers": TARGETS},
    "all": {"label_smoothing": 0.1, "class_weights": WEIGHTS, "where": WHERE, "z_loss": 0.1, "ignore_index": 2},
}


def defined_loss(z, reference_answers=IDS, where=None, class_weights=None, label_smoothing=0.0, **options):
    """Return the mean loss from its definition, for PyTorch to differentiate without any rule of ours."""
    if where is not None:
        z = torch.where(where, z, -1e3)  # whose exponential is 0
    total = torch.logsumexp(z, 1, keepdim=True)
    left = (torch.ones(4, 4).bool() if where is None else where).double()
    targets = reference_answers
    weights = torch.ones(4).double() if class_weights is None else class_weights
    counted = torch.ones(4).bool()
    divisor = 4
    if targets.ndim == 1:
        counted = targets != options.get("ignore_index", -1)
        divisor = weights[targets][counted].sum()
        targets = torch.nn.functional.one_hot(targets, 4).double()
    q = weights * ((1 - label_smoothing) * targets + label_smoothing * left / left.sum(1, keepdim=True))
    losses = torch.where(q != 0, q * (total - z), 0).sum(1) + options.get("z_loss", 0) * total[:, 0] ** 2
    return torch.where(counted, losses, 0).sum() / divisor


def criteria(function, **options):
    """Return the function and its definition for each criterion."""
    return {
        f"{function.__name__.removesuffix('_softmax_crossentropy_with_logits')} {name}": (
            partial(function, **{"reference_answers": IDS, **criterion, **options}),
            partial(defined_loss, **criterion),
        )
        for name, criterion in CRITERIA.items()
    }


DEFINITIONS = {
    "softmax": (stable_softmax.softmax, lambda z: torch.exp(z - torch.logsumexp(z, -1, keepdim=True))),
    "log_softmax": (stable_softmax.log_softmax, lambda z: z - torch.logsumexp(z, -1, keepdim=True)),
    "logsumexp": (stable_softmax.logsumexp, lambda z: torch.logsumexp(z, -1)),
    "logsumexp of all": (partial(stable_softmax.logsumexp, axis=None), lambda z: torch.logsumexp(z, (0, 1))),
    **criteria(softmax_crossentropy_with_logits, reduction="mean"),
}


def logits():
    return torch.asarray(np.random.default_rng(9).normal(size=(4, 4)))


def directions():
    return torch.asarray(np.random.default_rng(10).normal(size=(3, 4, 4)))


def scalar(function):
    """Return a function to a number, which weights each of the results otherwise."""

    def weighted(z):
        values = function(z)
        return (values * torch.cos(torch.arange(values.numel()).reshape(values.shape))).sum()

    return weighted


def forward(function, v):
    return lambda z: torch.func.jvp(function, (z,), (v,))[1]


def reverse(function, v):
    return lambda z: (torch.func.grad(function)(z) * v).sum()


ORDERS = [*product((forward, reverse), repeat=2), *product((forward, reverse), repeat=3)]


def described(order):
    return " of ".join(level.__name__ for level in reversed(order))


@pytest.mark.parametrize("order", ORDERS, ids=described)
@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_order_through_torch_func(name, order):
    function, definition = map(scalar, DEFINITIONS[name])
    for level, v in zip(order, directions(), strict=False):
        function, definition = level(function, v), reverse(definition, v)
    torch.testing.assert_close(function(logits()), definition(logits()), **TOLERANCE)


@pytest.mark.parametrize("order", ORDERS, ids=described)
@pytest.mark.parametrize("name", list(CRITERIA))
def test_every_order_of_gradient_product_and_both(name, order):
    """The gradient is the loss's first derivative, and the Hessian-vector product its second."""
    criterion = {"reference_answers": IDS, **CRITERIA[name]}
    definition = partial(defined_loss, **CRITERIA[name])
    v = directions()[0]

    def gradient(z):
        return (grad_softmax_crossentropy_with_logits(z, **criterion) * v).sum()

    def both(z):
        loss, gradient = value_and_grad_softmax_crossentropy_with_logits(z, **criterion)
        return loss + (gradient * v).sum()

    def bent(z):
        return (hvp_softmax_crossentropy_with_logits(z, vector=v, **criterion) * v).sum()

    first = reverse(definition, v)
    expected = [first, lambda z: definition(z) + first(z), reverse(first, v)]
    for function, witness in zip((gradient, both, bent), expected, strict=True):
        for level, u in zip(order, directions(), strict=False):
            function, witness = level(function, u), reverse(witness, u)
        torch.testing.assert_close(function(logits()), witness(logits()), **TOLERANCE)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_forward_mode_around_backward_and_within(name):
    """With `forward_ad`, which has one level, and `autograd.grad`."""
    function, definition = map(scalar, DEFINITIONS[name])
    v, u, _ = directions()
    second, third = reverse(reverse(definition, v), u), reverse(reverse(reverse(definition, v), u), v)
    for create_graph in (False, True):
        z = logits().requires_grad_()
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(z, v)
            (gradient,) = torch.autograd.grad(function(dual), dual, create_graph=create_graph)
            tangent = forward_ad.unpack_dual(gradient).tangent
            torch.testing.assert_close((tangent * u).sum(), second(logits()), **TOLERANCE)
            if create_graph:
                (steeper,) = torch.autograd.grad((gradient * u).sum(), dual, create_graph=True)
                tangent = forward_ad.unpack_dual(steeper).tangent
                torch.testing.assert_close((tangent * v).sum(), third(logits()), **TOLERANCE)
    z = logits().requires_grad_()
    with forward_ad.dual_level():
        slope = forward_ad.unpack_dual(function(forward_ad.make_dual(z, v))).tangent
        (gradient,) = torch.autograd.grad(slope, z, create_graph=True)
        torch.testing.assert_close((gradient * u).sum(), second(logits()), **TOLERANCE)
        (steeper,) = torch.autograd.grad((gradient * u).sum(), z)
        torch.testing.assert_close((steeper * v).sum(), third(logits()), **TOLERANCE)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_autograd_functional(name):
    function, definition = map(scalar, DEFINITIONS[name])
    z, (v, *_) = logits(), directions()
    api = torch.autograd.functional
    hessian = api.hessian(definition, z)
    for strategy in ("reverse-mode", "forward-mode"):
        ours = api.hessian(function, z, vectorize=True, outer_jacobian_strategy=strategy)
        torch.testing.assert_close(ours, hessian, **TOLERANCE)
        ours = api.jacobian(DEFINITIONS[name][0], z, vectorize=True, strategy=strategy)
        torch.testing.assert_close(ours, api.jacobian(DEFINITIONS[name][1], z), **TOLERANCE)
    torch.testing.assert_close(api.hessian(function, z), hessian, **TOLERANCE)
    for pick in (api.jvp, api.hvp, api.vhp):
        torch.testing.assert_close(pick(function, z, v)[1], pick(definition, z, v)[1], **TOLERANCE)


MAPPED = {
    "reference_answers": torch.tensor([[0, 3, 2, 1], [1, 2, 0, 2]]),
    "class_weights": torch.stack([WEIGHTS, WEIGHTS.flip(0)]),
    "where": torch.stack([torch.ones(4, 4).bool(), WHERE]),
    "logits": torch.stack([logits(), -logits()]),
}


@pytest.mark.parametrize("names", [(name,) for name in MAPPED] + [tuple(MAPPED)], ids="+".join)
def test_each_argument_mapped_alone_and_all_together(names):
    """With the derivative taken outside of the map, and within it."""
    given = {"logits": logits(), "reference_answers": IDS, "class_weights": WEIGHTS}
    given |= {name: MAPPED[name] for name in names}
    axes = {name: 0 if name in names else None for name in given}

    def loss(arrays):
        return softmax_crossentropy_with_logits(**arrays, reduction="mean")

    def one(i):
        return {name: array[i] if name in names else array for name, array in given.items()}

    def gradient(arrays):
        rest = {name: array for name, array in arrays.items() if name != "logits"}
        return torch.func.grad(lambda z: loss({"logits": z, **rest}))(arrays["logits"])

    expected = torch.stack([gradient(one(0)), gradient(one(1))])
    losses = torch.stack([loss(one(0)), loss(one(1))])
    torch.testing.assert_close(torch.func.vmap(loss, (axes,))(given), losses, **TOLERANCE)
    torch.testing.assert_close(torch.func.vmap(gradient, (axes,))(given), expected, **TOLERANCE)
    z = given["logits"].clone().requires_grad_()
    torch.func.vmap(loss, (axes,))(given | {"logits": z}).sum().backward()
    outside = expected if "logits" in names else expected.sum(0)
    torch.testing.assert_close(z.grad, outside, **TOLERANCE)
    (z.grad,) = torch.autograd.grad(torch.func.vmap(loss, (axes,))(given | {"logits": z}).sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(z.grad.square().sum(), z)
    assert torch.all(torch.isfinite(second))


@pytest.mark.parametrize("levels", [1, 2])
def test_forward_mode_around_vmap(levels):
    """Each example is mapped, and all of them change at once."""

    def mapped(z):
        return torch.func.vmap(softmax_crossentropy_with_logits)(z, IDS).sum() / 4

    function, definition = mapped, defined_loss
    for v in directions()[:levels]:
        function, definition = forward(function, v), reverse(definition, v)
    torch.testing.assert_close(function(logits()), definition(logits()), **TOLERANCE)
