"""The options against PyTorch's cross_entropy, and the derivatives that autograd returns with each of them."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from loss_options import EACH_COMBINATION, moderate_case
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import cross_entropy

from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)

EPS = np.finfo(np.float64).eps
REDUCTIONS = ("none", "mean", "sum")
SMOOTHINGS = (0.0, 0.1, 0.7, 1.0)


def combinations(batch, classes, rng):
    """Yield reference answers with options, ours of the same name as PyTorch's but for the weights."""
    weights = rng.uniform(0.1, 3, size=classes)
    # Zero for some classes, but for none that is a label below.
    weights[-1] = rng.choice([0, weights[-1]])
    class_ids = np.asarray(rng.integers(0, classes - 1, size=batch))
    probabilities = np.moveaxis(rng.dirichlet(np.ones(classes), size=batch), -1, min(1, len(batch)))
    # PyTorch's mean over nothing is NaN: one example counts, whichever id is ignored.
    ignored = np.asarray(rng.random(batch) < 0.3)
    ignored.flat[0], class_ids.flat[0] = False, classes - 2
    for reduction, smoothing, w in product(REDUCTIONS, SMOOTHINGS, (None, weights)):
        options = {"reduction": reduction, "label_smoothing": smoothing}
        yield probabilities, w, options
        yield class_ids, w, options
        yield np.where(ignored, -100, class_ids), w, options | {"ignore_index": -100}
        if classes > 2:
            yield np.where(ignored, 0, class_ids), w, options | {"ignore_index": 0}


def theirs(logits, answers, weights, options):
    z = torch.asarray(logits).requires_grad_()
    weights = weights if weights is None else torch.asarray(weights)
    loss = cross_entropy(z, torch.asarray(answers), weight=weights, **options)
    return loss.detach().numpy(), torch.autograd.grad(loss.sum(), z)[0].numpy()


@pytest.fixture
def one_thread():
    """Spare these small tensors the waiting of PyTorch's threads for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.thorough) for part in (1, 2, 3))])
def test_thousands_of_combinations_agree_with_pytorch(part):
    """PyTorch subtracts numbers of up to the largest logit, and 1 from probabilities: its errors are absolute."""
    seen = SimpleNamespace(count=0)

    @seed(part)  # so that the parts differ
    @settings(max_examples=16, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        st.integers(0, 2**32 - 1),
        st.integers(2, 7),
        st.one_of(st.just(()), st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)),
    )
    def check(state, classes, batch):
        rng = np.random.default_rng(state)
        axis = min(1, len(batch))
        logits = np.moveaxis(rng.normal(size=(*batch, classes)) * 3, -1, axis)
        for answers, weights, options in combinations(batch, classes, rng):
            expected = theirs(logits, answers, weights, options)
            # Up to 27 losses are summed, and the mean divides by a weight of at least 0.1.
            tolerance = {"rtol": 64 * EPS, "atol": 1e3 * EPS}
            numpy = options | {"class_weights": weights, "axis": axis}
            loss = softmax_crossentropy_with_logits(logits, answers, **numpy)
            gradient = grad_softmax_crossentropy_with_logits(logits, answers, **numpy)
            tensors = numpy | {"class_weights": weights if weights is None else torch.asarray(weights)}
            z, y = torch.asarray(logits), torch.asarray(answers)
            both = value_and_grad_softmax_crossentropy_with_logits(z, y, **tensors)
            for results in ((loss, gradient), both):
                for result, value in zip(results, expected, strict=True):
                    np.testing.assert_allclose(result, value, **tolerance)
            seen.count += 1

    check()
    print("combinations:", seen.count)
    assert seen.count >= 1_200


@pytest.mark.parametrize(
    ("logits", "answers", "options", "expected"),
    [
        ([[1.0, 2.0]], [-100], {"ignore_index": -100}, 0),
        ([[1.0, 2.0], [0.0, 0.0]], [0, 1], {"class_weights": [0.0, 0.0]}, 0),
        ([[1.0, 2.0], [0.0, 0.0]], [-100, 1], {"class_weights": [2.0, 0.0], "ignore_index": -100}, 0),
        ([[0.0, 0.0, -np.inf]], [[0.5, 0.5, 0.0]], {}, np.log(2)),
        ([[0.0, 0.0, -np.inf], [0.0, 0.0, 0.0]], [2, 1], {"class_weights": [1.0, 1.0, 0.0]}, np.log(3)),
    ],
    ids=["all ignored", "no weight", "no weight among the counted", "no probability of -inf", "no weight of -inf"],
)
def test_where_pytorch_divides_zero_by_zero_or_multiplies_it_by_infinity(logits, answers, options, expected):
    """The mean over nothing is 0 here, and 0 times infinity is 0; PyTorch returns NaN."""
    z, y = torch.tensor(logits, dtype=torch.float64), torch.tensor(answers)
    y = y.double() if y.is_floating_point() else y
    ours = {name: torch.tensor(a).double() if name == "class_weights" else a for name, a in options.items()}
    loss, gradient = value_and_grad_softmax_crossentropy_with_logits(z, y, **ours)
    np.testing.assert_allclose(loss, expected, rtol=4 * EPS)
    assert torch.all(torch.isfinite(gradient))
    peer = {{"class_weights": "weight"}.get(name, name): a for name, a in ours.items()}
    assert torch.isnan(cross_entropy(z, y, **peer))


@pytest.mark.parametrize("unseen", [np.nan, np.inf, -np.inf])
def test_logits_of_an_ignored_example_may_be_anything(unseen):
    """PyTorch returns the loss of the others, but NaN in the ignored row of the gradient."""
    z = torch.tensor([[unseen, unseen, unseen], [1.0, 2.0, 3.0]], dtype=torch.float64)
    y = torch.tensor([-100, 0])
    loss, gradient = value_and_grad_softmax_crossentropy_with_logits(z, y, ignore_index=-100)
    expected = theirs(z[1:], y[1:], None, {})
    np.testing.assert_allclose(loss, expected[0], rtol=4 * EPS)
    np.testing.assert_allclose(gradient, [[0, 0, 0], *expected[1]], rtol=4 * EPS)
    assert np.all(np.isnan(theirs(z, y, None, {"ignore_index": -100})[1][0]))


def tensors_of(names):
    """Return the tensors of a case that have derivatives, and what makes a function of all arguments one of these."""
    smooth, rest = moderate_case(names, count=3, classes=3).arguments(torch.asarray)

    def bound(function, reduction):
        options = rest | {"reduction": reduction}
        return lambda *tensors: function(**dict(zip(smooth, tensors, strict=True)), **options)

    return [tensor.requires_grad_() for tensor in smooth.values()], bound


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("names", EACH_COMBINATION)
def test_derivatives_to_logits_probabilities_and_weights(names, reduction):
    smooth, bound = tensors_of(names)
    loss = bound(softmax_crossentropy_with_logits, reduction)
    assert gradcheck(loss, smooth)
    assert gradgradcheck(loss, smooth)
    assert gradcheck(bound(grad_softmax_crossentropy_with_logits, reduction), smooth)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_derivatives_where_a_mask_leaves_no_class_or_targets_are_slightly_negative(reduction):
    torch.manual_seed(0)
    targets = torch.tensor([[-5e-4, 0.5, 0.6], [0.2, 0.3, 0.5], [0.1, 0, 0.9]]).double()
    smooth = [torch.randn(3, 3).double(), targets, torch.rand(3).double(), torch.tensor(0.1), torch.tensor(0.5)]
    smooth = [tensor.double().requires_grad_() for tensor in smooth]
    where = torch.tensor([[True] * 3, [False] * 3, [True, False, True]])

    def loss(logits, targets, weights, smoothing, z_loss):
        options = {"class_weights": weights, "label_smoothing": smoothing, "z_loss": z_loss, "where": where}
        return softmax_crossentropy_with_logits(logits, targets, **options, reduction=reduction)

    assert gradcheck(loss, smooth)
    assert gradgradcheck(loss, smooth)


@pytest.mark.parametrize("names", EACH_COMBINATION)
def test_autograd_of_the_loss_is_the_gradient(names):
    smooth, bound = tensors_of(names)
    expected = bound(grad_softmax_crossentropy_with_logits, "mean")(*smooth)
    loss = bound(softmax_crossentropy_with_logits, "mean")(*smooth)
    gradient = torch.autograd.grad(loss, smooth[0])[0]
    torch.testing.assert_close(gradient, expected, rtol=32 * EPS, atol=2 * EPS)
