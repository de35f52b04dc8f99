"""Entropies and divergences of projected features in JAX programs: derivatives, meshes, and what they cost."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from linear_forms import EXAMPLES, FORMS

from stable_softmax import linear_softmax_kl_divergence

pytestmark = [pytest.mark.covering, pytest.mark.versioned]


def drawn(shapes, dtype=float):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def assert_same(given, expected):
    for result, same in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(result, same, rtol=1e-11, atol=1e-13)


def derivatives(function, reduction):
    """Return a program for values and derivatives of first and second order, in both modes."""

    def total(*arrays):
        values = function(*arrays, reduction=reduction)
        return jnp.sum(values * jnp.sin(jnp.arange(1.0, values.size + 1).reshape(values.shape)))

    def program(*arrays):
        gradient = jax.grad(total, tuple(range(len(arrays))))
        return total(*arrays), jax.jvp(gradient, arrays, tuple(map(jnp.cos, arrays)))

    return jax.jit(program)


@pytest.mark.parametrize(
    ("name", "reduction"),
    [
        ("kl_divergence", "mean"),
        ("summary", "none"),
        *(pytest.param(*case, marks=pytest.mark.thorough) for case in (("kl_divergence", "none"), ("entropy", "mean"))),
    ],
)
def test_derivatives_are_those_by_way_of_all_logits(name, reduction):
    form = FORMS[name]
    arrays = drawn(form.shapes)
    assert_same(derivatives(form.in_blocks, reduction)(*arrays), derivatives(form.of_logits, reduction)(*arrays))


@pytest.mark.meshes
@pytest.mark.parametrize("kind", [AxisType.Auto, pytest.param(AxisType.Explicit, marks=pytest.mark.thorough)], ids=str)
def test_examples_and_classes_on_several_devices(kind):
    form = FORMS["kl_divergence"]
    arrays = drawn(form.shapes)
    expected = jax.jit(jax.value_and_grad(form.of_logits, tuple(range(6))))(*arrays)
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(kind,) * 2)
    specs = (P("data"), P("model"), P("model")) * 2
    with jax.set_mesh(mesh):
        placed = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(arrays, specs, strict=True)]
        assert_same(jax.jit(jax.value_and_grad(form.in_blocks, tuple(range(6))))(*placed), expected)


@pytest.mark.thorough
def test_one_exported_program_serves_all_sizes():
    form = FORMS["kl_divergence"]
    (examples,) = export.symbolic_shape("examples")
    shapes = [(examples if shape[0] == EXAMPLES else shape[0], *shape[1:]) for shape in form.shapes]
    program = jax.jit(jax.value_and_grad(form.in_blocks, (0, 1, 2)))
    exported = export.export(program)(*(jax.ShapeDtypeStruct(shape, float) for shape in shapes))
    for number in (EXAMPLES, 1):
        arrays = drawn([(number if shape[0] == EXAMPLES else shape[0], *shape[1:]) for shape in form.shapes])
        assert_same(exported.call(*arrays), jax.value_and_grad(form.of_logits, (0, 1, 2))(*arrays))


def test_a_reference_that_is_not_trained_costs_one_product():
    """Two products give the logits of both, and two the gradients of the model."""
    form = FORMS["kl_divergence"]
    arrays = drawn(form.shapes)

    def products(variables):
        program = jax.jit(jax.grad(partial(linear_softmax_kl_divergence, block_size=100), variables))
        text = program.lower(*(arrays[i] for i in (0, 1, 3, 4, 2, 5))).as_text()
        return text.count("stablehlo.dot_general")

    assert products((0, 1)) == 4
    assert products((0, 1, 2, 3)) == 6


def test_narrow_models_keep_the_digits_of_a_small_divergence():
    """The logits of both are products in single precision, and the gradients are rounded once."""
    shapes = FORMS["kl_divergence"].shapes
    features, weight, bias, *_ = drawn(shapes, "bfloat16")
    changed = weight + jnp.asarray(2.0**-9, "bfloat16") * (jnp.arange(weight.shape[0]) == 3)[:, None]
    function = partial(linear_softmax_kl_divergence, dtype="float32")
    divergence, slopes = jax.jit(jax.value_and_grad(function, (0, 1)))(features, changed, features, weight, bias, bias)
    wide = [np.asarray(array, np.float64) for array in (features, changed, features, weight, bias, bias)]
    expected, exact = jax.value_and_grad(linear_softmax_kl_divergence, (0, 1))(*map(jnp.asarray, wide))
    np.testing.assert_allclose(divergence, expected, rtol=1e-3)
    for slope, same in zip(slopes, exact, strict=True):
        assert slope.dtype == jnp.bfloat16
        np.testing.assert_allclose(
            np.asarray(slope, np.float64), same, rtol=2.0**-7, atol=2e-3 * float(jnp.max(jnp.abs(same)))
        )
