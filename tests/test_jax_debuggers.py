"""JAX's searches for NaN find none on the way to results without any, in values and in derivatives."""

import contextlib
from collections import defaultdict
from functools import partial
from itertools import cycle, groupby, islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_columns import FUNCTIONS
from jax.experimental import checkify
from test_contract_matrix import BATCHES, EXAMPLES, NORMALIZATIONS

import stable_softmax
from stable_softmax import softmax_crossentropy_with_logits

pytestmark = pytest.mark.thorough


def is_sound(values):
    return not np.any(np.isnan(np.asarray(values, float)))


def batch_of(rows):
    """Return one row of which each given one is an example; they have the same options, but for `where`.

    All have the same shape, so that each operation is compiled once.
    """
    name, rows = str(list(map(str, rows))), list(islice(cycle(rows), max(8, len(rows))))
    options = dict(rows[0].options)
    if "where" in options:
        options["where"] = [row.options["where"] for row in rows]
    if "example_weights" in options:  # which the table gives with those of an ordinary example on each side
        options["example_weights"] = [row.options["example_weights"][1] for row in rows]
    logits, answers = [row.logits for row in rows], np.stack([row.answers for row in rows])
    return rows[0]._replace(name=name, logits=logits, answers=answers, options=options)


def options_of(row):
    answers = np.asarray(row.answers)
    given = {name: name in row.options for name in ("where", "example_weights")}  # each example has its own
    return repr(row.options | given), str(answers.dtype), answers.ndim


def sound(rows):
    """Return the rows of the contract whose loss and gradient hold no NaN."""
    return [row for row in rows if is_sound(row.loss) and is_sound(row.gradient) and not row.error]


ROWS = sorted(sound(EXAMPLES), key=options_of)
TOGETHER = [batch_of(list(rows)) for _, rows in groupby(ROWS, options_of)]


def normalized(position):
    """Return logits and masks of the sound rows of a normalization: of ordinary ones, of masked ones, and of +inf."""
    kinds = defaultdict(list)
    for logits, where, *results in NORMALIZATIONS.values():
        if is_sound(results[position]):
            kinds[all(where), np.inf in np.asarray(logits)[where]].append((logits, where))
    return [tuple(map(np.asarray, zip(*rows, strict=True))) for rows in kinds.values()]


NORMALIZED = {name: normalized(i) for i, name in enumerate(("softmax", "log_softmax", "logsumexp"))}


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
    names = [name for name in ("where", "class_weights", "example_weights") if name in row.options]
    arrays = {name: jnp.asarray(row.options[name]) for name in names}
    return (without_nan(np.asarray(row.logits, float)), without_nan(row.answers)), row.options | arrays


@pytest.mark.parametrize("row", [*TOGETHER, *sound(BATCHES)], ids=str)
def test_no_operation_of_a_loss_makes_a_nan(row):
    given, options = arguments(row)
    with op_by_op():
        for call in CALLS.values():
            jax.block_until_ready(call(*given, **options))


@pytest.mark.parametrize("row", [*TOGETHER, *sound(BATCHES)][::3], ids=str)  # each of which is compiled
def test_checks_of_floats_find_nothing_in_a_loss(row):
    given, options = arguments(row)

    def both(z, y):
        return CALLS["both"](z, y, **options), curvature(z, y, **options)

    error, _ = jax.jit(checkify.checkify(both, errors=checkify.float_checks))(*given)
    error.throw()


def orders(logits, where):
    """Return how many derivatives to look at, the 0th included: none of a result that is +inf, as is what changes."""
    return 1 if np.any(np.isposinf(logits[where])) else 3


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("name", NORMALIZED)
def test_no_operation_of_a_normalization_makes_a_nan(name, way):
    function = getattr(stable_softmax, name)
    for logits, where in NORMALIZED[name]:
        z, masked = without_nan(logits), partial(function, where=jnp.asarray(where))
        for order in range(orders(logits, where)):
            with way():
                jax.block_until_ready(derivative(masked, order)(z))
                if np.all(where):
                    jax.block_until_ready(derivative(function, order)(z))


@pytest.mark.parametrize("name", NORMALIZED)
def test_checks_of_floats_find_nothing_in_a_normalization(name):
    for logits, where in NORMALIZED[name]:
        masked = partial(getattr(stable_softmax, name), where=jnp.asarray(where))
        for order in range(orders(logits, where)):
            checked = checkify.checkify(derivative(masked, order), errors=checkify.float_checks)
            error, _ = jax.jit(checked)(without_nan(logits))
            error.throw()


def test_the_searches_find_what_is_wrong():
    """A bad label is reported, and so is a NaN that counts."""
    z = jnp.zeros((1, 3))
    with pytest.raises(FloatingPointError), op_by_op():
        softmax_crossentropy_with_logits(z, jnp.asarray([3]))
    checked = checkify.checkify(softmax_crossentropy_with_logits, errors=checkify.float_checks)
    error, _ = checked(z.at[0, 0].set(jnp.inf), jnp.asarray([0]))
    assert error.get() is not None
