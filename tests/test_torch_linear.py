"""The loss of projected features in PyTorch programs: derivatives of every order, compilers, exports, autocast."""

from functools import partial

import pytest
import torch
from linear_forms import CLASSES, EXAMPLES, FEATURES, in_blocks, of_logits
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from stable_softmax import value_and_grad_linear_softmax_crossentropy

# PyTorch's compiler itself uses what it deprecates.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.covering]


def drawn(examples=EXAMPLES, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = (examples, FEATURES), (CLASSES, FEATURES), (CLASSES,)
    answers = torch.randint(0, CLASSES, (examples,), generator=generator)
    return *(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes), answers


def total_of(loss, **options):
    def total(features, weight, bias, answers):
        losses = loss(features, weight, bias, answers, **options)
        return (losses * torch.arange(1, losses.numel() + 1, dtype=torch.float64).sin().reshape(losses.shape)).sum()

    return total


def assert_same(given, expected):
    torch.testing.assert_close(given, expected, rtol=1e-11, atol=1e-13)


def by_autograd(total, *arrays):
    """Return first derivatives, and second ones by reverse mode over reverse mode."""
    *floating, answers = arrays
    leaves = [array.clone().requires_grad_() for array in floating]
    first = torch.autograd.grad(total(*leaves, answers), leaves, create_graph=True)
    second = torch.autograd.grad(
        sum((g * leaf.detach().cos()).sum() for g, leaf in zip(first, leaves, strict=True)), leaves
    )
    return [array.detach() for array in (*first, *second)]


def by_transformations(total, *arrays):
    """Return first derivatives in both modes, and second ones by forward over reverse mode."""
    *floating, answers = arrays
    function = lambda *arrays: total(*arrays, answers)  # noqa: E731
    vectors = tuple(array.cos() for array in floating)
    gradient = torch.func.grad(function, (0, 1, 2))
    first, second = torch.func.jvp(gradient, tuple(floating), vectors)
    of_weight = torch.func.jvp(lambda weight: total(floating[0], weight, *arrays[2:]), (floating[1],), (vectors[1],))
    return first, second, torch.func.jvp(function, tuple(floating), vectors), of_weight


OPTIONS = [
    {},
    pytest.param({"reduction": "sum", "softcap": 2.0}, marks=pytest.mark.thorough),
    pytest.param({"ignore_index": 3, "label_smoothing": 0.1, "z_loss": 0.1}, marks=pytest.mark.thorough),
    {"reduction": "none", "softcap": 1.0, "class_weights": torch.linspace(0.5, 2, CLASSES).double()},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options) or "plain")
@pytest.mark.parametrize("derivatives", [by_autograd, by_transformations])
def test_derivatives_are_those_by_way_of_all_logits(derivatives, options):
    given, expected = (
        derivatives(total_of(loss, block_size=7, **options), *drawn()) for loss in (in_blocks, of_logits)
    )
    assert_same(given, expected)


def test_derivatives_with_respect_to_options_arrays():
    *floating, answers = drawn()
    weights = torch.linspace(0.5, 2, CLASSES).double(), torch.linspace(0.1, 3, len(answers)).double()
    arrays = (*floating, *weights, torch.tensor(0.1), torch.tensor(0.2))

    def of_all(loss):
        def total(features, weight, bias, class_weights, example_weights, z_loss, smoothing):
            options = {"class_weights": class_weights, "z_loss": z_loss, "label_smoothing": smoothing}
            return loss(features, weight, bias, answers, block_size=7, example_weights=example_weights, **options)

        return total

    expected = torch.func.grad(of_all(of_logits), tuple(range(7)))(*arrays)
    assert_same(torch.func.grad(of_all(in_blocks), tuple(range(7)))(*arrays), expected)
    leaves = [array.clone().requires_grad_() for array in arrays]
    assert_same(torch.autograd.grad(of_all(in_blocks)(*leaves), leaves), expected)


def test_a_head_that_learns_alone_and_gradients_of_leaves():
    features, weight, bias, answers = drawn()
    leaf = weight.clone().requires_grad_()
    in_blocks(features, leaf, bias, answers, block_size=7).backward()
    expected = torch.func.grad(of_logits, 1)(features, weight, bias, answers)
    assert_same(leaf.grad, expected)
    gradients = value_and_grad_linear_softmax_crossentropy(features, leaf, answers, bias, block_size=7)[1]
    assert_same(gradients[1].detach(), expected)


def test_backward_twice():
    features, weight, bias, answers = drawn()
    leaf = weight.clone().requires_grad_()
    loss = in_blocks(features, leaf, bias, answers, block_size=7)
    loss.backward(retain_graph=True)
    once = leaf.grad.clone()
    loss.backward()
    assert_same(leaf.grad, 2 * once)


def test_vmap_over_a_batch_of_batches():
    features, weight, bias, answers = drawn()
    batches = features.reshape(4, 10, FEATURES), answers.reshape(4, 10)
    given, expected = (
        torch.func.vmap(lambda x, y, f=loss: f(x, weight, bias, y, block_size=3))(*batches)
        for loss in (in_blocks, of_logits)
    )
    assert_same(given, expected)


@pytest.mark.thorough
@pytest.mark.parametrize(("dynamic", "reduction"), [(False, "mean"), (None, "none"), (True, "mean")])
def test_compiled_for_several_sizes(dynamic, reduction):
    torch.compiler.reset()
    compiled = torch.compile(total_of(in_blocks, block_size=16, reduction=reduction), fullgraph=True, dynamic=dynamic)
    for examples in (40, 25, 12):
        arrays = drawn(examples)
        leaves = [array.clone().requires_grad_() for array in arrays[:3]]
        given = torch.autograd.grad(compiled(*leaves, arrays[3]), leaves)
        assert_same(given, torch.func.grad(total_of(of_logits, reduction=reduction), (0, 1, 2))(*arrays))


def test_one_exported_program_serves_all_sizes():
    class Head(torch.nn.Module):
        def forward(self, features, weight, bias, answers):
            return in_blocks(features, weight, bias, answers)

    examples = torch.export.Dim("examples", min=2, max=4096)
    shapes = {"features": {0: examples}, "weight": None, "bias": None, "answers": {0: examples}}
    program = torch.export.export(Head(), drawn(), dynamic_shapes=shapes).module()
    for number in (EXAMPLES, 2):
        assert_same(program(*drawn(number)), of_logits(*drawn(number)))


def test_autocast_does_not_narrow_the_products():
    arrays = drawn(dtype=torch.float32)
    leaves = [array.clone().requires_grad_() for array in arrays[:3]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = in_blocks(*leaves, arrays[3], block_size=7)
        narrow = in_blocks(arrays[0].bfloat16(), *arrays[1:], block_size=7)
    loss.backward()
    assert loss.dtype == narrow.dtype == torch.float32
    expected = torch.func.grad_and_value(of_logits, (0, 1, 2))(*(a.double() for a in arrays[:3]), arrays[3])
    torch.testing.assert_close(
        ([leaf.grad.double() for leaf in leaves], loss.double()), (list(expected[0]), expected[1]), rtol=1e-4, atol=1e-6
    )


def test_the_logits_of_all_examples_are_not_kept():
    """What the derivatives of a block need is computed again."""
    rows = []
    features, weight, bias, answers = drawn(64)
    leaf = features.clone().requires_grad_()
    for reduction in ("mean", "none"):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: rows.append(t.numel()) or t, lambda t: t):
            in_blocks(leaf, weight, bias, answers, block_size=4, reduction=reduction).sum().backward()
    assert max(rows) <= max(features.numel(), weight.numel())


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_examples_that_are_all_ignored_still_give_each_parameter_a_gradient(reduction):
    """Of zeros, which processes that train together wait for."""
    features, weight, bias, answers = drawn()
    leaves = [array.clone().requires_grad_() for array in (features * torch.nan, weight, bias)]
    options = {"ignore_index": -100, "reduction": reduction, "block_size": 7}
    in_blocks(*leaves, torch.full_like(answers, -100), **options).sum().backward()
    for leaf in leaves:
        torch.testing.assert_close(leaf.grad, torch.zeros_like(leaf))


def scaled_gradients(way, total, scale, *leaves):
    """Return the gradients of a loss times a scale, in one of the ways that PyTorch has."""
    if way == "torch.func.grad":
        return torch.func.grad(lambda *arrays: total(*arrays) * scale, (0, 1, 2))(*leaves)
    if way == "torch.func.vjp":
        loss, pull_back = torch.func.vjp(total, *leaves)
        return pull_back(torch.full_like(loss, scale))
    recorded = [leaf.clone().requires_grad_() for leaf in leaves]
    loss = total(*recorded) * scale
    if way == "backward":
        loss.backward()
        return [leaf.grad for leaf in recorded]
    options = {"create_graph": True} if way == "create_graph" else {"retain_graph": True}
    return torch.autograd.grad(loss, recorded, **options)


@pytest.mark.parametrize(
    "way",
    [
        *("backward", "torch.func.grad"),
        *(pytest.param(way, marks=pytest.mark.thorough) for way in ("retain_graph", "create_graph", "torch.func.vjp")),
    ],
)
@pytest.mark.parametrize("narrow", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.thorough)], ids=str)
@pytest.mark.parametrize(
    ("reduction", "size", "scale"), [("mean", 2.0**-15, 2.0**16), ("sum", 2.0**13, 2.0**-4), ("none", 2.0**13, 2.0**-4)]
)
def test_gradients_are_rounded_once_after_they_are_scaled(way, narrow, reduction, size, scale):
    """Before that, some are beyond the smallest and the largest number of float16."""
    features, weight, bias, answers = drawn(512)
    leaves = [array.to(narrow) for array in (features * size, weight * min(size, 2.0**-12), bias)]

    def total(features, weight, bias):
        with torch.autocast("cpu", torch.bfloat16):
            return in_blocks(features, weight, bias, answers, reduction=reduction, block_size=16).sum()

    exact = torch.func.grad(lambda *arrays: of_logits(*arrays, answers, reduction=reduction).sum(), (0, 1, 2))
    expected = exact(*(array.double() for array in leaves))
    if narrow == torch.float16:
        unscaled = torch.cat([array.flatten() for array in expected]).abs()
        assert unscaled.max() > 65504 or unscaled.quantile(0.3) < 2**-25
    for given, same in zip(scaled_gradients(way, total, scale, *leaves), expected, strict=True):
        assert given.dtype == narrow
        # Half a unit of the last digit, and what single precision adds.
        half = 0.51 * torch.finfo(narrow).eps
        atol = half * max(torch.finfo(narrow).smallest_normal, 1e-3 * scale * float(same.abs().max()))
        torch.testing.assert_close(given.double(), same * scale, rtol=half, atol=atol)


def test_what_a_recomputation_sees_again_stays_as_it_was():
    """Checkpoints compute a block again to its end where they do not stop early."""
    features, weight, bias, answers = drawn()
    leaves = [array.clone().requires_grad_() for array in (features, weight, bias)]
    with torch.utils.checkpoint.set_checkpoint_early_stop(False):
        _, gradients = value_and_grad_linear_softmax_crossentropy(*leaves[:2], answers, leaves[2], block_size=7)
        before = [gradient.detach().clone() for gradient in gradients]
        sum((gradient.cos() * gradient).sum() for gradient in gradients).backward()
    for gradient, same in zip(gradients, before, strict=True):
        torch.testing.assert_close(gradient.detach(), same, rtol=0, atol=0)


class Products(TorchDispatchMode):
    """Counts the products of matrices."""

    number = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.number += function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm)
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize(
    ("learning", "first", "second"),
    [
        (("features",), 2, 2),
        (("weight",), 2, 2),
        (("weight", "bias"), 2, 2),
        (("bias",), 1, 1),
        (("features", "weight", "bias"), 3, 3),
    ],
)
def test_what_does_not_learn_takes_no_product(learning, first, second):
    """Of one block: the sweep of the loss, what backward adds to it, and the sweep for a second derivative."""
    arrays = dict(zip(("features", "weight", "bias"), drawn()[:3], strict=True))
    leaves = {name: array.clone().requires_grad_(name in learning) for name, array in arrays.items()}
    counts = []
    with Products() as products:
        loss = in_blocks(*leaves.values(), drawn()[3], block_size=100)
        counts.append(products.number)
        loss.backward(retain_graph=True)
        counts.append(products.number - sum(counts))
        torch.autograd.grad(loss, [leaves[name] for name in learning], create_graph=True)
        counts.append(products.number - sum(counts))
    assert counts == [first, 0, second]
    for name, leaf in leaves.items():
        expected = torch.func.grad(of_logits, list(arrays).index(name))(*arrays.values(), drawn()[3])
        assert_same(leaf.grad, expected if name in learning else None)


@pytest.mark.parametrize(("argument", "number"), [(0, 3), (1, 3), (2, 2), ((0, 1, 2), 4)])
def test_functions_of_some_arrays_take_no_product_for_the_others(argument, number):
    with Products() as products:
        torch.func.grad(in_blocks, argument)(*drawn(), block_size=100)
    assert products.number == number


def one_step(*arrays, answers, **options):
    """Return the loss and the gradients of arrays, as a step of training finds them."""
    leaves = [array.detach().requires_grad_() for array in arrays]
    loss = in_blocks(*leaves, answers, **options)
    return loss, *torch.autograd.grad(loss.sum(), leaves)


@pytest.mark.parametrize(("reduction", "number"), [("mean", 3), ("none", 4)])
def test_counters_of_operations_see_what_runs_without_them(reduction, number):
    *arrays, answers = drawn()
    with FlopCounterMode(display=False) as counter:
        one_step(*arrays, answers=answers, block_size=7, reduction=reduction)
    assert counter.get_total_flops() == number * 2 * EXAMPLES * FEATURES * CLASSES


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_tensors_without_values_have_the_shapes_of_others(reduction):
    """On the device "meta", and in the mode that compilers and planners of memory use."""
    for dtype in (torch.float32, torch.bfloat16):
        *arrays, answers = drawn(dtype=dtype)
        expected = one_step(*arrays, answers=answers, block_size=7, reduction=reduction)
        meta = [array.to("meta") for array in (*arrays, answers)]
        results = [one_step(*meta[:3], answers=meta[3], block_size=7, reduction=reduction)]
        with FakeTensorMode() as mode:
            fake = [mode.from_tensor(array) for array in (*arrays, answers)]
            results.append(one_step(*fake[:3], answers=fake[3], block_size=7, reduction=reduction))
        for given in results:
            assert [(g.shape, g.dtype) for g in given] == [(e.shape, e.dtype) for e in expected]


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_traced_step_is_the_step(reduction):
    *arrays, answers = drawn()
    step = partial(one_step, answers=answers, block_size=7, reduction=reduction)
    assert_same(make_fx(step)(*arrays)(*arrays), step(*arrays))


def test_leaves_that_a_function_of_others_closes_over():
    features, weight, bias, answers = drawn()
    leaf = weight.clone().requires_grad_()

    def total(features):
        return in_blocks(features, leaf, bias, answers, block_size=7, reduction="none").sum()

    def constant(factor):
        return factor * in_blocks(features, leaf, bias, answers, block_size=7, reduction="none").sum()

    expected = torch.func.grad(lambda features: of_logits(features, weight, bias, answers, reduction="sum"))(features)
    assert_same(torch.func.grad(total)(features).detach(), expected)
    factor = torch.tensor(2.0, dtype=torch.float64)
    assert_same(torch.func.grad(constant)(factor).detach(), of_logits(features, weight, bias, answers) * EXAMPLES)


@pytest.mark.parametrize(
    "options", [{"class_weights": torch.ones(CLASSES).double()}, {"probabilities": True}], ids=list
)
def test_options_arrays_that_need_no_gradient_take_no_other_way(options):
    *arrays, answers = drawn()
    if options.pop("probabilities", False):
        answers = torch.softmax(torch.randn(EXAMPLES, CLASSES).double(), 1)
    with FlopCounterMode(display=False) as counter:
        one_step(*arrays, answers=answers, block_size=7, **options)
    assert counter.get_total_flops() == 3 * 2 * EXAMPLES * FEATURES * CLASSES
