"""The drop-in for PyTorch beside PyTorch itself: same arguments, same results, and digits that PyTorch loses."""

import inspect
from itertools import product
from math import exp, log1p

import numpy as np
import pytest
import torch
import torch.nn.functional as peer
from torch.autograd import gradcheck, gradgradcheck

from stable_softmax.dropin import torch as dropin

# PyTorch's compiler itself uses what it deprecates.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.covering]

EPS = torch.finfo(torch.float64).eps
#: PyTorch's logarithms are of numbers near 1, and it adds up to 24 losses: its errors are absolute.
CLOSE = {"rtol": 256 * EPS, "atol": 64 * EPS}
SHAPES = [(5,), (3, 5), (2, 5, 3), (2, 5, 3, 4), (2, 5, 1, 2, 3)]
REDUCTIONS = ("none", "mean", "sum")
WEIGHT = torch.tensor([0.3, 1.0, 2.0, 0.0, 0.7], dtype=torch.float64)


@pytest.fixture(autouse=True)
def one_thread():
    """Spare these small tensors the waiting of PyTorch's threads for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def described(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def random(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * 3


def class_ids(shape, seed=0):
    """Return ids, the first of which has a weight and is not ignored anywhere below."""
    batch = shape[:1] + shape[2:] if len(shape) > 1 else ()
    ids = torch.randint(0, 5, batch, generator=torch.Generator().manual_seed(seed))
    ids.view(-1)[0] = 2
    return ids


def with_gradient(function, z, *given, **options):
    z = z.detach().requires_grad_()
    loss = function(z, *given, **options)
    return loss.detach(), torch.autograd.grad(loss.sum(), z)[0]


@pytest.mark.parametrize("name", ["cross_entropy", "softmax", "log_softmax"])
def test_signatures_are_those_of_pytorch(name):
    assert described(getattr(dropin, name)) == described(getattr(peer, name))


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "Softmax", "LogSoftmax"])
def test_modules_have_the_constructors_of_pytorch(name):
    ours, theirs = getattr(dropin, name), getattr(torch.nn, name)
    assert described(ours) == described(theirs)
    assert described(ours.forward) == described(theirs.forward)
    assert isinstance(ours(), theirs)
    assert repr(ours()) == repr(theirs())


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "weight"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cross_entropy_agrees_with_every_argument(shape, weight):
    z, ids = random(shape), class_ids(shape)
    some_ignored = torch.where(torch.arange(ids.numel()).view(ids.shape) % 3 == 1, -100, ids)
    probabilities = torch.softmax(random(shape, 1), dim=min(1, len(shape) - 1))
    for reduction, smoothing in product(REDUCTIONS, (0.0, 0.15, 1.0)):
        options = {"weight": weight, "reduction": reduction, "label_smoothing": smoothing}
        for target, more in (
            (ids, {}),
            (some_ignored, {}),
            (some_ignored.clamp(min=-1), {"ignore_index": -1}),
            (ids, {"ignore_index": 1}),
            (probabilities, {}),
        ):
            expected = with_gradient(peer.cross_entropy, z, target, **options, **more)
            result = with_gradient(dropin.cross_entropy, z, target, **options, **more)
            for one, other in zip(result, expected, strict=True):
                torch.testing.assert_close(one, other, **CLOSE)


def test_arguments_work_by_position_as_well():
    z, ids = random((3, 5)), class_ids((3, 5))
    torch.testing.assert_close(dropin.cross_entropy(z, ids.byte()), peer.cross_entropy(z, ids.byte()), **CLOSE)
    result = dropin.cross_entropy(z, ids, WEIGHT, None, 1, None, "sum", 0.1)
    torch.testing.assert_close(result, peer.cross_entropy(z, ids, WEIGHT, None, 1, None, "sum", 0.1), **CLOSE)


@pytest.mark.parametrize(("size_average", "reduce"), [*product((None, True, False), (None, True, False))][1:])
def test_deprecated_arguments_override_the_reduction(size_average, reduce):
    z, ids = random((3, 5)), class_ids((3, 5))
    options = {"size_average": size_average, "reduce": reduce, "reduction": "none"}
    with pytest.warns(UserWarning, match="reduction="):
        expected = peer.cross_entropy(z, ids, **options)
    with pytest.warns(UserWarning, match="please write reduction=") as seen:
        result = dropin.cross_entropy(z, ids, **options)
    torch.testing.assert_close(result, expected, **CLOSE)
    assert seen[0].filename == __file__
    with pytest.warns(UserWarning, match="reduction="):
        module = dropin.CrossEntropyLoss(size_average=size_average, reduce=reduce)
    torch.testing.assert_close(module(z, ids), expected, **CLOSE)


def nothing_counts():
    z, ids = random((3, 5)), class_ids((3, 5))
    ignored = torch.full_like(ids, -100)
    yield z, ignored, {}
    yield z, ignored, {"label_smoothing": 0.2}
    yield z, torch.full_like(ids, 3), {"weight": WEIGHT}
    yield z, torch.tensor([3, -100, 3]), {"weight": WEIGHT}
    yield z, torch.tensor([3, 2, 3]), {"weight": WEIGHT, "ignore_index": 2}
    yield z[0], torch.tensor(-100), {}
    yield z[:0], ids[:0], {}
    yield z[:0], z[:0], {}
    yield z[:0], z[:0], {"weight": WEIGHT}


@pytest.mark.parametrize(("z", "target", "options"), [*nothing_counts()])
def test_the_mean_over_nothing_is_nan_and_moves_nothing(z, target, options):
    for function in (peer.cross_entropy, dropin.cross_entropy):
        loss, slope = with_gradient(function, z, target, **options)
        assert loss.isnan()
        # PyTorch divides 0 by 0 once more where the weights of ids are 0.
        assert (slope == 0).all() or ("weight" in options and function is peer.cross_entropy)
        total, slope = with_gradient(function, z, target, **options, reduction="sum")
        assert (total, slope.abs().sum()) == (0, 0)


def test_the_mean_over_probabilities_divides_by_the_examples_alone():
    z, probabilities = random((3, 5)), torch.softmax(random((3, 5), 1), 1)
    for function in (peer.cross_entropy, dropin.cross_entropy):
        assert function(z, probabilities, weight=torch.zeros(5).double()) == 0


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("target_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_losses_have_the_dtype_that_pytorch_gives_them(kind, target_dtype):
    z, target = random((3, 5)).to(kind), torch.softmax(random((3, 5), 1), 1).to(target_dtype)
    expected, result = peer.cross_entropy(z, target), dropin.cross_entropy(z, target)
    assert result.dtype == expected.dtype
    with torch.autocast("cpu", torch.bfloat16):
        assert dropin.cross_entropy(z, target).dtype == peer.cross_entropy(z, target).dtype
        assert dropin.cross_entropy(z, class_ids((3, 5))).dtype == peer.cross_entropy(z, class_ids((3, 5))).dtype


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_agrees_along_every_dim(name):
    ours, theirs, named = getattr(dropin, name), getattr(peer, name), getattr(torch, name)
    for shape in SHAPES:
        z = random(shape)
        for dim in range(-len(shape), len(shape)):
            torch.testing.assert_close(ours(z, dim), theirs(z, dim), **CLOSE)
            for dtype in (torch.float32, torch.bfloat16):
                expected = named(z, dim=dim, dtype=dtype)
                result = ours(z, dim=dim, dtype=dtype)
                torch.testing.assert_close(result, expected, atol=2e-5 if dtype == torch.float32 else 0.07, rtol=0.02)
    assert ours(torch.arange(3), 0, dtype=torch.float64).dtype == torch.float64
    for dim in (0, -1):
        torch.testing.assert_close(ours(torch.tensor(2.0), dim), theirs(torch.tensor(2.0), dim))
    assert ours(torch.zeros(0, 3), 0).shape == theirs(torch.zeros(0, 3), 0).shape


@pytest.mark.parametrize("shape", [(), *SHAPES[:4]], ids=str)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_a_missing_dim_is_chosen_as_in_pytorch_with_a_warning(name, shape):
    z = random(shape)
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        expected = getattr(peer, name)(z)
    with pytest.warns(UserWarning, match="please write dim=") as seen:
        result = getattr(dropin, name)(z)
    assert seen[0].filename == __file__
    torch.testing.assert_close(result, expected, **CLOSE)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [0, -1, 1, (0, 2), [1, -1], (0, 1, 2)], ids=str)
def test_logsumexp_agrees_with_every_argument(dim, keepdim):
    z = random((2, 5, 3))
    torch.testing.assert_close(dropin.logsumexp(z, dim, keepdim), torch.logsumexp(z, dim, keepdim), **CLOSE)
    result = dropin.logsumexp(input=z, dim=dim, keepdim=keepdim)
    torch.testing.assert_close(result, torch.logsumexp(input=z, dim=dim, keepdim=keepdim), **CLOSE)


def test_logsumexp_takes_what_pytorch_takes():
    for z in (torch.arange(3), torch.tensor([True, False]), torch.tensor([-torch.inf] * 2), torch.zeros(0)):
        torch.testing.assert_close(dropin.logsumexp(z, 0), torch.logsumexp(z, 0))
    for z, infinite in ((torch.tensor([torch.inf, 0]), torch.inf), (torch.tensor([torch.inf] * 2), torch.inf)):
        assert dropin.logsumexp(z, 0) == torch.logsumexp(z, 0) == infinite
    for dim in (0, -1, (0,), [-1]):
        assert dropin.logsumexp(torch.tensor(2.0), dim) == torch.logsumexp(torch.tensor(2.0), dim) == 2


def test_digits_that_pytorch_loses():
    z, single = torch.tensor([[20.0, 0.0]]), 4 * torch.finfo(torch.float32).eps
    ids, one_hot, right = torch.tensor([0]), torch.tensor([[1.0, 0.0]]), log1p(exp(-20))
    for target in (ids, one_hot):
        assert peer.cross_entropy(z, target) == 0
        np.testing.assert_allclose(dropin.cross_entropy(z, target), right, rtol=single)
        slope = with_gradient(dropin.cross_entropy, z, target)[1]
        np.testing.assert_allclose(slope, [[-exp(-20), exp(-20)]], rtol=single)
        assert with_gradient(peer.cross_entropy, z, target)[1][0, 0] == 0
    assert peer.log_softmax(z, 1)[0, 0] == 0
    np.testing.assert_allclose(dropin.log_softmax(z, 1)[0, 0], -right, rtol=single)
    half = torch.tensor([[40.0, 37.0]], dtype=torch.bfloat16)
    assert abs(peer.cross_entropy(half, ids).item() / log1p(exp(-3)) - 1) > 0.05
    np.testing.assert_allclose(dropin.cross_entropy(half, ids).item(), log1p(exp(-3)), rtol=2**-8)


def test_where_pytorch_has_an_accident_the_drop_in_keeps_the_contract():
    z, impossible = torch.zeros(2, 3), torch.tensor([[0.0, -torch.inf]])
    with pytest.raises(IndexError):
        peer.cross_entropy(z, torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="5 at position"):
        dropin.cross_entropy(z, torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="5 at position"):
        dropin.cross_entropy(z, torch.tensor([0, 5]), weight=torch.ones(3))
    assert peer.cross_entropy(impossible, torch.tensor([[1.0, 0.0]])).isnan()
    assert dropin.cross_entropy(impossible, torch.tensor([[1.0, 0.0]])) == 0
    with pytest.raises(RuntimeError):
        peer.cross_entropy(z, torch.tensor([0, 1], dtype=torch.int32))
    assert dropin.cross_entropy(z, torch.tensor([0, 1], dtype=torch.int32)) > 0
    with pytest.raises(NotImplementedError):
        peer.softmax(torch.arange(3), 0)
    assert dropin.softmax(torch.arange(3), 0).dtype == torch.float32
    nothing = torch.tensor([-torch.inf, -torch.inf])
    assert with_gradient(torch.logsumexp, nothing, 0)[1].isnan().all()
    assert (with_gradient(dropin.logsumexp, nothing, 0)[1] == 0).all()
    assert peer.cross_entropy(z, torch.tensor([1, 1]), weight=torch.tensor([1.0, -1, 1])).isfinite()
    with pytest.raises(ValueError, match="not negative"):
        dropin.cross_entropy(z, torch.tensor([1, 1]), weight=torch.tensor([1.0, -1, 1]))
    with pytest.raises(RuntimeError):
        peer.cross_entropy(z, torch.tensor([0, 1]), weight=torch.ones(3).double())
    assert dropin.cross_entropy(z, torch.tensor([0, 1]), weight=torch.ones(3).double()).dtype == torch.float32


def test_what_pytorch_refuses_is_refused():
    z, ids, probabilities = torch.zeros(2, 3), torch.tensor([0, 1]), torch.full((2, 3), 1 / 3)
    for function in (peer.cross_entropy, dropin.cross_entropy):
        for target, options in (
            (probabilities, {"ignore_index": 1}),
            (torch.zeros(2, 3, dtype=torch.int64), {}),
            (ids.float(), {}),
            (ids, {"reduction": "batchmean"}),
            (ids, {"label_smoothing": 1.5}),
            (ids, {"weight": torch.ones(2)}),
            (ids[:1], {}),
        ):
            with pytest.raises((ValueError, RuntimeError)):
                function(z, target, **options)
    with pytest.raises(TypeError):
        dropin.softmax(torch.zeros(3, dtype=torch.complex64), 0)
    with pytest.raises(TypeError):
        dropin.softmax(torch.eye(3).to_sparse(), 0)


def test_modules_load_each_others_state():
    ours, theirs = (
        module.CrossEntropyLoss(weight=WEIGHT, ignore_index=1, reduction="sum", label_smoothing=0.1)
        for module in (dropin, torch.nn)
    )
    theirs.weight.mul_(2)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    assert dict(ours.named_buffers()).keys() == dict(theirs.named_buffers()).keys() == {"weight"}
    for shape in SHAPES:
        z, ids = random(shape), class_ids(shape)
        torch.testing.assert_close(ours(z, ids), theirs(z, ids), **CLOSE)
    assert ours.to(torch.float32).weight.dtype == torch.float32


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
def test_modules_agree_along_a_dim_and_without_one(name):
    ours, theirs, z = getattr(dropin, name), getattr(torch.nn, name), random((3, 5))
    torch.testing.assert_close(ours(dim=0)(z), theirs(dim=0)(z), **CLOSE)
    torch.testing.assert_close(torch.nn.Sequential(ours(1))(z), theirs(1)(z), **CLOSE)
    with pytest.warns(UserWarning, match="please write dim=1") as seen:
        ours()(z)
    assert seen[0].filename == __file__


PROBABILITIES = torch.softmax(random((3, 5), 1), 1)
FUNCTIONS = {
    "cross_entropy": lambda m, z: m.cross_entropy(z, torch.tensor([2, -100, 1])),
    "all options": lambda m, z: m.cross_entropy(
        z, torch.tensor([2, 0, 1]), weight=WEIGHT, ignore_index=0, label_smoothing=0.1
    ),
    "probabilities": lambda m, z: m.cross_entropy(z, PROBABILITIES, weight=WEIGHT),
    "softmax": lambda m, z: m.softmax(z, 1),
    "log_softmax": lambda m, z: m.log_softmax(z, dim=0),
    "logsumexp": lambda m, z: m.logsumexp(z, (0, 1)),
}


class Peer:
    cross_entropy, softmax, log_softmax = peer.cross_entropy, peer.softmax, peer.log_softmax
    logsumexp = torch.logsumexp


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_right_and_the_same_under_transformations(name):
    z = random((3, 5)).requires_grad_()
    assert gradcheck(lambda z: FUNCTIONS[name](dropin, z), z, check_forward_ad=True)
    assert gradgradcheck(lambda z: FUNCTIONS[name](dropin, z), z)
    batch = random((4, 3, 5))

    def slopes(module):
        total = torch.func.grad_and_value(lambda z: FUNCTIONS[name](module, z).sin().sum())
        return torch.func.vmap(total)(batch)

    for one, other in zip(slopes(dropin), slopes(Peer), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["all options", "probabilities"])
def test_compiled_programs_are_whole_and_agree(name):
    compiled = torch.compile(lambda z: FUNCTIONS[name](dropin, z), fullgraph=True, backend="aot_eager")
    for result, expected in zip(
        with_gradient(compiled, random((3, 5))),
        with_gradient(lambda z: FUNCTIONS[name](Peer, z), random((3, 5))),
        strict=True,
    ):
        torch.testing.assert_close(result, expected, **CLOSE)


def test_compiled_means_over_nothing_and_of_bad_ids_are_nan():
    """Where values cannot be checked, as on GPUs, an id out of range must not lead to a weight out of bounds."""
    compiled = torch.compile(dropin.cross_entropy, fullgraph=True, backend="aot_eager")
    assert compiled(random((3, 5)), torch.full((3,), -100)).isnan()
    for bad in (7, -1):
        assert compiled(random((3, 5)), torch.tensor([0, bad, 1]), weight=WEIGHT).isnan()
        losses = compiled(random((3, 5)), torch.tensor([0, bad, 1]), weight=WEIGHT, reduction="none")
        assert losses.isnan().tolist() == [False, True, False]


def test_a_training_loop_goes_the_same_way():
    features, ids = random((64, 4)), torch.randint(0, 3, (64,), generator=torch.Generator().manual_seed(1))
    ids[::7] = -100

    def losses(criterion):
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
        with torch.no_grad():
            for k, parameter in enumerate(model.parameters()):
                parameter.copy_(random(parameter.shape, k) / 4)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
        for _ in range(40):
            optimizer.zero_grad()
            loss = criterion(model(features), ids)
            loss.backward()
            optimizer.step()
            yield loss.item()

    weight = WEIGHT[:3]
    ours, theirs = (
        [*losses(module.CrossEntropyLoss(weight=weight, label_smoothing=0.05))] for module in (dropin, torch.nn)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert ours[-1] < 0.9 * ours[0]


def test_a_program_that_calls_the_peer_by_name_takes_the_drop_in():
    """As `import stable_softmax.dropin.torch as F` does: what knowledge distillation calls."""

    def distillation(F, z, teacher, ids):
        soft = F.cross_entropy(z / 2, F.softmax(teacher / 2, dim=1))
        return F.cross_entropy(z, ids) + 4 * soft - F.logsumexp(z, dim=1).mean()

    z, teacher, ids = random((3, 5)), random((3, 5), 1), class_ids((3, 5))
    result, expected = (with_gradient(lambda z, f=f: distillation(f, z, teacher, ids), z) for f in (dropin, Peer))
    for one, other in zip(result, expected, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
