"""The derivatives that PyTorch's autograd, torch.func and compiler return."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch

import stable_softmax
from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)
from stable_softmax.reference.bounds import error_shares
from stable_softmax.reference.exact import exact_rows
from stable_softmax.reference.rows import COLLAPSED, leading_rows

pytestmark = pytest.mark.covering

LABELS = torch.tensor([0, 3, 2])
FUNCTIONS = {
    "softmax": stable_softmax.softmax,
    "softmax over all": partial(stable_softmax.softmax, axis=None),
    "log_softmax": stable_softmax.log_softmax,
    "log_softmax over the first axis": partial(stable_softmax.log_softmax, axis=0),
    "logsumexp": stable_softmax.logsumexp,
    "loss": partial(softmax_crossentropy_with_logits, reference_answers=LABELS),
    "mean loss": partial(softmax_crossentropy_with_logits, reference_answers=LABELS, reduction="mean"),
    "gradient": partial(grad_softmax_crossentropy_with_logits, reference_answers=LABELS),
    "both": partial(value_and_grad_softmax_crossentropy_with_logits, reference_answers=LABELS),
    "product": partial(
        hvp_softmax_crossentropy_with_logits, reference_answers=LABELS, vector=torch.ones(3, 4).cumsum(1)
    ),
}


def logits(requires_grad=True):
    values = np.random.default_rng(9).normal(size=(3, 4))
    return torch.asarray(values).requires_grad_(requires_grad)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_first_and_second_derivatives_in_every_mode(function):
    assert torch.autograd.gradcheck(function, logits(), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, logits(), check_batched_grad=True)


@pytest.mark.parametrize("precision", COLLAPSED)
@pytest.mark.parametrize("compiled", [False, True])
def test_backward_keeps_the_contract_where_cross_entropy_collapses(library, precision, compiled):
    torch.compiler.reset()
    class_ids, loss = np.arange(4), partial(softmax_crossentropy_with_logits, reduction="mean")
    loss = torch.compile(loss, fullgraph=True) if compiled else loss
    for lead in COLLAPSED[precision]:
        rows = leading_rows(lead, precision)
        exact = exact_rows(rows, class_ids, divisor=4)
        z = library.logits(rows, precision).requires_grad_()
        with warnings.catch_warnings():
            # The compiler warns of the caches in array-api-compat's functions, which it traces through.
            warnings.simplefilter("ignore")
            loss(z, torch.asarray(class_ids)).backward()
        assert error_shares(z.grad.numpy(), exact.gradient, rows, precision).max() <= 1
        assert np.all(z.grad.numpy()[class_ids, class_ids] < 0)
        peer = library.logits(rows, precision).requires_grad_()
        torch.nn.functional.cross_entropy(peer, torch.asarray(class_ids)).backward()
        assert np.all(peer.grad.numpy()[class_ids, class_ids] == 0)


# PyTorch's compiler takes seconds for each.
QUICKLY = ("softmax over all", "both")


@pytest.mark.parametrize(
    "name", [name if name in QUICKLY else pytest.param(name, marks=pytest.mark.thorough) for name in FUNCTIONS]
)
def test_compiled_without_a_graph_break_gives_the_same(name):
    # The compiler gives up on code that it has compiled in eight forms, which all tests here together exceed.
    torch.compiler.reset()
    function = FUNCTIONS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(function, fullgraph=True)
        z, same = logits(), logits()
        results, expected = compiled(z), function(same)
        total = sum(result.square().sum() for result in (results if isinstance(results, tuple) else (results,)))
        total.backward()
    sum(result.square().sum() for result in (expected if isinstance(expected, tuple) else (expected,))).backward()
    tolerance = {"rtol": 1e2 * torch.finfo(torch.float64).eps, "atol": 8 * torch.finfo(torch.float64).eps}
    torch.testing.assert_close(results, expected, **tolerance)
    torch.testing.assert_close(z.grad, same.grad, **tolerance)


def test_torch_func_agrees_with_autograd():
    z, loss = logits(requires_grad=False), softmax_crossentropy_with_logits
    tolerance = {"rtol": 0, "atol": 4 * torch.finfo(torch.float64).eps}
    rows = grad_softmax_crossentropy_with_logits(z, LABELS, reduction="none")
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(z, LABELS), rows, **tolerance)
    same_row = torch.func.vmap(loss, in_dims=(None, 0))(z[0], torch.arange(4))
    torch.testing.assert_close(same_row, -stable_softmax.log_softmax(z[0]), **tolerance)
    p = torch.softmax(z, dim=1)
    hessians = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    for hessian in (torch.func.hessian, lambda f: torch.func.jacrev(torch.func.jacrev(f))):
        torch.testing.assert_close(torch.func.vmap(hessian(loss))(z, LABELS), hessians, **tolerance)
    along = torch.cos(z)
    slopes = torch.func.jvp(partial(loss, reference_answers=LABELS), (z,), (along,))[1]
    torch.testing.assert_close(slopes, (rows * along).sum(1), **tolerance)


def test_bad_label_under_vmap_gives_nan_as_on_every_traced_array():
    losses = torch.func.vmap(softmax_crossentropy_with_logits)(logits(requires_grad=False), torch.tensor([0, 4, -1]))
    assert torch.isnan(losses).tolist() == [False, True, True]


def test_no_graph_where_nothing_requires_one():
    assert softmax_crossentropy_with_logits(logits(requires_grad=False), LABELS).grad_fn is None
    with torch.no_grad():
        assert softmax_crossentropy_with_logits(logits(), LABELS).grad_fn is None
    assert softmax_crossentropy_with_logits(logits(), LABELS).grad_fn is not None


def test_backward_through_what_has_no_gradient_gives_none():
    class Constant(torch.autograd.Function):
        @staticmethod
        def forward(_ctx, losses):
            return losses.clone()

        @staticmethod
        def backward(_ctx, _cotangent):
            return None

    z = logits()
    Constant.apply(softmax_crossentropy_with_logits(z, LABELS)).sum().backward()
    assert z.grad is None


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16])
def test_narrow_logits_have_a_gradient_of_their_dtype(library, narrow):
    z = torch.linspace(-3, 3, 12).reshape(3, 4).to(narrow).requires_grad_()
    softmax_crossentropy_with_logits(z, LABELS, reduction="mean").backward()
    assert z.grad.dtype == narrow
    rows = library.numpy(z.detach()).astype(np.float64)
    exact = exact_rows(rows, LABELS.numpy(), divisor=3).gradient
    assert error_shares(library.numpy(z.grad), exact, rows, str(narrow).removeprefix("torch.")).max() <= 1


def test_inputs_are_never_modified():
    z, y = logits(), LABELS.clone()
    before = z.detach().clone()
    for function in (softmax_crossentropy_with_logits, grad_softmax_crossentropy_with_logits):
        function(z, y).sum().backward()
    torch.testing.assert_close(z.detach(), before, rtol=0, atol=0)
    torch.testing.assert_close(y, LABELS, rtol=0, atol=0)


def test_forward_mode_of_logits_that_require_a_gradient():
    z, along = logits(), torch.ones(3, 4).cumsum(1).double()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(z, along)
        slopes = torch.autograd.forward_ad.unpack_dual(softmax_crossentropy_with_logits(dual, LABELS)).tangent
    rows = grad_softmax_crossentropy_with_logits(z.detach(), LABELS, reduction="none")
    torch.testing.assert_close(slopes, (rows * along).sum(1), rtol=0, atol=8 * torch.finfo(torch.float64).eps)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_backward_again_through_a_kept_graph(reduction):
    """What is kept for it is overwritten only where the graph is not kept."""
    z = torch.randn(40, 100, requires_grad=True)
    y = torch.randint(100, (40,))
    loss = stable_softmax.softmax_crossentropy_with_logits(z, y, reduction=reduction)
    given = 3 * torch.ones_like(loss)
    first, second = (torch.autograd.grad(loss, z, given, retain_graph=True)[0] for _ in range(2))
    (last,) = torch.autograd.grad(loss, z, given)
    assert torch.equal(first, second)
    assert torch.equal(first, last)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, z, given)
    torch.testing.assert_close(
        first, 3 * stable_softmax.grad_softmax_crossentropy_with_logits(z.detach(), y, reduction=reduction)
    )


def test_what_hooks_keep_is_not_overwritten():
    z, y, kept = torch.randn(40, 100, requires_grad=True), torch.randint(100, (40,)), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or len(kept) - 1, kept.__getitem__):
        loss = stable_softmax.softmax_crossentropy_with_logits(z, y, reduction="sum")
    before = [tensor.clone() for tensor in kept]
    (3 * loss).backward()
    assert all(map(torch.equal, kept, before))
    torch.testing.assert_close(
        z.grad, 3 * stable_softmax.grad_softmax_crossentropy_with_logits(z.detach(), y, reduction="sum")
    )
