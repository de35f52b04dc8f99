"""The options against JAX's derivatives of an undecorated definition, and against Optax, jax.nn and Keras."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_options import EACH_COMBINATION, IGNORED, moderate_case

import stable_softmax
from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    log_softmax,
    logsumexp,
    softmax,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)

EPS = np.finfo(np.float64).eps
# Textbook forms of moderate rows lose some units to `p - q`, twice in a Hessian; sums of a row are below 100.
TOLERANCE = {"rtol": 64 * EPS, "atol": 64 * EPS}
SAME = {"rtol": 16 * EPS, "atol": 16 * EPS}


def definition(
    logits,
    reference_answers,
    where=True,
    class_weights=1.0,
    example_weights=1.0,
    label_smoothing=0.0,
    ignore_index=IGNORED,
    z_loss=0.0,
    reduction="none",
):
    """Return the loss of rows (examples, classes), written without a thought of accuracy, NaN or speed."""
    left = jnp.broadcast_to(where, logits.shape)
    weights = jnp.broadcast_to(class_weights, logits.shape)
    total = jnp.log(jnp.sum(jnp.where(left, jnp.exp(logits), 0), axis=1, keepdims=True))
    share = label_smoothing / jnp.sum(left, axis=1, keepdims=True)
    examples = jnp.broadcast_to(example_weights, len(logits))
    counted, divisor = True, jnp.sum(examples)
    if jnp.issubdtype(reference_answers.dtype, jnp.integer):
        one_hot = jnp.arange(logits.shape[1]) == reference_answers[:, None]
        targets = share * weights + (1 - label_smoothing) * jnp.where(one_hot, weights, 0)
        counted = reference_answers != ignore_index
        divisor = jnp.sum(jnp.where(one_hot & counted[:, None], weights * examples[:, None], 0))
    else:
        targets = weights * ((1 - label_smoothing) * reference_answers + share)
    losses = jnp.sum(jnp.where(left, targets * (total - logits), 0), axis=1) + z_loss * total[:, 0] ** 2
    losses = jnp.where(counted, losses * examples, 0)
    return {"none": losses, "sum": jnp.sum(losses), "mean": jnp.sum(losses) / divisor}[reduction]


@pytest.mark.parametrize("names", EACH_COMBINATION)
def test_derivatives_are_those_of_the_definition(names):
    """To logits, probabilities and weights; and the second ones to logits."""
    smooth, rest = moderate_case(names, count=5, classes=3).arguments(jnp.asarray)
    vector = jnp.cos(smooth["logits"])

    def witness(smooth, reduction):
        loss = partial(definition, **rest, reduction=reduction)
        value, gradients = jax.value_and_grad(lambda smooth: loss(**smooth))(smooth)
        hessian = jax.hessian(lambda z: loss(**smooth | {"logits": z}))(smooth["logits"])
        return value, gradients, jnp.tensordot(hessian, vector, axes=2)

    def ours(smooth, reduction):
        loss = partial(softmax_crossentropy_with_logits, **rest, reduction=reduction)
        value, gradients = jax.value_and_grad(lambda smooth: loss(**smooth))(smooth)
        given = smooth | rest | {"reduction": reduction}
        slopes = jax.jvp(jax.grad(lambda z: loss(**smooth | {"logits": z})), (smooth["logits"],), (vector,))[1]
        product = hvp_softmax_crossentropy_with_logits(**given, vector=vector)
        return value, gradients, product, slopes, grad_softmax_crossentropy_with_logits(**given)

    @partial(jax.jit, static_argnums=1)
    def compared(smooth, reduction):
        return witness(smooth, reduction), ours(smooth, reduction)

    for reduction in ("mean", "sum") if len(names) > 2 else ("mean",):
        (value, gradients, product), given = compared(smooth, reduction)
        np.testing.assert_allclose(given[0], value, **TOLERANCE)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(given[1][name], gradient, **TOLERANCE, err_msg=name)
        np.testing.assert_allclose(given[2], product, **TOLERANCE)
        np.testing.assert_allclose(given[3], product, **TOLERANCE)
        np.testing.assert_allclose(given[4], gradients["logits"], **TOLERANCE)


@pytest.mark.thorough
@pytest.mark.parametrize("names", EACH_COMBINATION)
def test_transformations_change_nothing(names):
    """Neither does the compiler, nor a loop over the examples, nor vmap over them."""
    case = moderate_case(names, count=5, classes=3)
    smooth, rest = case.arguments(jnp.asarray)
    per_example = partial(value_and_grad_softmax_crossentropy_with_logits, **case.numbers, reduction="none")
    batch = {**smooth, **{name: values for name, values in rest.items() if name not in case.numbers}}
    shared = {name: batch.pop(name) for name in ("class_weights",) if name in batch}
    expected = per_example(**batch, **shared)
    np.testing.assert_allclose(expected[0], definition(**smooth, **rest), **TOLERANCE)

    def row(batch):
        return per_example(**batch, **shared)

    for transformed in (jax.jit(row), jax.vmap(row), jax.jit(partial(jax.lax.map, row))):
        for result, same in zip(transformed(batch), expected, strict=True):
            np.testing.assert_allclose(result, same, **SAME)
    slopes = jax.vmap(jax.grad(lambda z, rest: softmax_crossentropy_with_logits(z, **rest, **shared, **case.numbers)))
    others = {name: values for name, values in batch.items() if name != "logits"}
    np.testing.assert_allclose(slopes(batch["logits"], others), expected[1], **SAME)


def test_optax_agrees():
    import optax

    rng = np.random.default_rng(3)
    z, where = jnp.asarray(rng.normal(size=(40, 6)) * 2), jnp.asarray(rng.random((40, 6)) < 0.7)
    where = where.at[:, 2].set(True)
    t = jnp.asarray(rng.dirichlet(np.ones(6), size=40))
    for smoothing in (0.0, 0.1, 1.0):
        # Optax's smoothing knows no mask.
        expected = optax.softmax_cross_entropy(z, optax.smooth_labels(t, smoothing))
        result = softmax_crossentropy_with_logits(z, t, label_smoothing=smoothing)
        np.testing.assert_allclose(result, expected, **TOLERANCE)
    some = where.at[5, :].set(False)  # which leaves no class, and so nothing to sum
    np.testing.assert_allclose(
        softmax_crossentropy_with_logits(z, t, where=some),
        optax.softmax_cross_entropy(z, t, where=some),
        **TOLERANCE,
    )
    y = jnp.asarray(rng.integers(0, 6, size=40))
    masked = where | (jnp.arange(6) == y[:, None])
    np.testing.assert_allclose(
        softmax_crossentropy_with_logits(z, y, where=masked),
        optax.softmax_cross_entropy_with_integer_labels(z, y, where=masked),
        **TOLERANCE,
    )


def test_example_without_a_class_has_no_slope_to_anything():
    """Whatever its logits are: NaN beside 0 would be NaN."""
    where = jnp.asarray([[False] * 3, [True] * 3])
    rows = jnp.asarray([[jnp.nan, jnp.inf, 0], [1, 2, 3]]), jnp.asarray([[jnp.nan, 0.5, 0.5], [0.2, 0.3, 0.5]])

    @partial(jax.grad, argnums=(0, 1, 2, 3, 4))
    def slopes(z, t, weights, smoothing, z_loss, where):
        options = {"class_weights": weights, "label_smoothing": smoothing, "z_loss": z_loss, "where": where}
        return softmax_crossentropy_with_logits(z, t, **options, reduction="sum")

    both, one = (slopes(*(a[i:] for a in rows), jnp.ones(3), 0.1, 0.5, where[i:]) for i in (0, 1))
    for given, expected in zip(both[:2], one[:2], strict=True):
        np.testing.assert_array_equal(given[0], jnp.zeros(3))
        np.testing.assert_allclose(given[1:], expected, **SAME)
    for given, expected in zip(both[2:], one[2:], strict=True):
        np.testing.assert_allclose(given, expected, **SAME)


@pytest.mark.parametrize(
    "axis", [(0, 1), *(pytest.param(axis, marks=pytest.mark.thorough) for axis in (-1, 0))], ids=str
)
def test_normalization_agrees_with_jax(axis):
    rng = np.random.default_rng(4)
    z, where = jnp.asarray(rng.normal(size=(7, 6)) * 2), jnp.asarray(rng.random((7, 6)) < 0.7)
    where = where.at[3, :].set(True).at[:, 2].set(True)
    for ours, theirs in (
        (softmax, jax.nn.softmax),
        (log_softmax, jax.nn.log_softmax),
        (logsumexp, jax.scipy.special.logsumexp),
    ):
        f, g = (partial(function, axis=axis, where=where) for function in (ours, theirs))
        np.testing.assert_allclose(f(z), g(z), **TOLERANCE)
        # JAX's own derivative of a log-probability of -inf is left out.
        weights = jnp.where(where, jnp.cos(z), 0) if ours is not logsumexp else 1.0

        def slope(function, weights=weights):
            values = function(z)
            return jax.grad(lambda z: jnp.sum(weights * jnp.where(jnp.isinf(values), 0, function(z))))(z)

        np.testing.assert_allclose(*jax.jit(lambda f=f, g=g, slope=slope: (slope(f), slope(g)))(), **TOLERANCE)
        np.testing.assert_allclose(jax.jit(f)(z), f(z), **SAME)
        if axis == -1:
            np.testing.assert_allclose(jax.vmap(lambda z, w, f=ours: f(z, where=w))(z, where), f(z), **SAME)


@pytest.mark.parametrize("ignored", [-1, 2, 1000])
@pytest.mark.parametrize(("reduction", "theirs"), [("none", "none"), ("sum", "sum"), ("mean", "sum_over_batch_size")])
def test_keras_agrees(ignored, reduction, theirs, monkeypatch):
    """Keras's mean, too, divides by the number of examples that count."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    import keras

    rng = np.random.default_rng(5)
    z = jnp.asarray(rng.normal(size=(40, 6)) * 2)
    y = jnp.asarray(np.where(rng.random(40) < 0.3, ignored, rng.integers(0, 6, size=40)))
    peer = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=ignored, reduction=theirs, dtype="float64"
    )
    result = softmax_crossentropy_with_logits(z, y, ignore_index=ignored, reduction=reduction)
    np.testing.assert_allclose(result, peer(y, z), **TOLERANCE)
    gradient = jax.grad(lambda z: jnp.sum(peer(y, z)))(z)
    ours = grad_softmax_crossentropy_with_logits(z, y, ignore_index=ignored, reduction=reduction)
    np.testing.assert_allclose(ours, gradient, **TOLERANCE)


@pytest.mark.parametrize("name", ["class_weights", "label_smoothing", "z_loss", "example_weights"])
def test_what_the_targets_of_an_example_of_weight_0_hold_has_no_slope(name):
    targets, weights = jnp.asarray([[0.5, 0.5], [jnp.nan, -1]]), jnp.asarray([1.0, 0.0])
    arrays = {"class_weights": jnp.ones(2), "label_smoothing": jnp.asarray(0.1), "z_loss": jnp.asarray(0.1)}

    def loss(array, targets, weights, rows):
        options = {**arrays, "example_weights": weights} | {name: array}
        return softmax_crossentropy_with_logits(jnp.eye(2)[:rows], targets, **options, reduction="mean")

    array = arrays.get(name, weights)
    slopes = jax.grad(loss)(array, targets, weights, 2)
    alone = jax.grad(loss)(array[:1] if name == "example_weights" else array, targets[:1], weights[:1], 1)
    np.testing.assert_allclose(slopes[:1] if name == "example_weights" else slopes, alone, **TOLERANCE)


def test_kept_plans_know_the_settings_of_64_bits():
    if not hasattr(jax.config, "jax_explicit_x64_dtypes"):
        pytest.skip("this version has no such setting")
    z, before = jnp.ones((1, 7), "float32"), jax.config.jax_explicit_x64_dtypes
    with jax.enable_x64(False):
        assert stable_softmax.softmax(z, dtype="float32").dtype == "float32"
        try:
            for setting, dtype in (("warn", "float32"), ("allow", "float64"), ("warn", "float32")):
                jax.config.update("jax_explicit_x64_dtypes", setting)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    assert stable_softmax.softmax(z, dtype="float64").dtype == dtype
        finally:
            jax.config.update("jax_explicit_x64_dtypes", before)
