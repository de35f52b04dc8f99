"""What JAX's transformations and compiler may do to the functions."""

from functools import partial

import jax
import numpy as np
import pytest

import stable_softmax
from stable_softmax.reference.bounds import error_shares
from stable_softmax.reference.exact import exact_rows

pytestmark = [pytest.mark.covering, pytest.mark.quick, pytest.mark.versioned]

loss_and_gradient = partial(stable_softmax.value_and_grad_softmax_crossentropy_with_logits, reduction="none")


def example(library, *shape, dtype="float32"):
    rng = np.random.default_rng(1)
    class_ids = rng.integers(0, shape[-1], size=shape[:-1])
    return library.logits(rng.normal(size=shape) * 4, dtype), library.array(class_ids)


def test_vmap_equals_the_batch(library):
    z, y = example(library, 5, 4, 7)
    vmap = jax.vmap
    for function in (stable_softmax.softmax, stable_softmax.log_softmax, stable_softmax.logsumexp):
        np.testing.assert_array_equal(vmap(vmap(function))(z), function(z))
    for axis in (0, 1):
        one = partial(loss_and_gradient, axis=-1)
        mapped = vmap(one, in_axes=axis, out_axes=axis)(z, y)
        loss, gradient = loss_and_gradient(z, y)
        np.testing.assert_allclose(mapped[0], loss, rtol=np.finfo(np.float32).eps)  # vectorized in other pieces
        np.testing.assert_array_equal(mapped[1], gradient)


def test_vmap_over_labels_alone(library):
    z, _ = example(library, 7)
    losses = jax.vmap(stable_softmax.softmax_crossentropy_with_logits, in_axes=(None, 0))(z, np.arange(7))
    np.testing.assert_allclose(losses, -stable_softmax.log_softmax(z), rtol=16 * np.finfo(np.float32).eps)


def test_without_64_bits_class_ids_and_results_are_of_32():
    jax.config.update("jax_enable_x64", False)
    try:
        z, y = jax.numpy.zeros((2, 4)), jax.numpy.asarray([1, 4])
        loss, gradient = loss_and_gradient(z, y)
    finally:
        jax.config.update("jax_enable_x64", True)
    assert loss.dtype == gradient.dtype == "float32"
    np.testing.assert_array_equal(np.isnan(loss), [False, True])
    np.testing.assert_array_equal(np.isnan(gradient), np.stack([[False] * 4, [True] * 4]))


@pytest.mark.parametrize("operation", ["times", "over"])
def test_expression_that_the_compiler_fuses(library, dtype, operation):
    """The scaled logits never exist in memory, and the compiler contracts `x * t - max` into one rounding."""
    rng = np.random.default_rng(4)
    sizes = np.repeat([1e0, 1e3, *([1e10, 1e30] if dtype != "float16" else [])], 50)[:, None]
    x = library.logits(rng.normal(size=(len(sizes), 6)) * sizes, dtype)
    temperature = library.logits(0.3, dtype)
    y = library.array(rng.integers(0, 6, size=len(sizes)))

    def scaled(x, temperature):
        return x * temperature if operation == "times" else x / temperature

    @jax.jit
    def fused(x, temperature):
        z = scaled(x, temperature)
        return (stable_softmax.softmax(z), stable_softmax.log_softmax(z), *loss_and_gradient(z, y))

    # XLA keeps a bfloat16 product that it fuses in float32: these are the logits that the loss sees.
    wide = "float32" if dtype == "bfloat16" else dtype
    logits = np.asarray(scaled(x.astype(wide), temperature.astype(wide)), np.float64)
    exact = exact_rows(logits, np.asarray(y))
    names = ("softmax", "log_softmax", "crossentropy", "gradient")
    for name, result in zip(names, fused(x, temperature), strict=True):
        shares = error_shares(library.numpy(result), getattr(exact, name), logits, dtype)
        assert shares.max() <= 1, (name, shares.max())


def test_class_ids_have_derivatives_of_no_dtype():
    """As those of JAX's own functions."""
    losses = partial(stable_softmax.softmax_crossentropy_with_logits, np.zeros((2, 3)))
    ids = jax.numpy.asarray([0, 2])
    gradient = jax.grad(lambda ids: losses(ids, reduction="sum"), allow_int=True)(ids)
    assert gradient.dtype == jax.dtypes.float0
    np.testing.assert_array_equal(jax.jvp(losses, (ids,), (gradient,))[1], [0, 0])
