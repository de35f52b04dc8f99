"""What JAX programs do around the functions: exports for all sizes, meshes, strict promotion, 64 bits on and off."""

import contextlib
from functools import cache, partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import stable_softmax
from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    hessian_diagonal_softmax_crossentropy_with_logits,
    hvp_softmax_crossentropy_with_logits,
    softmax_crossentropy_with_logits,
    value_and_grad_softmax_crossentropy_with_logits,
)

pytestmark = [pytest.mark.covering, pytest.mark.versioned]

EPS = np.finfo(np.float64).eps
DIAGONAL = hessian_diagonal_softmax_crossentropy_with_logits
BOTH = value_and_grad_softmax_crossentropy_with_logits
NORMALIZATIONS = {
    name: getattr(stable_softmax, name) for name in ("softmax", "log_softmax", "log_softmax_complement", "logsumexp")
}


def drawn(examples=8, classes=12):
    """Return whatever a loss may be called with."""
    rng = np.random.default_rng(15)
    class_ids = rng.integers(0, classes, size=examples)
    where = (rng.random((examples, classes)) < 0.8) | (np.arange(classes) == class_ids[:, None])
    return {
        "logits": rng.normal(size=(examples, classes)),
        "class_ids": class_ids,
        "probabilities": rng.dirichlet(np.ones(classes), size=examples),
        "where": where,
        "class_weights": rng.random(classes) + 0.1,
    }


def losses(reduction="mean"):
    """Return functions of arrays by name, which between them use every option, and the names that they use."""
    everything = {"label_smoothing": 0.1, "z_loss": 0.1}
    calls = {
        "ids": (("class_ids",), {}),
        "probabilities": (("probabilities",), {}),
        "all, ids": (("class_ids", "where", "class_weights"), {**everything, "ignore_index": 3}),
        "all, probabilities": (("probabilities", "where", "class_weights"), everything),
    }

    def called(function, options, arrays):
        answers = arrays.get("class_ids", arrays.get("probabilities"))
        named = {name: arrays[name] for name in ("where", "class_weights") if name in arrays}
        return function(arrays["logits"], answers, **named, **options, reduction=reduction)

    def autodiff(function, options, arrays):
        return jax.grad(lambda z: jnp.sum(called(function, options, arrays | {"logits": z})))(arrays["logits"])

    def product_(options, arrays):
        vectors = lambda z, y, **rest: hvp_softmax_crossentropy_with_logits(z, y, jnp.cos(z), **rest)  # noqa: E731
        return called(vectors, options, arrays)

    def curvature(options, arrays):
        gradient = lambda z: autodiff(softmax_crossentropy_with_logits, options, arrays | {"logits": z})  # noqa: E731
        return jax.jvp(gradient, (arrays["logits"],), (jnp.cos(arrays["logits"]),))[1]

    for name, (needed, options) in calls.items():
        yield f"both, {name}", ("logits", *needed), partial(called, BOTH, options)
        yield f"grad, {name}", ("logits", *needed), partial(autodiff, softmax_crossentropy_with_logits, options)
        yield f"product, {name}", ("logits", *needed), partial(product_, options)
        yield f"diagonal, {name}", ("logits", *needed), partial(called, DIAGONAL, options)
    yield "curvature", ("logits", "class_ids"), partial(curvature, {})


def normalizations():
    for name, function in NORMALIZATIONS.items():
        yield name, ("logits",), lambda arrays, f=function: f(arrays["logits"])
        yield f"{name}, all axes", ("logits",), lambda arrays, f=function: f(arrays["logits"], axis=None)
        masked = lambda arrays, f=function: f(arrays["logits"], where=arrays["where"])  # noqa: E731
        yield f"{name}, where", ("logits", "where"), masked
        total = lambda z, f=function: jnp.sum(jnp.cos(f(z)))  # noqa: E731
        yield f"{name}, grad", ("logits",), lambda arrays, t=total: jax.grad(t)(arrays["logits"])


def weighted_sums():
    def called(arrays):
        return stable_softmax.logsumexp(
            arrays["logits"], weights=jnp.cos(arrays["logits"]), where=arrays["where"], return_sign=True
        )

    def curvature(arrays):
        given = arrays["logits"], arrays["class_weights"]
        gradient = jax.grad(lambda z, w: jnp.sum(stable_softmax.logsumexp(z, weights=w)), (0, 1))
        return jax.jvp(gradient, given, tuple(map(jnp.cos, given)))

    yield "logsumexp, weights", ("logits", "where"), called
    yield "logsumexp, weights, curvature", ("logits", "class_weights"), curvature


def comparisons():
    """Probabilities take the place of reference logits."""
    needed = ("logits", "probabilities", "where")
    for name in ("entropy", "kl_divergence", "js_divergence"):
        value, both = (getattr(stable_softmax, f"{kind}softmax_{name}") for kind in ("", "value_and_grad_"))
        count = 1 if name == "entropy" else 2

        def called(arrays, f=both, count=count):
            return f(*(arrays[key] for key in needed[:count]), where=arrays["where"])

        def curvature(arrays, f=value, count=count):
            given = tuple(arrays[key] for key in needed[:count])
            gradient = jax.grad(lambda *given: f(*given, reduction="sum"), tuple(range(count)))
            return jax.jvp(gradient, given, tuple(map(jnp.cos, given)))

        yield name, needed, called
        yield f"{name}, curvature", needed[:count], curvature


FUNCTIONS = {
    name: (needed, function)
    for name, needed, function in [*normalizations(), *weighted_sums(), *losses(), *comparisons()]
}


def all_of(functions):
    """Return a function of arrays by name with the results of all functions, by theirs: one program for a compiler."""
    return lambda arrays: {
        name: function({key: arrays[key] for key in needed}) for name, (needed, function) in functions.items()
    }


EVERYTHING = all_of(FUNCTIONS)
#: What is called outside of jit, where each operation is compiled alone.
SOME = all_of(
    {
        name: FUNCTIONS[name]
        for name in FUNCTIONS
        if "all, ids" in name or name in ("curvature", "js_divergence", "logsumexp, weights", *NORMALIZATIONS)
    }
)


@cache
def results(*size):
    """Return what everything drawn gives under jit, on one device."""
    return jax.device_get(jax.jit(EVERYTHING)(drawn(*size)))


def assert_same(given, expected, units=64):
    for (path, result), same in zip(jax.tree.leaves_with_path(given), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(result, same, rtol=units * EPS, atol=units * EPS, err_msg=str(path))


@pytest.mark.thorough
def test_one_exported_program_serves_all_sizes():
    examples, classes = export.symbolic_shape("examples, classes")
    shapes = {"class_ids": (examples,), "class_weights": (classes,)}
    symbolic = {
        key: jax.ShapeDtypeStruct(shapes.get(key, (examples, classes)), array.dtype) for key, array in drawn().items()
    }
    exported = export.export(jax.jit(EVERYTHING))(symbolic)
    for size in ((8, 12), (1, 4)):
        assert_same(exported.call(drawn(*size)), results(*size))


@pytest.mark.thorough
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_exported_losses_of_other_reductions(reduction):
    (examples,) = export.symbolic_shape("examples")
    function, arrays = all_of({name: rest for name, *rest in losses(reduction)}), drawn(6, 5)
    symbolic = {
        key: jax.ShapeDtypeStruct(array.shape if key == "class_weights" else (examples, *array.shape[1:]), array.dtype)
        for key, array in arrays.items()
    }
    exported = export.export(jax.jit(function))(symbolic)
    assert_same(exported.call(arrays), jax.jit(function)(arrays))


@pytest.mark.meshes
def test_classes_on_several_devices():
    """JAX's default meshes have explicit axes, where to gather classes is an error."""
    z, y = (jnp.asarray(drawn()[name]) for name in ("logits", "class_ids"))
    expected = BOTH(z, y)
    with jax.set_mesh(jax.make_mesh((2, 2), ("rows", "columns"), axis_types=(AxisType.Explicit,) * 2)):
        specs = PartitionSpec("rows", "columns"), PartitionSpec("rows")
        assert_same(jax.jit(BOTH)(*map(jax.device_put, (z, y), specs)), expected)


SPLITS = {"examples": ("rows", None), "classes": (None, "columns"), "both": ("rows", "columns")}


@pytest.mark.meshes
@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "split"), [("Auto", "examples"), ("Auto", "classes"), ("Explicit", "both")])
def test_sharded_arrays_outside_and_inside_of_jit(kind, split):
    """With two axes of devices."""
    rows, columns = SPLITS[split]
    mesh = jax.make_mesh((2, 2), ("rows", "columns"), axis_types=(AxisType[kind],) * 2)
    specs = {"class_ids": PartitionSpec(rows), "class_weights": PartitionSpec(columns)}
    sharded = {
        key: jax.device_put(array, NamedSharding(mesh, specs.get(key, PartitionSpec(rows, columns))))
        for key, array in drawn().items()
    }
    expected = results()
    if split == "both":
        with contextlib.nullcontext() if kind == "Auto" else jax.set_mesh(mesh):  # the arrays alone tell of the mesh
            some = SOME(sharded)
        assert_same(some, {name: expected[name] for name in some})
    with jax.set_mesh(mesh):
        assert_same(jax.jit(EVERYTHING)(sharded), expected)


@pytest.mark.thorough
def test_strict_promotion():
    narrow = "float32"
    arrays = {
        key: jnp.asarray(array, narrow if array.dtype.kind == "f" else None) for key, array in drawn(3, 4).items()
    }
    expected = [*jax.tree.leaves(jax.jit(EVERYTHING)(arrays)), *jax.tree.leaves(SOME(arrays))]
    with jax.numpy_dtype_promotion("strict"):
        given = [*jax.tree.leaves(jax.jit(lambda arrays: EVERYTHING(arrays))(arrays)), *jax.tree.leaves(SOME(arrays))]
    for values, same in zip(given, expected, strict=True):
        assert values.dtype == narrow
        np.testing.assert_array_equal(values, same)


@pytest.mark.thorough
def test_numpy_arrays_beside_those_of_jax():
    """Outside and inside of `grad` and `jit`, where the logits alone are JAX's."""
    arrays = drawn()
    z = jnp.asarray(arrays["logits"])
    some = SOME(arrays | {"logits": z})
    assert_same(some, {name: results()[name] for name in some})
    assert_same(jax.jit(lambda z: EVERYTHING(arrays | {"logits": z}))(z), results())
    loss = partial(softmax_crossentropy_with_logits, reference_answers=arrays["class_ids"], reduction="mean")
    assert_same(jax.grad(loss)(z), grad_softmax_crossentropy_with_logits(z, jnp.asarray(arrays["class_ids"])))


@pytest.mark.parametrize("value", [2**32, -(2**32), 2**40 + 1, 2**63 - 1, np.uint64(2**63)])
def test_ids_of_numpy_that_jax_would_cut_stay_out_of_range(library, value):
    with library.in_32_bits():
        losses = softmax_crossentropy_with_logits(jnp.zeros((1, 3)), np.asarray([value]))
    assert np.isnan(losses[0])


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype:UserWarning")
@pytest.mark.parametrize("first", [True, False])
def test_no_call_remembers_the_mode_of_another(library, first):
    """Results of 64 bits have all their digits after a call with 64 bits off, and before."""
    z, y = jnp.asarray([[1e9, 1e9 - 1]]), jnp.asarray([0])
    calls = [stable_softmax.log_softmax, stable_softmax.softmax, lambda z: softmax_crossentropy_with_logits(z, y)]
    calls += [lambda z: BOTH(z, y, z_loss=1e-9)[1], lambda z: jax.jit(stable_softmax.log_softmax)(z)]
    expected = [np.asarray(call(z)) for call in calls] if first else None
    with library.in_32_bits():
        for call in calls:
            assert call(z).dtype in ("float32", "float64")
            assert call(jnp.asarray([[1.0, 0.0]])).dtype == "float32"
    for i, call in enumerate(calls):
        result = call(z)
        assert result.dtype == "float64"
        if first:
            np.testing.assert_array_equal(result, expected[i])
    np.testing.assert_allclose(stable_softmax.log_softmax(z)[0], [-np.log1p(np.exp(-1)), -np.log1p(np.exp(1))])


@pytest.mark.parametrize("compiled", [pytest.param(False, marks=pytest.mark.thorough), True])
def test_smoothing_and_penalty_may_be_traced(compiled):
    """As schedules have them; out of range they make everything NaN, since nothing can be read."""
    arrays = drawn()
    z, answers = jnp.asarray(arrays["logits"]), (arrays["class_ids"], arrays["probabilities"])

    def loss(smoothing, penalty, y):
        options = {"label_smoothing": smoothing, "z_loss": penalty, "reduction": "mean"}
        return BOTH(z, y, class_weights=arrays["class_weights"], where=arrays["where"], **options)

    def slopes_of(*numbers_and_answers):
        return jax.grad(lambda *given: loss(*given)[0], argnums=(0, 1))(*numbers_and_answers)

    function, slopes_of = (jax.jit(f) if compiled else f for f in (loss, slopes_of))
    for y, numbers in [*product(answers, [(0.1, 0.1)]), *product(answers[:1], [(0.0, 0.0), (1.0, 2.0)])]:
        as_arrays = tuple(map(jnp.asarray, numbers))
        assert_same(function(*as_arrays, y), jax.jit(partial(loss, *numbers))(y))
        for i, slope in enumerate(slopes_of(*as_arrays, y)):
            assert np.isfinite(slope)
            if 0.1 <= numbers[i] <= 0.5:
                step = 1e-6 * np.eye(2)[i]
                (up, _), (down, _) = (function(*map(jnp.asarray, numbers + sign * step), y) for sign in (1, -1))
                np.testing.assert_allclose(slope, (up - down) / 2e-6, rtol=1e-7)
        for bad in ((-0.1, 0.1), (1.1, 0.1), (0.1, -1.0), (0.1, np.inf), (np.nan, 0.1)):
            value, gradient = function(*map(jnp.asarray, bad), y)
            assert np.isnan(value)
            assert np.all(np.isnan(gradient[arrays["where"]]))


@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_static_under_jit_says_so(axis):
    z = jnp.zeros((3, 3))
    with pytest.raises(TypeError, match=r"^axis must be .*: make it static under jit"):
        jax.jit(stable_softmax.softmax)(z, axis)
    with pytest.raises(TypeError, match=r"^ignore_index must be .*: make it static under jit"):
        jax.jit(lambda i: softmax_crossentropy_with_logits(z, np.zeros(3, int), ignore_index=i))(axis)
