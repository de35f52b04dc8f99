"""Statistics in JAX programs: folded by a scan, merged over a mesh by collectives, and their derivatives."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import stable_softmax
from stable_softmax import softmax_statistics
from stable_softmax.reference.bounds import error_shares
from stable_softmax.reference.exact import exact_rows

pytestmark = [pytest.mark.covering, pytest.mark.versioned]

BLOCKS = 4
CLASSES = 24


def rows(dtype="float64"):
    """Return rows whose label leads by far, leads hardly, or does not; with ties, and with what is impossible."""
    rng = np.random.default_rng(4)
    logits, class_ids = rng.normal(size=(8, CLASSES)) * 3, rng.integers(0, CLASSES, size=8)
    logits[np.arange(8), class_ids] += np.asarray([60, 30, 0, 0, 3, 0, 0, 0])
    logits[5:7] = np.round(logits[5:7])
    logits[7] = np.where(np.arange(CLASSES) % 8 < 4, -np.inf, logits[7])
    logits[7, class_ids[7]] = 0
    return logits.astype(dtype), class_ids


def scanned(logits, reference_answers):
    """Return the losses from blocks of classes, of which one at a time is looked at."""
    width = logits.shape[1] // BLOCKS

    def step(statistics, block):
        part = jax.lax.dynamic_slice_in_dim(logits, block * width, width, axis=1)
        return statistics.merge(softmax_statistics(part, reference_answers, first_class=block * width)), None

    nothing = softmax_statistics(logits[:, :0], reference_answers)
    return jax.lax.scan(step, nothing, jnp.arange(BLOCKS))[0].crossentropy()


def over_mesh(mesh):
    """Return the losses of logits whose classes are split over the devices of a mesh."""

    @partial(
        jax.shard_map, mesh=mesh, in_specs=(PartitionSpec(None, "model"), PartitionSpec()), out_specs=PartitionSpec()
    )
    def losses(logits, reference_answers):
        first_class = jax.lax.axis_index("model") * logits.shape[1]
        part = softmax_statistics(logits, reference_answers, first_class=first_class)
        return part.merge_over(
            partial(jax.lax.pmax, axis_name="model"), partial(jax.lax.psum, axis_name="model")
        ).crossentropy()

    return losses


def placed(mesh, logits, reference_answers):
    classes, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec(None, "model"), PartitionSpec()))
    return jax.device_put(logits, classes), jax.device_put(reference_answers, whole)


def with_derivatives(losses):
    """Return losses, gradient and curvature, by reverse mode, and by forward mode over it."""

    def program(logits, reference_answers):
        gradient = jax.grad(lambda z: jnp.sum(losses(z, reference_answers)))
        return losses(logits, reference_answers), *jax.jvp(gradient, (logits,), (jnp.cos(jnp.maximum(logits, -9)),))

    return program


def whole(logits, reference_answers):
    return stable_softmax.softmax_crossentropy_with_logits(logits, reference_answers)


def assert_same_digits(given, expected):
    for result, same in zip(given, expected, strict=True):
        np.testing.assert_allclose(result, same, rtol=1e-13, atol=0)


def test_a_scan_over_blocks_of_classes_keeps_the_digits_of_loss_gradient_and_curvature():
    logits, class_ids = rows()
    assert_same_digits(
        jax.jit(with_derivatives(scanned))(logits, class_ids), jax.jit(with_derivatives(whole))(logits, class_ids)
    )


def test_a_scan_keeps_the_contract_in_single_precision():
    logits, class_ids = rows("float32")
    exact = exact_rows(logits, class_ids)
    losses, gradient, _ = jax.jit(with_derivatives(scanned))(logits, class_ids)
    wide = logits.astype(np.float64)
    wide[7] = np.maximum(wide[7], -50)  # a span for the bound
    assert error_shares(np.asarray(losses), exact.crossentropy, wide, "float32").max() <= 1
    # The derivative of a merged part passes one product more for each merge.
    assert error_shares(np.asarray(gradient), exact.gradient, wide, "float32").max() <= 1


@pytest.mark.meshes
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_classes_on_several_devices_keep_the_digits_of_loss_gradient_and_curvature(kind):
    mesh = jax.make_mesh((4,), ("model",), axis_types=(kind,))
    arrays = rows()
    expected = jax.jit(with_derivatives(whole))(*arrays)
    with jax.set_mesh(mesh):
        compiled = jax.jit(with_derivatives(over_mesh(mesh))).lower(*placed(mesh, *arrays)).compile()
        assert_same_digits(compiled(*placed(mesh, *arrays)), expected)


@pytest.mark.meshes
def test_the_loss_takes_two_collectives_of_the_size_of_the_examples():
    mesh = jax.make_mesh((4,), ("model",), axis_types=(AxisType.Auto,))
    arrays = placed(mesh, *rows("float32"))
    program = jax.jit(over_mesh(mesh)).lower(*arrays).compile().as_text()
    assert re.findall(r"= (\S+) all-reduce\(", program) == ["f32[8]{0}", "f32[8,8]{1,0}"]
    assert not re.findall(r"all-gather|all-to-all|collective-permute", program)


def test_debuggers_find_no_nan_where_there_is_none():
    logits, class_ids = rows()
    with jax.debug_nans(True):
        losses, gradient, _ = jax.jit(with_derivatives(scanned))(logits, class_ids)
    assert np.all(np.isfinite(losses))
    assert np.all(np.isfinite(gradient))


def test_impossible_rows_have_derivative_zero():
    logits = jnp.full((2, CLASSES), -jnp.inf)

    def total(z):
        parts = [softmax_statistics(half) for half in jnp.split(z, 2, axis=1)]
        return jnp.sum(parts[0].merge(parts[1]).logsumexp())

    np.testing.assert_array_equal(jax.grad(total)(logits), np.zeros(logits.shape))
