"""What PyTorch programs do around the functions: compilers and exporters for all sizes, tracers, autocast."""

import warnings

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import stable_softmax
from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    hessian_diagonal_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)
from stable_softmax._libraries.torch import LIBRARY
from stable_softmax.reference.bounds import error_shares, representable
from stable_softmax.reference.exact import exact_rows

# PyTorch's compiler itself uses what it deprecates.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.covering]


def weights_for(z):
    return torch.linspace(0.5, 2, 12, dtype=z.dtype, device=z.device)


def flat(results):
    value, gradients = results
    return value, *gradients


def with_everything(z, y):
    options = {"label_smoothing": 0.1, "z_loss": 0.1, "ignore_index": 3, "where": torch.ones_like(z).bool()}
    return softmax_crossentropy_with_logits(z, y, reduction="mean", class_weights=weights_for(z), **options)


FUNCTIONS = {
    "softmax": lambda z, _: stable_softmax.softmax(z),
    "log_softmax": lambda z, _: stable_softmax.log_softmax(z),
    "log_softmax_complement": lambda z, _: stable_softmax.log_softmax_complement(z),
    "logsumexp": lambda z, _: stable_softmax.logsumexp(z),
    "logsumexp, weights": lambda z, _: stable_softmax.logsumexp(z, weights=z.sin(), return_sign=True)[0],
    "logsumexp, weights of classes": lambda z, _: stable_softmax.logsumexp(z, weights=weights_for(z)),
    "softmax, where": lambda z, _: stable_softmax.softmax(z, where=torch.ones_like(z).bool()),
    "losses": softmax_crossentropy_with_logits,
    "mean loss": lambda z, y: softmax_crossentropy_with_logits(z, y, reduction="mean"),
    "gradient": grad_softmax_crossentropy_with_logits,
    "both": value_and_grad_softmax_crossentropy_with_logits,
    "diagonal": hessian_diagonal_softmax_crossentropy_with_logits,
    "product": lambda z, y: hvp_softmax_crossentropy_with_logits(z, y, z),
    "entropy": lambda z, _: stable_softmax.softmax_entropy(z, where=torch.ones_like(z).bool()),
    "divergence": lambda z, _: stable_softmax.softmax_kl_divergence(z, z.cos(), reduction="mean"),
    "divergence and gradients": lambda z, _: flat(stable_softmax.value_and_grad_softmax_kl_divergence(z, z.cos())),
    "js divergence": lambda z, _: stable_softmax.softmax_js_divergence(z, z.cos(), reference_weight=0.3),
    "all options": with_everything,
    "probabilities": lambda z, _: softmax_crossentropy_with_logits(
        z, torch.softmax(z.detach(), 1), class_weights=weights_for(z), label_smoothing=0.1
    ),
}


def data(examples, dtype=torch.float64):
    generator = torch.Generator().manual_seed(examples)
    z = torch.randn(examples, 12, generator=generator, dtype=torch.float64).to(dtype)
    return z, torch.randint(0, 12, (examples,), generator=generator)


def results_of(function, z, y):
    """Return the results and the gradient of their sum."""
    z = z.clone().requires_grad_()
    results = function(z, y)
    results = results if isinstance(results, tuple) else (results,)
    sum(result.sum() for result in results).backward()
    return [*results, z.grad]


def assert_same(results, expected, dtype=torch.float64):
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(results, expected, rtol=64 * eps, atol=64 * eps)


@pytest.mark.thorough
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_compiler_makes_no_more_graphs_than_for_its_own_loss(function):
    """One static graph, one for all sizes, and one for 1, which is what `cross_entropy` gets; and no warning."""
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, backend=counter)
    for examples in (4, 8, 5, 6, 7, 9, 11, 3, 2, 1):
        given = data(examples)
        assert_same(results_of(compiled, *given), results_of(function, *given))
    assert counter.frame_count <= 3
    with torch.no_grad():
        for examples in (4, 8, 5, 6):
            compiled(*data(examples))
    assert counter.frame_count <= 5


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "narrow"), [("softmax", torch.bfloat16), ("both", torch.float16), ("all options", torch.bfloat16)]
)
def test_narrow_dtypes_compile(name, narrow):
    torch.compiler.reset()
    compiled = torch.compile(FUNCTIONS[name], fullgraph=True)
    for examples in (4, 7):
        given = data(examples, narrow)
        assert_same(results_of(compiled, *given), results_of(FUNCTIONS[name], *given), narrow)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["softmax", "logsumexp", "all options"])
def test_compiled_code_at_the_sizes_of_real_work(name):
    """Against the same in float64, without a compiler; one of the sizes is below all thresholds."""
    torch.compiler.reset()
    compiled = torch.compile(FUNCTIONS[name], fullgraph=True)
    for examples in (64, 9_000, 40_000):
        z, y = data(examples, torch.float32)
        expected = results_of(FUNCTIONS[name], z.double(), y)
        for result, exact in zip(results_of(compiled, z, y), expected, strict=True):
            atol = 64 * torch.finfo(torch.float32).eps * exact.abs().max().item()
            torch.testing.assert_close(result.double(), exact, rtol=0, atol=atol)


def test_mapped_second_derivatives_at_the_sizes_of_real_work():
    z, y = data(9_000, torch.float32)
    vectors = torch.randn(20, 9_000, 12)

    def product(v, z):
        return hvp_softmax_crossentropy_with_logits(z, y, v, reduction="sum", z_loss=0.01)

    def forward_over_reverse(v, z):
        options = {"reduction": "sum", "z_loss": 0.01}
        gradient = torch.func.grad(lambda z: softmax_crossentropy_with_logits(z, y, **options))
        return torch.func.jvp(gradient, (z,), (v,))[1]

    expected = torch.stack([product(v.double(), z.double()) for v in vectors])
    for function in (product, forward_over_reverse):
        result = torch.func.vmap(function, in_dims=(0, None))(vectors, z)
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "mean loss"])
def test_compiled_torch_func(name):
    torch.compiler.reset()
    z, y = data(4)

    def gradient(z):
        return torch.func.grad(lambda z: FUNCTIONS[name](z, y).square().sum())(z)

    assert_same(torch.compile(gradient, backend="aot_eager")(z), gradient(z))


def everything_of_rows(z, y, axis):
    normalized = stable_softmax.softmax(z, axis), stable_softmax.log_softmax(z, axis)
    return *normalized, *value_and_grad_softmax_crossentropy_with_logits(z, y, axis, reduction="none")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("classes", "axis", "dynamic", "precision"),
    [
        (50_257, -1, True, "float32"),
        (10_007, 0, False, "float64"),
    ],
)
def test_compiled_sums_keep_the_contract(classes, axis, dynamic, precision):
    """Thousands of terms at the rounding edge of the largest: the compiler adds up one vector after another."""
    torch.compiler.reset()
    unit_roundoff = torch.finfo(getattr(torch, precision)).eps / 2
    leads = -np.log(unit_roundoff * np.asarray([0.6, 1.1, 1.7, 3.0]))
    rows = representable(np.where(np.arange(classes) == 0, leads[:, None], 0), precision)
    class_ids = np.asarray([0, 0, 1, 5])
    z = torch.asarray(np.moveaxis(rows, -1, axis).copy(), dtype=getattr(torch, precision))
    softmax, log_softmax, loss, gradient = torch.compile(everything_of_rows, dynamic=dynamic)(
        z, torch.asarray(class_ids), axis
    )
    exact = exact_rows(rows, class_ids)
    for name, values in {"softmax": softmax, "log_softmax": log_softmax, "gradient": gradient}.items():
        by_row = np.moveaxis(values.numpy(), axis, -1)
        assert error_shares(by_row, getattr(exact, name), rows, precision).max() <= 1, name
    assert error_shares(loss.numpy(), exact.crossentropy, rows, precision).max() <= 1


@pytest.mark.parametrize("strict", [pytest.param(True, marks=pytest.mark.thorough), False])
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_one_exported_program_serves_all_sizes(function, strict):
    class Module(torch.nn.Module):
        def forward(self, z, y):
            return function(z, y)

    sizes = ({0: torch.export.Dim("examples")},) * 2
    exported = torch.export.export(Module(), data(4), dynamic_shapes=sizes, strict=strict)
    for examples in (2, 4, 7, 30):
        given = data(examples)
        assert_same(exported.module()(*given), function(*given))


def gradient_within(z, y):
    return torch.func.grad(lambda z: softmax_crossentropy_with_logits(z, y, reduction="mean"))(z)


TRACED = {**FUNCTIONS, "grad within": gradient_within}


def test_compiled_sums_of_no_examples():
    for axis in (0, 1):
        shape = (0, 300) if axis else (300, 0)
        assert LIBRARY.sum_in_vectors(torch.zeros(shape, dtype=torch.float64), (axis,)).numel() == 0


@pytest.mark.parametrize("strict", [True, False])
def test_one_exported_program_serves_all_numbers_of_classes(strict):
    class Module(torch.nn.Module):
        def forward(self, z, y):
            return everything_of_rows(z, y, -1)

    sizes = {0: torch.export.Dim("examples"), 1: torch.export.Dim("classes")}, {0: torch.export.Dim("examples")}
    exported = torch.export.export(Module(), data(4), dynamic_shapes=sizes, strict=strict)
    for classes in (2, 12, 300):
        z, y = torch.randn(5, classes, dtype=torch.float64), torch.randint(0, classes, (5,))
        for result, expected in zip(exported.module()(z, y), everything_of_rows(z, y, -1), strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("function", TRACED.values(), ids=TRACED)
def test_make_fx(function, mode):
    traced = make_fx(lambda z, y: function(z, y), tracing_mode=mode)(*data(4))
    for examples in (2, 4, 7) if mode == "symbolic" else (4,):
        given = data(examples)
        assert_same(traced(*given), function(*given))


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_fake_tensors_have_shapes_and_no_values(function):
    z, y = data(4)
    expected = results_of(function, z, y)
    with FakeTensorMode():
        results = results_of(function, torch.empty(4, 12, dtype=torch.float64), torch.zeros(4, dtype=torch.int64))
    for result, same in zip(results, expected, strict=True):
        assert (result.shape, result.dtype) == (same.shape, same.dtype)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_jit_trace(function):
    traced = torch.jit.trace(function, data(4), check_trace=False)
    for examples in (4, 7):
        given = data(examples)
        assert_same(traced(*given), function(*given))


def test_symbolic_trace_is_refused_with_the_way_to_go():
    with pytest.raises(TypeError, match=r"^logits is a proxy of torch.fx, .*: trace with torch.export or make_fx$"):
        torch.fx.symbolic_trace(stable_softmax.softmax)


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16], ids=str)
def test_loss_within_autocast_is_of_single_precision_as_that_of_pytorch(narrow):
    z, y = data(64, narrow)
    z.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = softmax_crossentropy_with_logits(z, y, reduction="mean")
        peer = torch.nn.functional.cross_entropy(z, y)
        assert stable_softmax.softmax(z).dtype == torch.softmax(z, 1).dtype == narrow
        assert softmax_crossentropy_with_logits(z, y, dtype=narrow).dtype == narrow
    assert loss.dtype == peer.dtype == torch.float32
    torch.testing.assert_close(loss, peer)
    (loss * 2**16).backward()  # as GradScaler does, beyond the range of float16
    assert z.grad.dtype == narrow
    assert torch.all(torch.isfinite(z.grad))
    assert softmax_crossentropy_with_logits(z, y).dtype == narrow


@pytest.mark.parametrize("value", [0.1, 0.5])
def test_learnable_smoothing_and_penalty(value):
    z, y = data(6)
    given = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def loss(smoothing, penalty):
        return softmax_crossentropy_with_logits(z, y, label_smoothing=smoothing, z_loss=penalty, reduction="mean")

    assert torch.autograd.gradcheck(loss, given, check_forward_ad=True)
    torch.testing.assert_close(loss(*given).detach(), loss(value, value), rtol=0, atol=1e-15)
    with pytest.raises(ValueError, match=r"^label_smoothing must lie in \[0, 1\], but is 1.5$"):
        loss(torch.tensor(1.5, requires_grad=True), 0.0)


@pytest.mark.parametrize(
    "array",
    [
        torch.eye(3).to_sparse(),
        torch.zeros(3, 3, dtype=torch.float8_e4m3fn),
        torch.nested.nested_tensor([torch.zeros(3)], layout=torch.jagged),
    ],
    ids=["sparse", "float8", "nested"],
)
def test_tensors_that_are_refused(array):
    with pytest.raises(TypeError, match=r"^logits must (be a dense array|have a real floating-point)"):
        stable_softmax.softmax(array)


def test_quantized_tensors_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of what it deprecates
        quantized = torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.quint8)
    with pytest.raises(TypeError, match=r"^logits must be a dense array of numbers"):
        stable_softmax.softmax(quantized)


def test_subclasses_and_views_stay_as_they_are():
    class Tensor(torch.Tensor):
        pass

    z, y = data(4)
    result = value_and_grad_softmax_crossentropy_with_logits(z.as_subclass(Tensor), y)
    assert_same([part.as_subclass(torch.Tensor) for part in result], list(FUNCTIONS["both"](z, y)))


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16])
def test_narrow_logits_on_a_device_that_has_no_autocast(narrow):
    logits, class_ids = torch.zeros(4, 3, dtype=narrow, device="meta"), torch.zeros(4, dtype=torch.int64, device="meta")
    losses, gradient = value_and_grad_softmax_crossentropy_with_logits(logits, class_ids, reduction="none")
    assert losses.dtype == gradient.dtype == narrow
    assert losses.device.type == gradient.device.type == "meta"
