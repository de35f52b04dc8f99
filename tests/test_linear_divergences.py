"""Entropies and divergences of projected features: those of the logits, were they there, in blocks of any size."""

from functools import partial

import numpy as np
import pytest

import stable_softmax
from stable_softmax import (
    linear_softmax_entropy,
    linear_softmax_kl_divergence,
    linear_softmax_summary,
    value_and_grad_linear_softmax_entropy,
    value_and_grad_linear_softmax_kl_divergence,
)

pytestmark = pytest.mark.covering_on("numpy", "jax", "torch")

EXAMPLES, FEATURES, OTHERS, CLASSES, IGNORED = 23, 4, 3, 17, -100
NAMES = ("features", "weight", "reference_features", "reference_weight", "bias", "reference_bias")


def drawn(with_mask, shape=(EXAMPLES,)):
    """Return the arrays of both models, and a mask or None; with NaN and infinity wherever nothing may look."""
    rng = np.random.default_rng(8)
    arrays = {
        "features": rng.normal(size=(*shape, FEATURES)),
        "weight": rng.normal(size=(CLASSES, FEATURES)),
        "reference_features": rng.normal(size=(*shape, OTHERS)),
        "reference_weight": rng.normal(size=(CLASSES, OTHERS)),
        "bias": rng.normal(size=CLASSES),
        "reference_bias": rng.normal(size=CLASSES),
    }
    if not with_mask:
        return arrays, None
    where = rng.random((*shape, CLASSES)) < 0.7
    where[..., 5], where[1::7] = False, False
    arrays["weight"][5], arrays["reference_bias"][5] = np.nan, np.inf
    arrays["features"][1::7], arrays["reference_features"][1::7] = np.nan, np.inf
    return arrays, where


def finite(array):
    return np.where(np.isfinite(array), array, 0)


def logits_of(arrays, prefix="", softcap=None):
    """Return the logits of a model, and the slope of the cap."""
    features, weight, bias = (finite(arrays[f"{prefix}{name}"]) for name in ("features", "weight", "bias"))
    logits = features @ weight.T + bias
    return (logits, 1.0) if softcap is None else (softcap * np.tanh(logits / softcap), np.cosh(logits / softcap) ** -2)


def gradients_of(arrays, gradient, prefix):
    """Return the gradients with respect to a model's arrays, from that of its logits."""
    features, weight = (finite(arrays[f"{prefix}{name}"]) for name in ("features", "weight"))
    flat, rows = gradient.reshape(-1, CLASSES), features.reshape(-1, features.shape[-1])
    return {
        f"{prefix}features": (flat @ weight).reshape(features.shape),
        f"{prefix}weight": flat.T @ rows,
        f"{prefix}bias": flat.sum(axis=0),
    }


def of_all_logits(name, arrays, softcap, where, reduction):
    """Return value and gradients by way of all logits."""
    prefixes = ("",) if name == "entropy" else ("", "reference_")
    given = [logits_of(arrays, prefix, softcap) for prefix in prefixes]
    function = getattr(stable_softmax, f"value_and_grad_softmax_{name}")
    value, gradients = function(*(logits for logits, _ in given), where=where, reduction=reduction)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    found = {}
    for prefix, gradient, (_, slope) in zip(prefixes, gradients, given, strict=True):
        found |= gradients_of(arrays, gradient * slope, prefix)
    return value, found


def value_and_grad(name, arrays, softcap, with_respect_to=NAMES, **options):
    """Return value and gradients by name."""
    if name == "kl_divergence":
        caps = {"softcap": softcap, "reference_softcap": softcap}
        return value_and_grad_linear_softmax_kl_divergence(**arrays, **caps, **options, with_respect_to=with_respect_to)
    own = {name: array for name, array in arrays.items() if not name.startswith("reference_")}
    own_names = tuple(name for name in with_respect_to if name in own)
    value, gradients = value_and_grad_linear_softmax_entropy(
        **own, softcap=softcap, **options, with_respect_to=own_names
    )
    return value, dict(zip(("features", "weight", "bias"), gradients, strict=True))


def alone(name, arrays, softcap, **options):
    if name == "kl_divergence":
        return linear_softmax_kl_divergence(**arrays, softcap=softcap, reference_softcap=softcap, **options)
    own = {name: array for name, array in arrays.items() if not name.startswith("reference_")}
    return linear_softmax_entropy(**own, softcap=softcap, **options)


@pytest.mark.parametrize("name", ["entropy", "kl_divergence"])
@pytest.mark.parametrize(
    ("with_mask", "softcap"),
    [
        (True, 2.0),
        *(
            pytest.param(*case, marks=pytest.mark.thorough_on("jax", "dask"))
            for case in ((False, None), (False, 2.0), (True, None))
        ),
    ],
)
def test_values_and_gradients_are_those_of_all_logits(library, name, with_mask, softcap):
    arrays, where = drawn(with_mask)
    given = {key: library.array(array) for key, array in arrays.items()}
    runs = [("none", 5), ("mean", 1), ("mean", None), ("sum", 7)]
    for reduction, block_size in runs[:1] if library.name == "jax" else runs:  # which compiles each
        options = {"reduction": reduction, "block_size": block_size}
        options |= {} if where is None else {"where": library.array(where)}
        expected, of_all = of_all_logits(name, arrays, softcap, where, reduction)
        value, gradients = value_and_grad(name, given, softcap, **options)
        for result in (value, alone(name, given, softcap, **options)):
            np.testing.assert_allclose(library.numpy(result), expected, rtol=1e-12, atol=1e-13)
        assert gradients.keys() == of_all.keys()
        for key, gradient in gradients.items():
            np.testing.assert_allclose(library.numpy(gradient), of_all[key], rtol=1e-11, atol=1e-12, err_msg=key)


def test_equal_models_are_at_divergence_0(library):
    arrays, _ = drawn(False)
    given = {key: library.logits(arrays[key], "float32") for key in ("features", "weight", "bias")}
    again = {f"reference_{key}": array for key, array in given.items()}
    divergence, gradients = value_and_grad_linear_softmax_kl_divergence(**given, **again, with_respect_to=NAMES)
    assert float(library.numpy(divergence)) == 0
    for gradient in gradients.values():
        np.testing.assert_array_equal(library.numpy(gradient), np.zeros(gradient.shape))


def test_batches_of_any_shape(library):
    arrays, where = drawn(True, (3, 4))
    given = {key: library.array(array) for key, array in arrays.items()}
    for mask in (where, where[:, :1]):
        options = {"where": library.array(mask), "reduction": "none", "block_size": 5}
        expected, of_all = of_all_logits("kl_divergence", arrays, None, mask, "none")
        if mask is not where:  # the features of excluded examples are not finite
            continue
        value, gradients = value_and_grad("kl_divergence", given, None, **options)
        assert tuple(value.shape) == (3, 4)
        np.testing.assert_allclose(library.numpy(value), expected, rtol=1e-12, atol=1e-13)
        for key, gradient in gradients.items():
            assert tuple(gradient.shape) == arrays[key].shape
            np.testing.assert_allclose(library.numpy(gradient), of_all[key], rtol=1e-11, atol=1e-12, err_msg=key)


def test_results_have_the_dtypes_of_what_they_are_of(library):
    dtype = library.dtypes[0]  # the narrowest
    arrays, _ = drawn(False)
    wide = {key: library.logits(arrays[key], "float32") for key in NAMES if key.startswith("reference_")}
    narrow = {key: library.logits(arrays[key], dtype) for key in NAMES if not key.startswith("reference_")}
    value, gradients = value_and_grad("kl_divergence", narrow | wide, None)
    assert str(value.dtype).endswith(dtype)
    for key, gradient in gradients.items():
        assert gradient.dtype == (narrow | wide)[key].dtype
    converted, more = value_and_grad("kl_divergence", narrow | wide, None, dtype="float32")
    assert {str(result.dtype).rpartition(".")[2] for result in (converted, *more.values())} == {"float32"}


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("with_mask", [False, True])
def test_summary_is_that_of_all_logits(library, softcap, with_mask):
    arrays, where = drawn(with_mask)
    logits, _ = logits_of(arrays, softcap=softcap)
    class_ids = np.random.default_rng(1).integers(0, CLASSES, size=EXAMPLES)
    class_ids[1::7] = class_ids[::4] = IGNORED
    counted = class_ids != IGNORED
    if where is not None:
        where[np.arange(EXAMPLES), np.where(counted, class_ids, 0)] |= counted
        where[:, 5] = False
        class_ids[class_ids == 5] = IGNORED
        counted = class_ids != IGNORED
    given = [library.array(arrays[name]) for name in ("features", "weight")]
    options = {"where": None if where is None else library.array(where), "softcap": softcap, "block_size": 5}
    summary = linear_softmax_summary(
        *given, library.array(class_ids), library.array(arrays["bias"]), ignore_index=IGNORED, **options
    )
    masked = logits if where is None else np.where(where, logits, -np.inf)
    expected = (
        stable_softmax.softmax_crossentropy_with_logits(logits, class_ids, where=where, ignore_index=IGNORED),
        np.where(counted, stable_softmax.logsumexp(logits, where=where), 0),
        np.where(counted, stable_softmax.softmax_entropy(logits, where=where), 0),
        np.where(counted, masked.argmax(axis=1), -1),
    )
    for field, values, same in zip(summary._fields, summary, expected, strict=True):
        np.testing.assert_allclose(library.numpy(values), same, rtol=1e-12, atol=1e-13, err_msg=field)


ARRAYS, _ = drawn(False)
BAD = [
    (
        {"reference_features": np.ones((2, OTHERS))},
        ValueError,
        r"must give logits of the shape of the others, \(23, 17\), not",
    ),
    ({"reference_weight": np.ones((CLASSES, 9))}, ValueError, r"reference_weight must have shape \(classes, 3\)"),
    ({"reference_weight": np.ones((OTHERS, CLASSES))}, ValueError, r"it is transposed: pass reference_weight\.T"),
    ({"reference_bias": np.ones(3)}, ValueError, r"reference_bias must have shape \(17,\), one for each class"),
    ({"reference_softcap": -1.0}, ValueError, r"reference_softcap must lie in \["),
    ({"reference_features": np.ones((EXAMPLES, OTHERS), bool)}, TypeError, "reference_features must have a real"),
    ({"reduction": "batchmean"}, ValueError, "reduction must be 'none', 'mean' or 'sum'"),
    ({"where": np.ones(CLASSES)}, TypeError, "where must be an array of booleans"),
    ({"weight": np.ones((0, FEATURES)), "bias": np.ones(0)}, ValueError, "weight must have at least one class"),
]


@pytest.mark.only_backends("numpy")
@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_bad_argument(changes, error, message):
    with pytest.raises(error, match=message):
        linear_softmax_kl_divergence(**(ARRAYS | changes))


@pytest.mark.only_backends("numpy")
def test_gradients_are_named():
    function = partial(value_and_grad_linear_softmax_kl_divergence, **ARRAYS)
    assert set(function()[1]) == {"features", "weight", "bias"}
    assert set(function(with_respect_to="reference_weight")[1]) == {"reference_weight"}
    assert function(with_respect_to=())[1] == {}
    with pytest.raises(ValueError, match=r"must name some of 'features', .* and 'reference_bias', each once"):
        function(with_respect_to="logits")
    with pytest.raises(
        ValueError, match="with_respect_to must name some of 'features', 'weight' and 'bias', each once"
    ):
        value_and_grad_linear_softmax_entropy(ARRAYS["features"], ARRAYS["weight"], with_respect_to="reference_weight")
