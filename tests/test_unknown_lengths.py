"""Arrays that say None for the number of rows, as the standard allows: only the running program knows it."""

import operator
from functools import partial
from types import ModuleType

import array_api_compat.numpy as xp
import numpy as np
import pytest

import stable_softmax

pytestmark = [pytest.mark.covering, pytest.mark.only_backends("numpy")]

ROWS = 7  # which no other length here is
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(ROWS, 3))
IDS = RNG.integers(3, size=ROWS)
TARGETS = RNG.dirichlet(np.ones(3), size=ROWS)
loss = stable_softmax.softmax_crossentropy_with_logits


class Lazy:
    """A NumPy array that does not tell how many rows it has."""

    def __init__(self, values):
        self.values = np.asarray(values)

    ndim = property(lambda self: self.values.ndim)
    dtype = property(lambda self: self.values.dtype)
    shape = property(lambda self: tuple(None if length == ROWS else length for length in self.values.shape))

    def __array_namespace__(self, api_version=None):
        return NAMESPACE


class Namespace(ModuleType):
    """The functions of NumPy for these arrays."""

    def __getattr__(self, name):
        value = getattr(xp, name)
        return value if isinstance(value, type | float) else lifted(value)


def lifted(function):
    """Return a function of NumPy arrays as one of lazy arrays."""

    def call(*arguments, **options):
        result = function(*map(plain, arguments), **options)
        return Lazy(result) if isinstance(result, np.ndarray | np.generic) else result

    return call


def plain(value):
    if isinstance(value, tuple | list):
        return type(value)(map(plain, value))
    return value.values if isinstance(value, Lazy) else value


NAMESPACE = Namespace("lazy")
for name in (
    "add",
    "sub",
    "mul",
    "truediv",
    "eq",
    "lt",
    "le",
    "gt",
    "ge",
    "ne",
    "and",
    "or",
    "neg",
    "invert",
    "getitem",
):
    setattr(Lazy, f"__{name}__", lifted(getattr(operator, f"__{name}__")))
for name in ("add", "sub", "mul", "truediv"):
    setattr(Lazy, f"__r{name}__", lambda self, other, name=name: getattr(Lazy(other), f"__{name}__")(self))


def assert_as_known(function, *arrays):
    for result, same in zip(function(*map(Lazy, arrays)), function(*arrays), strict=True):
        np.testing.assert_allclose(result.values, same, rtol=1e-14)


def test_normalizations():
    assert_as_known(lambda z: [f(z) for f in (stable_softmax.softmax, stable_softmax.logsumexp)], LOGITS)
    assert_as_known(lambda z: stable_softmax.logsumexp(z, weights=z, return_sign=True), LOGITS)
    assert_as_known(lambda z, w: [stable_softmax.logsumexp(z, weights=w)], LOGITS, np.asarray([1.0, -2, 0]))


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 0.1}, {"ignore_index": 1}], ids=str)
def test_means_divide_by_the_number_of_rows_of_each_run(options):
    both = partial(stable_softmax.value_and_grad_softmax_crossentropy_with_logits, **options)
    assert_as_known(both, LOGITS, IDS)
    assert_as_known(lambda z, y: [loss(z, y, reduction=name, **options) for name in ("none", "sum")], LOGITS, IDS)


def test_means_of_statistics():
    def means(z, y):
        statistics = stable_softmax.softmax_statistics(z, y)
        return [statistics.crossentropy(reduction=name, z_loss=0.1) for name in ("none", "mean", "sum")]

    assert_as_known(means, LOGITS, IDS)


def test_means_over_target_probabilities():
    assert_as_known(stable_softmax.value_and_grad_softmax_crossentropy_with_logits, LOGITS, TARGETS)


def test_classes_and_features_must_be_known():
    with pytest.raises(ValueError, match=r"^logits must have a known number of classes along axis 0, but its shape is"):
        stable_softmax.softmax(Lazy(LOGITS), 0)
    with pytest.raises(ValueError, match=r"^features must have a known shape, not \(None, 3\)$"):
        stable_softmax.linear_softmax_crossentropy(Lazy(LOGITS), Lazy(np.zeros((2, 3))), Lazy(IDS))
