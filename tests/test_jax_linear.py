"""The loss of projected features in JAX programs: derivatives of every order, exports, and meshes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from linear_forms import CLASSES, EXAMPLES, FEATURES, in_blocks, of_logits

from stable_softmax import linear_softmax_crossentropy, value_and_grad_linear_softmax_crossentropy

pytestmark = pytest.mark.versioned

EPS = np.finfo(np.float64).eps


def drawn(examples=EXAMPLES):
    rng = np.random.default_rng(0)
    shapes = (examples, FEATURES), (CLASSES, FEATURES), (CLASSES,)
    features, weight, bias = (rng.normal(size=shape) for shape in shapes)
    return features, weight, bias, rng.integers(0, CLASSES, size=examples)


def all_derivatives(loss, **options):
    """Return a program for the derivatives of first order, and those of second in both modes over reverse mode."""

    def total(features, weight, bias, answers):
        losses = loss(features, weight, bias, answers, **options)
        return jnp.sum(losses * jnp.sin(jnp.arange(1.0, losses.size + 1).reshape(losses.shape)))

    gradient = jax.grad(total, (0, 1, 2))

    def program(*arrays):
        vectors = [jnp.cos(array) for array in arrays[:3]]
        floating = lambda *first: gradient(*first, arrays[3])  # noqa: E731
        first, forward = jax.jvp(floating, arrays[:3], tuple(vectors))
        return first, forward, jax.vjp(floating, *arrays[:3])[1](tuple(vectors))

    return jax.jit(program)


def assert_same(given, expected, units=1000):
    for result, same in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(result, same, rtol=units * EPS, atol=units * EPS)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reduction": "none"},
        pytest.param({"reduction": "sum", "softcap": 2.0}, marks=pytest.mark.thorough),
        pytest.param({"ignore_index": 3, "label_smoothing": 0.1, "z_loss": 0.1}, marks=pytest.mark.thorough),
    ],
    ids=str,
)
def test_derivatives_are_those_by_way_of_all_logits(options):
    arrays = drawn()
    assert_same(
        all_derivatives(in_blocks, block_size=7, **options)(*arrays), all_derivatives(of_logits, **options)(*arrays)
    )


def test_derivatives_with_respect_to_options_arrays():
    def gradient(loss):
        def of_all(features, weight, bias, class_weights, example_weights, z_loss, smoothing):
            options = {"class_weights": class_weights, "z_loss": z_loss, "label_smoothing": smoothing}
            return loss(features, weight, bias, answers, block_size=7, example_weights=example_weights, **options)

        return jax.jit(jax.grad(of_all, tuple(range(7))))

    *floating, answers = drawn()
    arrays = (*floating, np.linspace(0.5, 2, CLASSES), np.linspace(0.1, 3, len(answers)), 0.1, 0.2)
    assert_same(gradient(in_blocks)(*arrays), gradient(of_logits)(*arrays))


def test_vmap_over_a_batch_of_batches():
    features, weight, bias, answers = drawn()
    batches = features.reshape(4, 10, FEATURES), answers.reshape(4, 10)

    def gradients(loss):
        one = lambda x, y: jax.value_and_grad(loss, (0, 1))(x, weight, bias, y, block_size=3)  # noqa: E731
        return jax.jit(jax.vmap(one))(*batches)

    assert_same(gradients(in_blocks), gradients(of_logits))


def test_one_exported_program_serves_all_sizes():
    sizes = examples, features, classes = export.symbolic_shape("examples, features, classes")
    assert len(sizes) == 3
    shapes = ((examples, features), float), ((classes, features), float), ((classes,), float), ((examples,), int)
    program = jax.jit(jax.value_and_grad(in_blocks, (0, 1, 2)))
    exported = export.export(program)(*(jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes))
    for number in (EXAMPLES, 1):
        assert_same(exported.call(*drawn(number)), jax.jit(jax.value_and_grad(of_logits, (0, 1, 2)))(*drawn(number)))


@pytest.mark.covering
@pytest.mark.meshes
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_rows_and_classes_on_several_devices(kind):
    arrays = drawn()
    expected = jax.jit(jax.value_and_grad(of_logits, (0, 1, 2)))(*arrays)
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(kind,) * 2)
    splits = {
        "examples": (P("data"), P(), P(), P("data")),
        "classes": (P(), P("model"), P("model"), P()),
        "both": (P("data"), P("model"), P("model"), P("data")),
    }
    program = jax.jit(jax.value_and_grad(partial(in_blocks, block_size=9), (0, 1, 2)))
    with jax.set_mesh(mesh):
        for specs in splits.values():
            placed = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(arrays, specs, strict=True)]
            assert_same(program(*placed), expected)


@pytest.mark.meshes
def test_each_device_sweeps_its_own_examples():
    """So that the gradient of the weight crosses between devices once, and not for each block."""
    arrays = drawn()
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    @partial(jax.shard_map, mesh=mesh, in_specs=(P("data"), P(), P(), P("data")), out_specs=P())
    def mean(features, weight, bias, answers):
        return jax.lax.pmean(in_blocks(features, weight, bias, answers, block_size=4), "data")

    program = jax.jit(jax.value_and_grad(mean, (0, 1, 2)))
    assert_same(program(*arrays), jax.jit(jax.value_and_grad(of_logits, (0, 1, 2)))(*arrays))


def test_debuggers_find_no_nan_where_there_is_none():
    features, weight, bias, answers = drawn()
    features[answers == 3] = 1e6
    with jax.debug_nans(True):
        loss, gradients = jax.jit(jax.value_and_grad(partial(in_blocks, block_size=7, ignore_index=3), (0, 1, 2)))(
            features, weight, bias, answers
        )
    assert all(np.all(np.isfinite(array)) for array in (loss, *gradients))


def test_the_logits_of_all_examples_are_never_there():
    """The memory that XLA plans, for 64 times as many rows as a block has: that of a few blocks, and of the weight."""
    shapes = jax.ShapeDtypeStruct((4096, 16), "float32"), jax.ShapeDtypeStruct((8192, 16), "float32")
    answers = jax.ShapeDtypeStruct((4096,), "int32")
    for reduction in ("mean", "none"):
        program = jax.jit(
            jax.grad(
                lambda x, w, y, r=reduction: jnp.sum(linear_softmax_crossentropy(x, w, y, reduction=r, block_size=64)),
                (0, 1),
            )
        )
        planned = program.lower(*shapes, answers).compile().memory_analysis()
        assert planned.temp_size_in_bytes < 8 * 4 * 64 * 8192 < 4 * 4096 * 8192 / 4


@pytest.mark.parametrize("narrow", ["float16", pytest.param("bfloat16", marks=pytest.mark.thorough)])
@pytest.mark.parametrize(
    ("reduction", "size", "scale"), [("mean", 2.0**-15, 2.0**16), ("sum", 2.0**13, 2.0**-4), ("none", 2.0**13, 2.0**-4)]
)
def test_gradients_are_rounded_once_after_they_are_scaled(narrow, reduction, size, scale):
    """Before that, some are beyond the smallest and the largest number of float16."""
    features, weight, bias, answers = drawn(512)
    arrays = [jnp.asarray(a, narrow) for a in (features * size, weight * min(size, 2.0**-12), bias)]

    def total(*arrays):
        return in_blocks(*arrays, answers, reduction=reduction, block_size=16, dtype="float32").sum()

    def scaled(*arrays):
        return total(*arrays) * scale

    def gradients_of_projection(*arrays):
        return jax.vjp(total, *arrays)[1](jnp.float32(scale))

    expected = jax.grad(lambda *arrays: of_logits(*arrays, answers, reduction=reduction).sum(), (0, 1, 2))(
        *(array.astype(float) for array in arrays)
    )
    gradient, limits = jax.grad(scaled, (0, 1, 2)), jnp.finfo(narrow)
    for function in (gradient, jax.jit(gradient), gradients_of_projection, jax.jit(gradients_of_projection)):
        for given, same in zip(function(*arrays), expected, strict=True):
            assert given.dtype == narrow
            # Half a unit of the last digit, and what single precision adds.
            half = 0.51 * float(limits.eps)
            atol = half * max(float(limits.smallest_normal), 1e-3 * scale * float(abs(same).max()))
            np.testing.assert_allclose(given.astype(float), same * scale, rtol=half, atol=atol)


@pytest.mark.parametrize("block_size", [7, 100])
@pytest.mark.parametrize(("argument", "number"), [(0, 2), (1, 2), (2, 1), ((0, 1, 2), 3)])
def test_what_does_not_change_takes_no_product(argument, number, block_size):
    """Of one block, or of each step of the scan and of the rest."""
    arrays = drawn(42)
    arguments = argument if isinstance(argument, tuple) else (argument,)

    def slope(*vectors):
        def loss(*variables):
            given = dict(enumerate(arrays)) | dict(zip(arguments, variables, strict=True))
            return in_blocks(*given.values(), block_size=block_size)

        return jax.jvp(loss, tuple(arrays[i] for i in arguments), vectors)

    vectors = [np.cos(arrays[i]) for i in arguments]
    for program, given in ((slope, vectors), (jax.grad(partial(in_blocks, block_size=block_size), argument), arrays)):
        assert jax.jit(program).lower(*given).as_text().count("stablehlo.dot_general") == number


def test_outside_of_jit_each_program_is_compiled_once(caplog):
    features, weight, bias, answers = (jnp.asarray(array) for array in drawn(41))

    def run(features):
        value_and_grad_linear_softmax_crossentropy(features, weight, answers, bias, block_size=7)
        for reduction in ("none", "mean"):
            loss = partial(in_blocks, reduction=reduction, block_size=7, label_smoothing=0.1)
            loss(features, weight, bias, answers)
            jax.grad(lambda *arrays, loss=loss: loss(*arrays, answers).sum(), (0, 1))(features, weight, bias)

    run(features)
    other = features + 1
    with jax.log_compiles():
        run(other)
    assert [record.message for record in caplog.records if record.message.startswith("Compiling")] == []


@pytest.mark.covering
@pytest.mark.meshes
@pytest.mark.parametrize(
    "placed",
    [
        "classes",
        "all but the bias",
        *(pytest.param(name, marks=pytest.mark.thorough) for name in ("examples", "features of a plain weight")),
    ],
)
def test_arrays_on_an_explicit_mesh_beside_arrays_on_none(placed):
    arrays = drawn()
    expected = jax.jit(jax.value_and_grad(of_logits, (0, 1, 2)))(*arrays)
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    specs = {
        "examples": (P("data"), None, None, P("data")),
        "classes": (None, P("model"), P("model"), None),
        "features of a plain weight": (P("data"), None, None, None),
        "all but the bias": (P("data"), P("model"), None, P("data")),
    }[placed]
    arrays = [
        jnp.asarray(array) if spec is None else jax.device_put(array, NamedSharding(mesh, spec))
        for array, spec in zip(arrays, specs, strict=True)
    ]
    with jax.set_mesh(mesh):
        for block_size in (7, 100):
            loss = partial(in_blocks, block_size=block_size)
            explicit = partial(value_and_grad_linear_softmax_crossentropy, block_size=block_size)
            assert_same(jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*arrays), expected)
            assert_same(jax.jit(explicit)(*arrays[:2], arrays[3], arrays[2]), expected)
        # Outside of jit, too.
        assert_same(jax.value_and_grad(loss, (0, 1, 2))(*arrays), expected)
        assert_same(explicit(*arrays[:2], arrays[3], arrays[2]), expected)
