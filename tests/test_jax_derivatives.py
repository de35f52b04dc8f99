"""The derivatives that JAX returns, against those of undecorated definitions and against exact arithmetic."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr
from jax.sharding import PartitionSpec

import stable_softmax
from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)
from stable_softmax._libraries import library_of
from stable_softmax._maths.crossentropy import Rule, crossentropy
from stable_softmax.reference.bounds import error_shares, representable
from stable_softmax.reference.exact import exact_rows
from stable_softmax.reference.rows import COLLAPSED, leading_rows

EPS = np.finfo(np.float64).eps
# The undecorated definitions lose some units to the maximum's derivative and to `p - 1`, twice in a Hessian.
TOLERANCE = {"rtol": 0, "atol": 64 * EPS}


def definition(name, axis):
    """Return the definition of a function, for JAX to differentiate without any rule of ours."""

    def logsumexp(z):
        top = jax.lax.stop_gradient(jnp.max(z, axis=axis, keepdims=True))
        return jnp.log(jnp.sum(jnp.exp(z - top), axis=axis, keepdims=True)) + top

    return {
        "softmax": lambda z: jnp.exp(z - logsumexp(z)),
        "log_softmax": lambda z: z - logsumexp(z),
        "logsumexp": lambda z: jnp.squeeze(logsumexp(z), axis=axis),
    }[name]


def example(*shape, scale=2):
    rng = np.random.default_rng(5)
    return jnp.asarray(rng.normal(size=shape) * scale), jnp.asarray(rng.integers(0, shape[-1], size=shape[:-1]))


DERIVATIVES = {
    "jacfwd": jax.jacfwd,
    "jacrev": jax.jacrev,
    "jit of jacrev": lambda f: jax.jit(jax.jacrev(f)),
    "jacrev of jit": lambda f: jax.jacrev(jax.jit(f)),
    "jvp": lambda f: lambda z: jax.jvp(f, (z,), (jnp.cos(z),))[1],
    "linearize": lambda f: lambda z: jax.linearize(f, z)[1](jnp.sin(z)),
    "vjp": lambda f: lambda z: jax.vjp(f, z)[1](jnp.cos(f(z)))[0],
    "checkpoint": lambda f: jax.jacrev(jax.checkpoint(f)),
    "hessian": jax.hessian,
    "jacrev of jacfwd": lambda f: jax.jacrev(jax.jacfwd(f)),
    "jacrev of jacrev": lambda f: jax.jacrev(jax.jacrev(f)),
    "third": lambda f: jax.jacfwd(jax.jacrev(jax.jacrev(f))),
}


# The others only repeat them, in programs that take long to compile.
ENOUGH = ("jacfwd", "jacrev", "linearize", "vjp", "hessian", "jacrev of jacrev")


def derivatives(function, z, names=ENOUGH):
    """Return all derivatives by name, from one program."""
    return jax.jit(lambda z: {name: DERIVATIVES[name](function)(z) for name in names})(z)


def derivatives_outside_of_jit(function, z):
    return {name: DERIVATIVES[name](function)(z) for name in ("jacfwd", "linearize", "vjp", "jacrev of jit", "hessian")}


def assert_same(given, expected):
    for name, values in given.items():
        np.testing.assert_allclose(values, expected[name], err_msg=name, **TOLERANCE)


@pytest.mark.parametrize(
    ("name", "axis"),
    [("softmax", -1), ("log_softmax", -1), ("logsumexp", -1), ("log_softmax", 0), ("logsumexp", None)],
)
def test_normalization_has_the_derivatives_of_its_definition(name, axis):
    z, _ = example(2, 3)
    function = partial(getattr(stable_softmax, name), axis=axis)
    names = tuple(DERIVATIVES) if (name, axis) == ("log_softmax", -1) else ENOUGH
    expected = derivatives(definition(name, axis), z, names)
    assert_same(derivatives(function, z, names), expected)
    if names != ENOUGH:
        assert_same(derivatives_outside_of_jit(function, z), expected)


@pytest.mark.parametrize(("axis", "reduction"), [(1, "none"), (0, "mean"), (1, "sum")])
def test_loss_has_the_derivatives_of_its_definition(reduction, axis):
    z, y = example(3, 4)
    reduce = {"none": lambda losses: losses, "mean": jnp.mean, "sum": jnp.sum}[reduction]

    def ours(z):
        return softmax_crossentropy_with_logits(jnp.moveaxis(z, 1, axis), y, axis=axis, reduction=reduction)

    def witness(z):
        return reduce(-definition("log_softmax", -1)(z)[jnp.arange(3), y])

    names = tuple(DERIVATIVES) if reduction == "none" else ENOUGH
    expected = derivatives(witness, z, names)
    assert_same(derivatives(ours, z, names), expected)
    if names != ENOUGH:
        assert_same(derivatives_outside_of_jit(ours, z), expected)


def test_our_gradient_and_product_have_derivatives_too():
    z, y = example(3, 4)
    derivative = partial(derivatives, z=z, names=("jacfwd", "jacrev", "hessian"))
    loss = partial(softmax_crossentropy_with_logits, reference_answers=y, reduction="mean")
    gradient = partial(grad_softmax_crossentropy_with_logits, reference_answers=y)
    joint = partial(value_and_grad_softmax_crossentropy_with_logits, reference_answers=y)
    slopes = derivative(jax.grad(loss))
    assert_same(derivative(gradient), slopes)
    assert_same(derivative(lambda z: joint(z)[0]), derivative(loss))
    assert_same(derivative(lambda z: joint(z)[1]), slopes)
    v = jnp.cos(z)

    def product(z):
        return jax.jvp(jax.grad(loss), (z,), (v,))[1]

    ours = partial(hvp_softmax_crossentropy_with_logits, reference_answers=y, vector=v)
    np.testing.assert_allclose(ours(z), product(z), **TOLERANCE)
    assert_same(derivative(ours), derivative(product))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("precision", COLLAPSED)
def test_grad_keeps_the_contract_where_plain_autodiff_collapses(library, precision, compiled):
    for lead in COLLAPSED[precision]:
        logits = leading_rows(lead, precision)
        class_ids = np.arange(4)
        z, y = library.logits(logits, precision), jnp.asarray(class_ids)
        exact = exact_rows(logits, class_ids, divisor=4)
        gradient = jax.grad(lambda z: softmax_crossentropy_with_logits(z, y, reduction="mean"))  # noqa: B023
        values = np.asarray((jax.jit(gradient) if compiled else gradient)(z))
        assert error_shares(values, exact.gradient, logits, precision).max() <= 1
        assert np.all(values[np.arange(4), class_ids] < 0)
        sums = np.abs(values.astype(np.float64).sum(axis=1))
        assert np.all(sums <= 20 * np.finfo(precision).eps * np.abs(values).sum(axis=1))
        # What JAX makes of the definition, with the maximum held constant as everybody has it.
        plain = jax.grad(lambda z: -jnp.mean(definition("log_softmax", -1)(z)[jnp.arange(4), y]))(z)  # noqa: B023
        assert np.all(np.asarray(plain)[np.arange(4), class_ids] == 0)


@pytest.mark.parametrize("precision", COLLAPSED)
def test_derivatives_of_the_normalizations_keep_their_digits_too(library, precision):
    """With one class ahead, 1 - p is what the others have: dp_0/dz_0 = p_0 (1 - p_0), d(log p_0)/dz_0 = 1 - p_0."""
    for lead in COLLAPSED[precision]:
        z = library.logits([lead, 0.0, -1.0], precision)
        others = np.exp(-np.float64(lead)) * (1 + np.exp(-1.0))
        tolerance = {"rtol": (lead + 32) * np.finfo(precision).eps, "atol": 3 * np.finfo(precision).smallest_normal}
        for name in ("softmax", "log_softmax"):
            function = getattr(stable_softmax, name)
            for jacobian in (jax.jacfwd(function)(z), jax.jacrev(function)(z)):
                np.testing.assert_allclose(jacobian[0, 0], others, **tolerance)
                np.testing.assert_allclose(jacobian[0, 1:], -np.exp([-lead, -lead - 1.0]), **tolerance)


def test_a_constant_in_the_cotangent_costs_no_digits():
    """The Jacobian of the softmax is symmetric and maps constants to 0."""
    z = jnp.asarray([30.0, 0.0, -1.0, 0.5])
    varying = jnp.asarray([3.0, -2.0, 5.0, 1.0])
    _, product = jax.jvp(stable_softmax.softmax, (z,), (varying,))
    _, pullback = jax.vjp(stable_softmax.softmax, z)
    for constant in (0, 1e3, 1e9):
        np.testing.assert_allclose(pullback(varying + constant)[0], product, rtol=64 * EPS)


@pytest.mark.parametrize("narrow", ["bfloat16", "float16"])
def test_narrow_logits_have_a_gradient_of_their_dtype_computed_in_float32(library, narrow):
    logits, class_ids = np.linspace(-3, 3, 40).reshape(8, 5), np.arange(8) % 5
    logits = representable(logits, narrow)
    z, y = library.logits(logits, narrow), jnp.asarray(class_ids)
    gradient = jax.grad(lambda z: softmax_crossentropy_with_logits(z, y, reduction="mean"))(z)
    assert gradient.dtype == narrow
    exact = exact_rows(logits, class_ids, divisor=8).gradient
    assert error_shares(library.numpy(gradient), exact, logits, narrow).max() <= 1


SPECIAL = {
    "-inf": [0.0, -np.inf, 1.0],
    "all but one -inf": [-np.inf, 2.0, -np.inf],
    "ties": [1.0, 1.0, 0.0],
    "equal": [0.0, 0.0, 0.0],
    "overflow": [1000.0, 0.0, 1.0],
    "negative": [-1000.0, -1000.0, -1000.0],
    "largest": [1.7e308, -1.7e308, 0.0],
}


@pytest.mark.parametrize("row", SPECIAL.values(), ids=SPECIAL)
@pytest.mark.parametrize("label", [0, 1, 2])
def test_no_nan_where_the_derivatives_exist(row, label):
    z, y = jnp.asarray([row]), jnp.asarray([label])

    def loss(z):
        return softmax_crossentropy_with_logits(z, y)[0]

    np.testing.assert_allclose(
        jax.grad(loss)(z), grad_softmax_crossentropy_with_logits(z, y), rtol=0, atol=0, equal_nan=False
    )
    for function in (loss, stable_softmax.softmax, stable_softmax.logsumexp):
        for derivative in (jax.jacfwd, jax.jacrev, jax.hessian):
            assert not np.any(np.isnan(derivative(function)(z)))
    if np.all(np.isfinite(row)):
        for derivative in (jax.jacfwd, jax.jacrev, jax.hessian):
            assert not np.any(np.isnan(derivative(stable_softmax.log_softmax)(z)))


def test_bad_label_gives_nan_in_that_row_only():
    z, _ = example(3, 4)
    y = jnp.asarray([0, 4, -1])
    expected = np.asarray([[False] * 4, [True] * 4, [True] * 4])

    def loss(z):
        return softmax_crossentropy_with_logits(z, y, reduction="sum")

    np.testing.assert_array_equal(np.isnan(jax.grad(loss)(z)), expected)
    curvature = jax.grad(lambda z: jnp.sum(jax.grad(loss)(z) * jnp.cos(z)))(z)
    np.testing.assert_array_equal(np.isnan(curvature), expected)


@pytest.mark.parametrize("size", [1e0, 1e10, 1e30])
@pytest.mark.parametrize("operation", [jnp.multiply, jnp.divide])
def test_gradient_through_a_temperature_is_never_nan(library, size, operation):
    rng = np.random.default_rng(6)
    z = library.logits(rng.normal(size=(300, 5)) * size, "float32")
    y = jnp.asarray(rng.integers(0, 5, size=300))

    @jax.jit
    @jax.grad
    def gradient(z, temperature):
        return softmax_crossentropy_with_logits(operation(z, temperature), y, reduction="sum")

    temperature = jnp.float32(0.3)
    expected = grad_softmax_crossentropy_with_logits(operation(z, temperature), y, reduction="none")
    np.testing.assert_allclose(
        gradient(z, temperature), operation(expected, temperature), rtol=256 * np.finfo(np.float32).eps, atol=1e-37
    )


def test_transformations_of_the_gradient_agree():
    z, y = example(6, 5)
    loss = partial(softmax_crossentropy_with_logits, reduction="sum")
    expected = jax.grad(loss)(z, y)
    same = partial(np.testing.assert_allclose, desired=expected, rtol=8 * EPS)
    same(jax.vmap(jax.grad(loss))(z, y))
    same(jax.vmap(jax.vmap(jax.grad(loss)))(z.reshape(2, 3, 5), y.reshape(2, 3)).reshape(6, 5))
    same(jax.lax.map(lambda row: jax.grad(loss)(*row), (z, y)))
    same(jax.lax.scan(lambda carry, row: (carry, jax.grad(loss)(*row)), 0, (z, y))[1])
    same(jax.grad(lambda z: jax.lax.scan(lambda total, row: (total + loss(*row), None), 0.0, (z, y))[0])(z))
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = PartitionSpec("batch")
    same(jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=(rows, rows), out_specs=rows)(z, y))
    same(jax.pmap(jax.grad(loss))(z.reshape(2, 3, 5), y.reshape(2, 3)).reshape(6, 5))


def test_program_of_the_gradient_is_small():
    """JAX would derive twice as many operations from the same formulas without a rule."""
    z, y = example(4, 6)

    def operations(loss):
        def count(jaxpr):
            parameters = [value for equation in jaxpr.eqns for value in equation.params.values()]
            inner = [value.jaxpr for value in parameters if isinstance(value, ClosedJaxpr)]
            return len(jaxpr.eqns) - len(inner) + sum(map(count, inner))

        return count(jax.make_jaxpr(jax.grad(loss))(z).jaxpr)

    with_rule = operations(lambda z: softmax_crossentropy_with_logits(z, y, reduction="mean"))
    without = operations(lambda z: jnp.mean(crossentropy.value(library_of(z), z, y[:, None], rule=Rule(axis=1))))
    print("operations:", with_rule, "with the rule,", without, "without")
    assert with_rule < without
