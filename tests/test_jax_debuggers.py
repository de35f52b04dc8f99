"""JAX's searches for NaN find none on the way to results without any, in values and in derivatives."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_columns import FUNCTIONS
from jax.experimental import checkify
from test_contract_matrix import BATCHES, EXAMPLES, NORMALIZATIONS

import stable_softmax
from stable_softmax import softmax_crossentropy_with_logits


def is_sound(values):
    return not np.any(np.isnan(np.asarray(values, float)))


#: Rows of the contract whose loss and gradient hold no NaN.
SOUND = [row for row in [*EXAMPLES, *BATCHES] if is_sound(row.loss) and is_sound(row.gradient) and not row.error]
NORMALIZED = {
    (function, name): (logits, where)
    for name, (logits, where, *results) in NORMALIZATIONS.items()
    for function, result in zip(("softmax", "log_softmax", "logsumexp"), results, strict=True)
    if is_sound(result)
}


def autodiff(logits, reference_answers, **options):
    return jax.grad(lambda z: jnp.sum(softmax_crossentropy_with_logits(z, reference_answers, **options)))(logits)


def curvature(logits, reference_answers, **options):
    def gradient(z):
        return jax.grad(lambda z: jnp.sum(softmax_crossentropy_with_logits(z, reference_answers, **options)))(z)

    return jax.jvp(gradient, (logits,), (jnp.ones_like(logits),))[1]


def with_vector(logits, reference_answers, **options):
    return FUNCTIONS["hvp"](logits, reference_answers, jnp.ones_like(logits), **options)


CALLS = {**FUNCTIONS, "hvp": with_vector, "autodiff": autodiff, "curvature": curvature}


def derivative(function, order):
    if order == 0:
        return function
    return derivative(lambda z: jax.grad(lambda z: jnp.sum(function(z)))(z), order - 1)


@contextlib.contextmanager
def op_by_op():
    with jax.debug_nans(True), jax.disable_jit():
        yield


WAYS = {"debug_nans": lambda: jax.debug_nans(True), "debug_nans, disable_jit": op_by_op}


def without_nan(values):
    """Return an array with infinity for NaN, which JAX reports of an input too, where it is hidden from results."""
    values = np.asarray(values)
    return jnp.asarray(
        np.where(np.isnan(values), np.inf, values).astype(np.float32) if values.dtype.kind == "f" else values
    )


def arguments(row):
    """Return arrays and numbers of a call."""
    arrays = {name: jnp.asarray(row.options[name]) for name in ("where", "class_weights") if name in row.options}
    return (without_nan(np.asarray(row.logits, float)), without_nan(row.answers)), row.options | arrays


@pytest.mark.parametrize("row", SOUND, ids=str)
def test_no_operation_of_a_loss_makes_a_nan(row):
    given, options = arguments(row)
    with op_by_op():
        for call in CALLS.values():
            jax.block_until_ready(call(*given, **options))


@pytest.mark.parametrize("row", SOUND, ids=str)
def test_checks_of_floats_find_nothing_in_a_loss(row):
    given, options = arguments(row)
    for call in (CALLS["both"], curvature):
        checked = checkify.checkify(lambda z, y, call=call: call(z, y, **options), errors=checkify.float_checks)
        error, _ = jax.jit(checked)(*given)
        error.throw()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("case", NORMALIZED, ids=" of ".join)
def test_no_operation_of_a_normalization_makes_a_nan(case, way):
    function = getattr(stable_softmax, case[0])
    logits, where = NORMALIZED[case]
    z, left = without_nan(np.asarray(logits, float)), jnp.asarray(where)
    infinite = np.any(np.isposinf(np.asarray(logits)[np.asarray(where)]))  # and so is what changes
    for order in range(1 if infinite else 3):
        with way():
            jax.block_until_ready(derivative(lambda z: function(z, where=left), order)(z))
            if all(where):
                jax.block_until_ready(derivative(function, order)(z))
        checked = checkify.checkify(derivative(lambda z: function(z, where=left), order), errors=checkify.float_checks)
        error, _ = jax.jit(checked)(z)
        error.throw()


def test_the_searches_find_what_is_wrong():
    """A bad label is reported, and so is a NaN that counts."""
    z = jnp.zeros((1, 3))
    with pytest.raises(FloatingPointError), op_by_op():
        softmax_crossentropy_with_logits(z, jnp.asarray([3]))
    checked = checkify.checkify(softmax_crossentropy_with_logits, errors=checkify.float_checks)
    error, _ = checked(z.at[0, 0].set(jnp.inf), jnp.asarray([0]))
    assert error.get() is not None
