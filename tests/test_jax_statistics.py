"""Statistics in JAX programs: folded by a scan, merged over a mesh by collectives, and their derivatives."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from loss_options import ALL_WITH_IDS, IGNORED, demanding_case

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


def scanned_with_options(logits, reference_answers, *, where, class_weights, z_loss, **options):
    """Return the losses from blocks of three classes, with the arguments of the loss."""

    def part(first, width):
        own = (jax.lax.dynamic_slice_in_dim(array, first, width, axis=-1) for array in (logits, where, class_weights))
        logits_, where_, weights = own
        return softmax_statistics(
            logits_, reference_answers, first_class=first, where=where_, class_weights=weights, **options
        )

    def step(statistics, first):
        return statistics.merge(part(first, 3)), None

    return jax.lax.scan(step, part(0, 0), 3 * jnp.arange(4))[0].crossentropy(z_loss=z_loss)


def on_mesh_with_options(logits, reference_answers, *, where, class_weights, example_weights, z_loss, **options):
    """Return the losses of logits whose classes are split over four devices, with the arguments of the loss."""
    numbers = {"label_smoothing": jnp.asarray(options.pop("label_smoothing")), "z_loss": jnp.asarray(z_loss)}

    def losses(logits, reference_answers, where, class_weights, example_weights, numbers):
        part = softmax_statistics(
            logits,
            reference_answers,
            first_class=jax.lax.axis_index("model") * logits.shape[1],
            where=where,
            class_weights=class_weights,
            example_weights=example_weights,
            label_smoothing=numbers["label_smoothing"],
            **options,
        )
        collectives = (partial(f, axis_name="model") for f in (jax.lax.pmax, jax.lax.psum))
        return part.merge_over(*collectives).crossentropy(z_loss=numbers["z_loss"])

    rows, classes, whole = PartitionSpec(None, "model"), PartitionSpec("model"), PartitionSpec()
    return jax.shard_map(losses, in_specs=(rows, whole, rows, classes, whole, whole), out_specs=whole)(
        logits, reference_answers, where, class_weights, example_weights, numbers
    )


def derivatives_in_every_argument(losses, case):
    """Return losses, gradients and the gradients' slopes, with respect to logits, weights and numbers."""
    smooth, rest = case.arguments(jnp.asarray)
    numbers = {name: rest.pop(name) for name in ("label_smoothing", "z_loss")}

    def total(smooth, numbers):
        values = losses(**smooth, **rest, **numbers)
        return jnp.sum(jnp.where(jnp.isfinite(values), values, 0)), values

    def program(smooth, numbers):
        gradient = jax.grad(total, (0, 1), has_aux=True)
        along = jax.tree.map(lambda array: jnp.cos(jnp.clip(array, -9, 9)), (smooth, numbers))
        primal, slope, values = jax.jvp(gradient, (smooth, numbers), along, has_aux=True)
        return values, primal, slope

    return jax.jit(program)(smooth, jax.tree.map(jnp.asarray, numbers))


def assert_same_derivatives(losses, case):
    given, expected = (
        derivatives_in_every_argument(f, case) for f in (losses, stable_softmax.softmax_crossentropy_with_logits)
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-13), given, expected)


def test_derivatives_with_all_options_are_those_of_all_classes_at_once():
    assert_same_derivatives(scanned_with_options, demanding_case(ALL_WITH_IDS, 24, 12, "float64"))


@pytest.mark.meshes
def test_derivatives_with_all_options_on_several_devices():
    with jax.set_mesh(jax.make_mesh((4,), ("model",), axis_types=(AxisType.Auto,))):
        assert_same_derivatives(on_mesh_with_options, demanding_case(ALL_WITH_IDS, 24, 12, "float64"))


def test_debuggers_find_no_nan_in_ignored_examples():
    logits = jnp.asarray([[np.nan, np.inf, 0.0, 1.0], [0.0, 1.0, 2.0, 3.0]], "float32")
    class_ids = jnp.asarray([IGNORED, 2])

    def mean(z):
        parts = [
            softmax_statistics(half, class_ids, first_class=i, ignore_index=IGNORED, label_smoothing=0.1)
            for i, half in zip((0, 2), jnp.split(z, 2, axis=1), strict=True)
        ]
        return parts[0].merge(parts[1]).crossentropy(reduction="mean", z_loss=0.1)

    with jax.debug_nans(True):
        loss, gradient = jax.jit(jax.value_and_grad(mean))(logits)
    expected = stable_softmax.value_and_grad_softmax_crossentropy_with_logits(
        logits, class_ids, ignore_index=IGNORED, label_smoothing=0.1, z_loss=0.1, reduction="mean"
    )
    np.testing.assert_allclose(loss, expected[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-5)
