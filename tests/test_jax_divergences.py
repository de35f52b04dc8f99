"""The derivatives of entropies and divergences that JAX returns, against those of the definitions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compared_rows import FUNCTIONS, WEIGHT, pairs
from test_divergence_contract import DIVERGENCES, ENTROPIES

import stable_softmax
from stable_softmax import softmax_entropy, softmax_js_divergence, softmax_kl_divergence


def definition(name):
    """Return the definition of a function, for JAX to differentiate without any rule of ours."""

    def entropy(z):
        logs = jax.nn.log_softmax(z)
        return -jnp.sum(jnp.exp(logs) * logs, axis=-1)

    def kl(z, w):
        log_p, log_q = jax.nn.log_softmax(z), jax.nn.log_softmax(w)
        return jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1)

    def js(z, w):
        log_p, log_q = jax.nn.log_softmax(z), jax.nn.log_softmax(w)
        log_m = jnp.log(WEIGHT * jnp.exp(log_q) + (1 - WEIGHT) * jnp.exp(log_p))
        of_q = jnp.sum(jnp.exp(log_q) * (log_q - log_m), axis=-1)
        return WEIGHT * of_q + (1 - WEIGHT) * jnp.sum(jnp.exp(log_p) * (log_p - log_m), axis=-1)

    return {"entropy": entropy, "kl": kl, "js": js}[name]


def first_and_second(function, count):
    every = tuple(range(count))
    gradient = jax.jacrev(function, every)
    return {
        "gradient": gradient,
        "forward": jax.jacfwd(function, every),
        "hessian": jax.jacfwd(gradient, every),
        "reverse over reverse": jax.jacrev(gradient, every),
        "mapped": lambda *rows: jax.vmap(gradient)(*(jnp.stack([row, row + 1, 2 * row]) for row in rows)),
    }


def third_of_the_first_alone(function, _count):
    return {"third": jax.jacfwd(jax.hessian(function))}


def third(function, count):
    every = tuple(range(count))
    return {
        "of all": jax.jacfwd(jax.jacfwd(jax.jacrev(function, every), every), every),
        "of the last alone": jax.jacfwd(jax.hessian(function, count - 1), count - 1),
    }


@pytest.mark.covering
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "derivatives", [first_and_second, third_of_the_first_alone, pytest.param(third, marks=pytest.mark.thorough)]
)
def test_derivatives_are_those_of_the_definition(name, derivatives):
    function, count = FUNCTIONS[name]
    ours, theirs = derivatives(function, count), derivatives(definition(name), count)

    @jax.jit
    def both(rows):
        return [{key: f(*rows) for key, f in given.items()} for given in (ours, theirs)]

    for kind, rows in pairs().items():
        given, expected = both(tuple(map(jnp.asarray, rows[:count])))
        for key in given:
            for values, same in zip(jax.tree.leaves(given[key]), jax.tree.leaves(expected[key]), strict=True):
                np.testing.assert_allclose(values, same, rtol=1e-13, atol=1e-14, err_msg=f"{kind}, {key}")


@pytest.mark.parametrize(
    "name", ["kl", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("entropy", "js"))]
)
def test_impossible_classes_have_no_part_in_derivatives(name):
    """With respect to all arrays, and to each alone, forwards and twice."""
    function, count = FUNCTIONS[name]
    rows = [np.asarray([0.5, 1, -0.3]), np.asarray([1, 0, 0.2])][:count]
    padded = [jnp.asarray(np.append(row, -np.inf)) for row in rows]
    rows = [jnp.asarray(row) for row in rows]
    each = [*range(count), tuple(range(count))]

    @jax.jit
    def all_derivatives(arrays):
        return [derive(function, n)(*arrays) for n in each for derive in (jax.grad, jax.jacfwd, jax.hessian)]

    for values, same in zip(*map(jax.tree.leaves, map(all_derivatives, (padded, rows))), strict=True):
        np.testing.assert_allclose(values, np.pad(same, [(0, 1)] * same.ndim), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "name", ["kl", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("entropy", "js"))]
)
def test_a_scan_that_is_differentiated_twice(name):
    """JAX then forgets the rules of the first derivatives, and differentiates the formulas."""
    function, count = FUNCTIONS[name]

    def total(given, f):
        return jax.lax.scan(lambda sum_, rows: (sum_ + f(*rows), None), 0.0, given)[0]

    given = [pair[:count] for pair in pairs().values()]
    given = tuple(jnp.stack([jnp.asarray(pair[i]) for pair in given]) for i in range(count))
    ours, theirs = (jax.jit(jax.hessian(partial(total, f=f)))(given) for f in (function, definition(name)))
    for values, same in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(values, same, rtol=1e-11, atol=1e-12)


def test_autodiff_gives_the_digits_of_the_gradients():
    rng = np.random.default_rng(22)
    w = jnp.asarray(rng.normal(size=(5, 8)), "float32")
    z = w + jnp.asarray(rng.normal(size=(5, 8)) * 1e-5, "float32")
    for name, (function, count) in FUNCTIONS.items():
        total = lambda *given, f=function: jnp.mean(f(*given))  # noqa: E731
        given = jax.jit(jax.grad(total, tuple(range(count))))(*(z, w)[:count])
        options = {"reference_weight": WEIGHT} if name == "js" else {}
        full = name if count == 1 else f"{name}_divergence"
        expected = getattr(stable_softmax, f"grad_softmax_{full}")(*(z, w)[:count], **options)
        for values, same in zip(given, expected if count > 1 else [expected], strict=True):
            np.testing.assert_allclose(values, same, rtol=1e-5, atol=1e-12)


def test_a_product_in_the_place_of_logits_is_rounded_once():
    h = jnp.asarray(np.random.default_rng(23).normal(size=(16, 50)) * 7, "float32")
    divergence, gradients = jax.jit(
        lambda h, t: stable_softmax.value_and_grad_softmax_kl_divergence(h * t, h * t, reduction="none")
    )(h, 3.3)
    for values in (divergence, *gradients):
        np.testing.assert_array_equal(values, np.zeros_like(values))


def sound_rows():
    """Return the rows of the contract whose results hold no NaN and no infinity."""
    for name, case in DIVERGENCES.items():
        if all(pattern is None or np.all(np.isfinite(np.asarray(pattern, float))) for pattern in case[3:]):
            yield pytest.param(case[:2], case[2], id=name)
    for name, case in ENTROPIES.items():
        if np.isfinite(case[2]):
            yield pytest.param(case[:1], case[1], id=f"entropy, {name}")


@pytest.mark.thorough
@pytest.mark.parametrize(("rows", "where"), [*sound_rows()])
def test_no_operation_makes_a_nan(rows, where):
    """JAX reports NaN of inputs too, where a mask hides them from results: they are infinite here."""
    given = [jnp.asarray(np.where(np.isnan(row), np.inf, row), "float32") for row in np.asarray(rows, float)]
    functions = [softmax_entropy] if len(rows) == 1 else [softmax_kl_divergence, softmax_js_divergence]
    mask, every, ones = jnp.asarray(where), tuple(range(len(rows))), tuple(map(jnp.ones_like, given))
    with jax.debug_nans(True), jax.disable_jit():
        for function in functions:
            masked = partial(function, where=mask)
            gradient = jax.grad(masked, every)
            jax.block_until_ready([masked(*given), gradient(*given), jax.jvp(gradient, tuple(given), ones)[1]])
