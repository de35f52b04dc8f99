"""The table of ways in JAX: gradients, second derivatives and scaled losses, of every row."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import ways
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from ways import CLASSES, MERGES, Table, statistics, working

import stable_softmax
from stable_softmax import softmax_statistics


def whole(z, y):
    return stable_softmax.softmax_crossentropy_with_logits(z, y, dtype=jnp.promote_types(z.dtype, jnp.float32))


def gradient_times_one(z, y):
    """Return the losses with the explicit gradient as their derivative."""
    value, gradient = stable_softmax.value_and_grad_softmax_crossentropy_with_logits(z, y, reduction="none")
    return value + jnp.sum(jnp.where(jnp.isfinite(z), z - jax.lax.stop_gradient(z), 0) * gradient, axis=1)


def of_merged(name, library):
    return lambda z, y: statistics(name, library)(z, y).crossentropy()


def scanned(z, y):
    def step(carried, block):
        part = jax.lax.dynamic_slice_in_dim(z, block * 3, 3, axis=1)
        return carried.merge(softmax_statistics(part, y, first_class=block * 3)), None

    return jax.lax.scan(step, softmax_statistics(z[:, :0], y), jnp.arange(CLASSES // 3))[0].crossentropy()


def row_by_row(z, y):
    """Return the losses from a scan; where JAX differentiates one twice, it forgets the rules of first derivatives."""

    def step(_, row):
        return None, whole(row[0][None], row[1][None])[0]

    return jax.lax.scan(step, None, (z, y))[1]


def mapped(z, y):
    """Merge over an axis that `vmap` names."""

    def one(part, first_class):
        part = softmax_statistics(part, y, first_class=first_class)
        return part.merge_over(
            partial(jax.lax.pmax, axis_name="i"), partial(jax.lax.psum, axis_name="i")
        ).crossentropy()

    parts = jnp.swapaxes(z.reshape(len(z), 4, 3), 0, 1)
    return jax.vmap(one, axis_name="i")(parts, 3 * jnp.arange(4))[0]


def over_mesh(z, y):
    def losses(z, y):
        part = softmax_statistics(z, y, first_class=jax.lax.axis_index("model") * z.shape[1])
        collectives = (partial(f, axis_name="model") for f in (jax.lax.pmax, jax.lax.psum))
        return part.merge_over(*collectives).crossentropy()

    return jax.shard_map(losses, in_specs=(P(None, "model"), P()), out_specs=P())(z, y)


def all_results(losses):
    """Return a program for losses, gradient, second derivative, and gradients of losses that are scaled."""

    def program(z, y, v):
        def total(z, scale=1.0):
            values = losses(z, y)
            return jnp.sum(values * jnp.asarray(scale, values.dtype))

        gradient = jax.grad(total)
        scaled = [gradient(z, scale) for scale in (2.0**-4, 2.0**16)]
        return losses(z, y), *jax.jvp(gradient, (z,), (v,)), *scaled

    return jax.jit(program)


def check(table, results, of_rows=False):
    """Check all results; second derivatives relative to the largest of a row only, if `of_rows`."""
    loss, gradient, product, small, large = (np.asarray(r.astype(working(str(r.dtype)))) for r in results)
    table.check(loss, "loss", working(table.dtype))
    table.check(gradient, "gradient")
    table.check(product, "product", of_rows=of_rows)
    table.check(small, "gradient", scale=2.0**-4)
    table.check(large, "gradient", scale=2.0**16)


WAYS = {"whole": lambda _: whole, "scan": lambda _: scanned, "rows": lambda _: row_by_row, "vmap": lambda _: mapped} | {
    name: partial(of_merged, name) for name in MERGES
}
DTYPES = ["float32", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("bfloat16", "float16", "float64"))]


# Which take long to compile.
LONG = ("class_by_class", "tree")


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.thorough] if name in LONG else []) for name in WAYS]
)
def test_derivatives(library, precision, name):
    table = Table(library, precision)
    check(table, all_results(WAYS[name](library))(table.z, table.y, table.v), of_rows=name == "rows")


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("block_size", [5, pytest.param(None, marks=pytest.mark.thorough)])
def test_derivatives_of_projected_features(library, precision, block_size):
    table = Table(library, precision, finite=True)
    wide = jnp.promote_types(table.z.dtype, jnp.float32)
    losses = partial(ways.projected, block_size=block_size, dtype=wide)
    check(table, all_results(losses)(table.z, table.y, table.v))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("losses", [whole, over_mesh])
def test_derivatives_on_several_devices(library, losses, kind):
    table, mesh = Table(library, "float32"), jax.make_mesh((4,), ("model",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        placed = [
            jax.device_put(array, NamedSharding(mesh, spec))
            for array, spec in ((table.z, P(None, "model")), (table.y, P()), (table.v, P(None, "model")))
        ]
        check(table, all_results(losses)(*placed))


def normalizations(z, along, y):
    """Return a number that all normalizations have a part in, and the loss with all options that are numbers."""
    losses = partial(stable_softmax.softmax_crossentropy_with_logits, z, y, z_loss=0.1, label_smoothing=0.1)
    rows = stable_softmax.logsumexp(z, axis=1) * along[:, 0] + losses() * along[:, 1]
    probabilities = stable_softmax.softmax(z, axis=1) + jnp.where(along > 0.5, 0.1 * stable_softmax.log_softmax(z), 0)
    return rows + jnp.sum(along * probabilities, axis=1)


def test_normalizations_within_a_scan_have_the_second_derivatives_that_they_have_outside(library):
    table = Table(library, "float64", finite=True)
    z = jnp.asarray(np.where(np.abs(table.logits) > 1e300, 1, table.logits))
    along, v = jnp.cos(1 + z), table.v

    def step(_, row):
        return None, normalizations(*(array[None] for array in row))[0]

    def in_scan(z):
        return jnp.sum(jax.lax.scan(step, None, (z, along, table.y))[1])

    def outside(z):
        return jnp.sum(normalizations(z, along, table.y))

    given, expected = (jax.jit(lambda z, v, f=f: jax.jvp(jax.grad(f), (z,), (v,)))(z, v) for f in (in_scan, outside))
    np.testing.assert_allclose(given, expected, rtol=1e-11, atol=1e-13)


def test_the_second_derivative_of_a_logsumexp_of_nothing_within_a_scan():
    def total(z):
        return jnp.sum(jax.lax.scan(lambda _, row: (None, jnp.exp(stable_softmax.logsumexp(row))), None, z)[1])

    z = jnp.asarray([[-jnp.inf, -jnp.inf], [0.0, 0.0], [-jnp.inf, 1.0]])
    with jax.debug_nans(True):
        gradient, slope = jax.jit(lambda z: jax.jvp(jax.grad(total), (z,), (jnp.ones_like(z),)))(z)
    np.testing.assert_allclose(gradient, np.exp(z), rtol=1e-14)
    np.testing.assert_allclose(slope, np.exp(z), rtol=1e-14)
