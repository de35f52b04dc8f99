"""Array libraries that this one does not know, nor they this one: results are right, since both follow the standard.

`nox -s foreign` runs this with the newest version of each.
"""

import importlib

import numpy as np
import pytest

import stable_softmax

#: Module and attribute that hold each namespace.
LIBRARIES = {"cubed": ("cubed", "array_api"), "marray": ("marray", "numpy")}
RNG = np.random.default_rng(0)
LOGITS = (RNG.normal(size=(6, 5)) * 3).astype(np.float32)
LOGITS[0, 1], LOGITS[4, 2] = 40, -np.inf
IDS = np.asarray([1, 2, 3, 4, 0, 1])
TARGETS = RNG.dirichlet(np.ones(5), size=6).astype(np.float32)
TARGETS[4, 2] = 0
WEIGHTS, WHERE = np.asarray([1, 2, 0.5, 1, 1], np.float32), RNG.random((6, 5)) < 0.8
WHERE[np.arange(6), IDS] = True
NORMALIZATIONS = ("softmax", "log_softmax", "logsumexp")
LOSSES = ("softmax_crossentropy_with_logits", "value_and_grad_softmax_crossentropy_with_logits")
DERIVATIVES = (*LOSSES, "hessian_diagonal_softmax_crossentropy_with_logits")


@pytest.fixture(params=LIBRARIES)
def xp(request):
    module, name = LIBRARIES[request.param]
    return getattr(importlib.import_module(module), name)


def computed(results):
    """Return NumPy's arrays of lazy or masked ones."""
    if isinstance(results, tuple):
        return [values for result in results for values in computed(result)]
    if hasattr(results, "compute"):
        results = results.compute()
    return [np.asarray(results.data if hasattr(results, "mask") else results)]


def assert_as_numpy(xp, function, *arrays):
    given = computed(function(*(xp.asarray(array) for array in arrays)))
    for result, same in zip(given, computed(function(*arrays)), strict=True):
        assert result.dtype == same.dtype
        np.testing.assert_allclose(result, same, rtol=64 * np.finfo(np.float32).eps, atol=1e-7)


@pytest.mark.parametrize("axis", [-1, 0, None])
@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_normalizations(xp, name, axis):
    function = getattr(stable_softmax, name)
    assert_as_numpy(xp, lambda z: function(z, axis), LOGITS)
    assert_as_numpy(xp, lambda z, where: function(z, axis, where=where), LOGITS, WHERE)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("name", DERIVATIVES)
def test_losses_and_derivatives(xp, name, reduction):
    function = getattr(stable_softmax, name)
    for answers in (IDS, TARGETS):
        assert_as_numpy(xp, lambda z, y: function(z, y, reduction=reduction), LOGITS, answers)
    options = {"label_smoothing": 0.1, "z_loss": 0.1, "reduction": reduction}
    assert_as_numpy(xp, lambda z, t, w: function(z, t, class_weights=w, **options), LOGITS[:4], TARGETS[:4], WEIGHTS)
    options["ignore_index"] = 3
    assert_as_numpy(
        xp, lambda z, y, w, left: function(z, y, class_weights=w, where=left, **options), LOGITS, IDS, WEIGHTS, WHERE
    )


def test_product_statistics_and_projection(xp):
    assert_as_numpy(xp, stable_softmax.hvp_softmax_crossentropy_with_logits, LOGITS[:4], IDS[:4], TARGETS[:4])
    assert_as_numpy(xp, lambda z, y: stable_softmax.softmax_statistics(z, y).crossentropy(), LOGITS, IDS)
    finite = LOGITS[:4]
    linear = stable_softmax.value_and_grad_linear_softmax_crossentropy
    assert_as_numpy(
        xp, lambda z, w, y: linear(z, w, y, with_respect_to=("features", "weight"))[0], finite, finite, IDS[:4] % 4
    )
