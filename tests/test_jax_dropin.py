"""The drop-ins for jax.nn and Optax beside these: same arguments, same results, and digits that they lose."""

import inspect
import warnings
from functools import partial
from itertools import product
from math import exp, log1p

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from stable_softmax.dropin import jax_nn
from stable_softmax.dropin import optax as dropin

pytestmark = pytest.mark.covering

EPS = np.finfo(np.float64).eps
#: Both sum up to 60 terms; the peers' logarithms are of numbers near 1, so that their errors are absolute.
CLOSE = {"rtol": 64 * EPS, "atol": 64 * EPS}
AXES = (None, 1, -1, (0, 2))
RNG = np.random.default_rng(7)
X = jnp.asarray(RNG.normal(size=(3, 4, 5)) * 4)
MASKS = (None, X > -3, X[:, :, :1] > 0)
DTYPES = ("bfloat16", "float16", "float32", "float64", "int32")
LOSSES = ("softmax_cross_entropy", "softmax_cross_entropy_with_integer_labels", "safe_softmax_cross_entropy")


@pytest.fixture
def optax():
    """Optax is not installed where the oldest JAX is tested, and no test of this file is needed there."""
    import optax

    return optax.losses


def described(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def once(function, *positional, **options):
    """Return what a function returns, from one program rather than one for each of its operations."""
    return jax.jit(lambda: function(*positional, **options))()


def pairs_of(name, ours, theirs, calls):
    """Yield the results of both for each tuple of arguments: all from one program, which is compiled once."""

    def every(function):
        return [function(*positional, **options) for positional, options in calls]

    yield from zip(*once(lambda: [every(getattr(module, name)) for module in (ours, theirs)]), strict=True)


@pytest.mark.parametrize("name", jax_nn.__all__)
def test_signatures_are_those_of_jax(name):
    assert described(getattr(jax_nn, name)) == described(getattr(jax.nn, name))
    assert described(jax_nn.logsumexp) == described(jax.scipy.special.logsumexp)


@pytest.mark.parametrize("name", dropin.__all__)
def test_signatures_are_those_of_optax(name, optax):
    assert described(getattr(dropin, name)) == described(getattr(optax, name))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_agrees_with_every_argument(name):
    calls = [((X, axis, where), {}) for axis, where in product(AXES, MASKS)]
    for result, expected in pairs_of(name, jax_nn, jax.nn, calls):
        np.testing.assert_allclose(result, expected, **CLOSE)


WEIGHTS = {"number": -1.5, "booleans": X > 0, "of any sign": X, "integers": jnp.arange(5), "NumPy": np.arange(5.0)}


@pytest.mark.parametrize("weights", [None, *WEIGHTS])
def test_logsumexp_agrees_with_every_argument(weights):
    names, b = ("axis", "keepdims", "return_sign", "where"), WEIGHTS.get(weights)
    values = product((*AXES, [0, 1]), (False, True), (False, True), MASKS[:2])
    calls = [((X,), {"b": b, **dict(zip(names, each, strict=True))}) for each in values]
    if weights is not None:
        calls = calls[::3]
    for result, expected in pairs_of("logsumexp", jax_nn, jax.nn, calls):
        for one, other in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
            assert one.shape == other.shape
            # Terms of both signs cancel, by less than three digits here.
            np.testing.assert_allclose(one, other, rtol=1e4 * EPS, atol=1e4 * EPS)


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize(
    "given", [3, 2.0, np.int8([1, 2]), np.int32([1, 2]), np.arange(3), np.float32([1, 2])], ids=repr
)
def test_numbers_and_numpy_arrays_give_what_jax_gives(given, x64):
    with jax.enable_x64(x64), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # JAX's own, when it starts a maximum of integers with -inf
        for name in jax_nn.__all__:
            ours, theirs = (partial(getattr(module, name), axis=None) for module in (jax_nn, jax.nn))
            assert jax.eval_shape(ours, given).dtype == jax.eval_shape(theirs, given).dtype
        assert isinstance(jax_nn.softmax(given, None), jax.Array)


def test_results_have_the_common_dtype(optax):
    def dtype_of(function, *arrays):
        return jax.eval_shape(function, *arrays).dtype

    def checked(name, ours, theirs, *arrays):
        assert dtype_of(getattr(ours, name), *arrays) == dtype_of(getattr(theirs, name), *arrays), (name, arrays)

    for first, second in product(DTYPES, DTYPES):
        a, b = jnp.zeros((2, 3), first), jnp.zeros((2, 3), second)
        for c in (b, 2.0) if first != "float16" else (b, 2, True):
            options = {"axis": None, "b": c}
            result, expected = (partial(module.logsumexp, **options) for module in (jax_nn, jax.nn))
            assert dtype_of(result, a) == dtype_of(expected, a)
        if "int" not in first:
            checked("softmax_cross_entropy", dropin, optax, a, b)
            checked("safe_softmax_cross_entropy", dropin, optax, a, b)
            checked("softmax_cross_entropy_with_integer_labels", dropin, optax, a, jnp.zeros(2, "int8"))
        if "int" not in first + second:
            checked("kl_divergence", dropin, optax, a, b)
            checked("kl_divergence_with_log_targets", dropin, optax, a, b)
    assert dtype_of(jax_nn.logsumexp, jnp.zeros(3, bool)) == dtype_of(jax.nn.logsumexp, jnp.zeros(3, bool))


def test_probabilities_agree_with_optax(optax):
    labels = jnp.asarray(RNG.dirichlet(np.ones(5), size=(3, 4)))
    one_hot = jnp.arange(5) == jnp.asarray(RNG.integers(0, 5, (3, 4, 1)))
    calls = [((X, labels, axis, where), {}) for axis, where in product(AXES, MASKS)]
    calls += [((X, given), {}) for given in (labels[0, 0], one_hot, one_hot.astype("int32"))]
    calls += [((X, labels), {"where": X[:, :, 0] > 0})]
    for result, expected in pairs_of("softmax_cross_entropy", dropin, optax, calls):
        np.testing.assert_allclose(result, expected, rtol=64 * EPS, atol=256 * EPS)


def test_class_ids_agree_with_optax(optax):
    calls = []
    for axis, batch, classes in [
        (-1, (3, 4), 5),
        (1, (3, 5), 4),
        (0, (4, 5), 3),
        ((1, 2), (3,), 20),
        ((2, 0), (4,), 15),
        ((0, 1, 2), (), 60),
    ]:
        labels, examples = jnp.asarray(RNG.integers(0, classes, batch)), jnp.asarray(RNG.random(batch) < 0.5)
        masks = None, examples, jnp.expand_dims(examples, axis), jnp.ones_like(X, bool)
        # Along axes out of order, Optax's masks have to have the shape of the logits.
        calls += [((X, labels, axis, where), {}) for where in (masks[::3] if isinstance(axis, tuple) else masks)]
    for result, expected in pairs_of("softmax_cross_entropy_with_integer_labels", dropin, optax, calls):
        np.testing.assert_allclose(result, expected, **CLOSE)


def test_examples_without_classes_have_no_loss_whatever_their_label_is(optax):
    where = jnp.asarray([[True, True, False], [False, False, False]])
    logits = jnp.asarray([[1.0, 2.0, jnp.nan], [jnp.nan, jnp.inf, 0.0]])

    def loss(module, z):
        return module.softmax_cross_entropy_with_integer_labels(z, jnp.asarray([0, 2]), where=where)

    expected = [log1p(exp(1)), 0]
    np.testing.assert_allclose(once(loss, optax, logits), expected, **CLOSE)
    np.testing.assert_allclose(once(loss, dropin, logits), expected, rtol=8 * EPS)
    slope = jax.jit(jax.grad(lambda z: loss(dropin, z).sum()))(logits)
    np.testing.assert_array_equal(slope == 0, [[False, False, True], [True, True, True]])


def test_losses_that_optax_tests_itself(optax):
    """Losses of large logits of both signs, alone and in a batch, and of impossible classes."""
    z = jnp.asarray([[10.0, 1.0, -2.0], [1.0, 4.0, 0.2]])
    ids, one_hot = jnp.asarray([1, 0]), jnp.eye(3)[jnp.asarray([1, 0])]
    for name, labels in zip(LOSSES, (one_hot, ids, one_hot), strict=True):
        for result, expected in pairs_of(name, dropin, optax, [((z, labels), {}), ((z[1], labels[1]), {})]):
            np.testing.assert_allclose(result, expected, **CLOSE)
    impossible = jnp.asarray([[0.0, 0.0, -jnp.inf]])
    labels = jnp.asarray([[0.5, 0.5, 0.0]])
    for function in (optax.safe_softmax_cross_entropy, dropin.safe_softmax_cross_entropy, dropin.softmax_cross_entropy):
        np.testing.assert_allclose(once(function, impossible, labels), [np.log(2)], rtol=4 * EPS)
    assert np.isnan(once(optax.softmax_cross_entropy, impossible, labels))
    assert once(dropin.softmax_cross_entropy_with_integer_labels, impossible, jnp.asarray([2])) == np.inf


def test_divergences_of_distributions_agree_with_optax(optax):
    calls = []
    for axis, where in product(AXES, MASKS[:2]):  # of which the second excludes what has no probability in either
        logits = (np.asarray(x if where is None else np.where(where, x, -np.inf)) for x in (X, X[::-1] / 2))
        predictions, targets = scipy.special.log_softmax(next(logits), axis), scipy.special.softmax(next(logits), axis)
        calls.append(((predictions, targets, axis, where), {}))
    calls.append(((scipy.special.log_softmax(X, -1), np.eye(5)[:4]), {}))
    for result, expected in pairs_of("kl_divergence", dropin, optax, calls):
        np.testing.assert_allclose(result, expected, **CLOSE)
    calls = [((p, np.log(t), *rest), {}) for (p, t, *rest), _ in calls[:-1:2]]
    for result, expected in pairs_of("kl_divergence_with_log_targets", dropin, optax, calls):
        np.testing.assert_allclose(result, expected, **CLOSE)


def test_divergences_have_the_gradient_of_optax_in_the_logits(optax):
    z, targets = X[0], jax.nn.softmax(X[1])
    ours, theirs = (
        jax.jit(jax.grad(lambda z, f=function: f(jax.nn.log_softmax(z), targets).sum()))(z)
        for function in (dropin.kl_divergence, optax.kl_divergence)
    )
    np.testing.assert_allclose(ours, theirs, **CLOSE)


def test_divergences_are_of_what_is_normalized(optax):
    unnormalized = jnp.asarray([0.5, 0.5]), jnp.asarray([2.0, 6.0])
    assert once(optax.kl_divergence, *unnormalized) > 8
    np.testing.assert_allclose(once(dropin.kl_divergence, *unnormalized), np.log(2) - 0.5623351446188083, rtol=16 * EPS)
    some = jnp.asarray([True, False])
    given = jnp.log(jnp.asarray([0.5, 0.5])), jnp.asarray([0.25, 0.75])
    assert once(optax.kl_divergence, *given, where=some) < 0
    assert once(dropin.kl_divergence, *given, where=some) == 0


def test_digits_that_the_peers_lose(optax):
    z = jnp.asarray([[20.0, 0.0]], "float32")
    right = log1p(exp(-20))
    single = 4 * np.finfo(np.float32).eps
    assert once(jax.nn.log_softmax, z)[0, 0] == 0
    np.testing.assert_allclose(-once(jax_nn.log_softmax, z)[0, 0], right, rtol=single)
    half = jnp.asarray([[40.0, 37.0]], "bfloat16")
    one_hot, ids = jnp.asarray([[1, 0]], "bfloat16"), jnp.asarray([0])
    for name, labels in zip(LOSSES, (one_hot, ids, one_hot), strict=True):
        ((result, expected),) = pairs_of(name, dropin, optax, [((z, labels), {})])
        assert expected == 0
        np.testing.assert_allclose(result, right, rtol=single)
        result = np.asarray(once(getattr(dropin, name), half, labels), float)
        np.testing.assert_allclose(result, log1p(exp(-3)), rtol=2**-8)
    assert once(optax.softmax_cross_entropy_with_integer_labels, half, ids) == 0


def test_divergence_of_what_nearly_agrees_keeps_digits(optax):
    """The log-probabilities are rounded already; what is left of them suffices for two digits."""
    near = RNG.normal(size=1000).astype("float32")
    other = near + RNG.normal(size=1000).astype("float32") * np.float32(1e-4)
    given = once(lambda: (jax.nn.log_softmax(jnp.asarray(near)), jax.nn.softmax(jnp.asarray(other))))
    p, q = (np.exp(z.astype(float)) / np.exp(z.astype(float)).sum() for z in (near, other))
    exact = (q * (np.log(q) - np.log(p))).sum()  # in float64, to seven digits
    assert abs(float(once(optax.kl_divergence, *given)) / exact - 1) > 0.3
    np.testing.assert_allclose(once(dropin.kl_divergence, *given), exact, rtol=0.02)


def test_what_the_peers_take_by_accident_is_nan_or_refused(optax):
    z, ids = jnp.zeros((2, 3)), "softmax_cross_entropy_with_integer_labels"
    excluded = jnp.asarray([[True, True, False]])
    calls = [((z, jnp.asarray([0, -1])), {}), ((z, jnp.asarray([2, 0])), {"where": excluded})]
    (impossible, by_optax), (hidden, beyond_the_mask) = pairs_of(ids, dropin, optax, calls)
    assert np.isfinite([by_optax, beyond_the_mask]).all()
    assert np.isnan([impossible, hidden]).tolist() == [[False, True], [True, False]]
    for labels in (jnp.zeros(2), jnp.zeros((2, 3))):
        for module in (optax, dropin):
            with pytest.raises(TypeError):
                module.softmax_cross_entropy_with_integer_labels(z, labels)
    for module in (optax, dropin):
        with pytest.raises((TypeError, ValueError)):
            module.softmax_cross_entropy_with_integer_labels(z, jnp.zeros(2, int), axis=None)
    negative = jnp.asarray([[2.0, -1.0, 0.0]])
    ((result, expected),) = pairs_of("softmax_cross_entropy", dropin, optax, [((jnp.zeros((1, 3)), negative), {})])
    assert np.isfinite(expected).all()
    assert np.isnan(result).all()
    with pytest.raises(TypeError):
        optax.softmax_cross_entropy(jnp.zeros((2, 3), int), z)
    assert once(dropin.softmax_cross_entropy, jnp.zeros((2, 3), int), z).dtype == z.dtype
    with pytest.raises(TypeError):
        jax_nn.softmax(jnp.zeros(3, "complex64"))
    for function in (jax.nn.softmax, jax_nn.softmax):
        with pytest.raises(TypeError):
            function(jnp.zeros(3, bool))
    assert once(jax.nn.logsumexp, z, ()).shape == z.shape
    with pytest.raises(ValueError, match="axis must name"):
        jax_nn.logsumexp(z, ())


def test_infinities_of_jax():
    inf = jnp.inf
    given = [[-inf, -inf], [inf, 0], [inf, inf], [inf, -inf]]

    def results(module):
        none = module.logsumexp(jnp.zeros((0, 3)), 0)
        return module.logsumexp(jnp.asarray(given), -1, return_sign=True), none

    for (logarithms, signs), none in once(lambda: [results(module) for module in (jax.nn, jax_nn)]):
        assert logarithms.tolist() == [-inf, inf, inf, inf]
        assert signs.tolist() == [0, 1, 1, 1]
        assert none.tolist() == [-inf] * 3
    ours, theirs = (once(jax.grad(module.logsumexp), jnp.asarray(given[0])) for module in (jax_nn, jax.nn))
    assert ours.tolist() == [0, 0]
    assert np.isnan(theirs).all()


CALLS = {
    "softmax": lambda module, z: module.softmax(z),
    "log_softmax": lambda module, z: module.log_softmax(z, where=z > -2),
    "logsumexp": lambda module, z: module.logsumexp(z, -1, b=jnp.arange(1, 6)),
    "softmax_cross_entropy": lambda module, z: module.softmax_cross_entropy(z, jnp.eye(5)[:4]),
    "softmax_cross_entropy_with_integer_labels": lambda module, z: module.softmax_cross_entropy_with_integer_labels(
        z, jnp.arange(4), where=z[:, 0] < 3
    ),
    "kl_divergence_with_log_targets": lambda module, z: module.kl_divergence_with_log_targets(
        jax.nn.log_softmax(z), jax.nn.log_softmax(z[::-1])
    ),
}


def test_derivatives_agree_under_jit_and_vmap(optax):
    def everything(normalizations, losses):
        def total(z, name):
            module = normalizations if hasattr(normalizations, name) else losses
            value = CALLS[name](module, z)
            return jnp.where(jnp.isfinite(value), jnp.sin(value), 0).sum()

        return jax.jit(jax.vmap(lambda z: [jax.value_and_grad(partial(total, name=name))(z) for name in CALLS]))(X)

    for (one, other), name in zip(
        zip(everything(jax_nn, dropin), everything(jax.nn, optax), strict=True), CALLS, strict=True
    ):
        for result, expected in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12, err_msg=name)


def test_training_with_optax_goes_the_same_way(optax):
    import optax as optimizers

    features = jnp.asarray(RNG.normal(size=(64, 3)))
    labels = jnp.asarray((features @ jnp.asarray([[1.0, 0], [0, 2], [-1, 1]])).argmax(1))
    optimizer = optimizers.adam(0.1)

    def trained(loss):
        def step(carry, _):
            weight, state = carry
            value, slope = jax.value_and_grad(lambda w: loss(features @ w, labels).mean())(weight)
            updates, state = optimizer.update(slope, state)
            return (weight + updates, state), value

        start = jnp.zeros((3, 2))
        return jax.lax.scan(step, (start, optimizer.init(start)), None, 30)[1]

    name = "softmax_cross_entropy_with_integer_labels"
    both = jax.jit(lambda: (trained(getattr(dropin, name)), trained(getattr(optax, name))))()
    np.testing.assert_allclose(*both, rtol=1e-9)
