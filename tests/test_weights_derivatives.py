"""The derivatives of the logsumexp with weights, by logits and by weights, against those of the definition."""

from functools import partial

import numpy as np
import pytest
from flint import arb
from test_weights import CONTRACT

from stable_softmax import logsumexp
from stable_softmax.reference.exact import evaluated

pytestmark = [pytest.mark.covering, pytest.mark.only_backends("jax", "torch")]

INF, NAN = np.inf, np.nan
BOTH = (0, 1)
ROWS = {
    "positive": ([0.3, -1, 2, 0.5], [0.5, 2, 1, 3]),
    "both signs": ([0.3, -1, 2, 0.5], [-0.5, 2, -1, 3]),
    "negative sum": ([0.3, -1, 2, 0.5], [0.5, -2, -1, 0.1]),
    "tie": ([1.0, 1, 0, 1], [2.0, 2, 1, -2]),
    "weight of 0": ([0.3, -1, 2, 0.5], [0.5, 0, 1, -3]),
    "weight of 0 at the largest": ([0.3, 7, 2, 0.5], [0.5, 0, 1, 3]),
}


def weighted(logits, weights, **options):
    return logsumexp(logits, weights=weights, return_sign=True, **options)[0]


def definition(library, z, w, axis=-1):
    return library.xp.log(library.xp.abs(library.xp.sum(w * library.xp.exp(z), axis=axis)))


def derivatives(library):
    """Return functions of a function of two arrays."""
    f = library.transformations
    return {
        "reverse": partial(f.jacrev, argnums=BOTH),
        "forward": partial(f.jacfwd, argnums=BOTH),
        "forward over reverse": lambda g: f.jacfwd(f.jacrev(g, argnums=BOTH), argnums=BOTH),
        "reverse over reverse": lambda g: f.jacrev(f.jacrev(g, argnums=BOTH), argnums=BOTH),
        "reverse over forward": lambda g: f.jacrev(f.jacfwd(g, argnums=BOTH), argnums=BOTH),
        "of logits alone": lambda g: f.jacfwd(f.jacrev(g)),
        "of weights alone": lambda g: f.jacrev(f.jacfwd(g, argnums=1), argnums=1),
        "third": lambda g: f.jacfwd(f.jacrev(f.jacrev(g, argnums=BOTH), argnums=1)),
    }


def leaves(library, results):
    if isinstance(results, tuple):
        return [leaf for result in results for leaf in leaves(library, result)]
    return [library.numpy(results)]


def compiled(library, function):
    """Return the function as one program, where that saves time."""
    return getattr(library.transformations, "jit", lambda function: function)(function)


def check(library, ours, theirs, *arrays, **tolerances):
    tolerances = {"rtol": 1e-11, "atol": 1e-12} | tolerances
    given, expected = (leaves(library, compiled(library, f)(*map(library.array, arrays))) for f in (ours, theirs))
    for values, same in zip(given, expected, strict=True):
        np.testing.assert_allclose(values, same, **tolerances)


def every_derivative(library, function):
    return lambda *arrays: tuple(derive(function)(*arrays) for derive in derivatives(library).values())


def test_derivatives_are_those_of_the_definition(library):
    """Of rows one by one, so that JAX compiles once."""
    ours, theirs = (compiled(library, every_derivative(library, f)) for f in (weighted, partial(definition, library)))
    for name, row in ROWS.items():
        arrays = [library.array(np.asarray(values)) for values in row]
        for given, same in zip(leaves(library, ours(*arrays)), leaves(library, theirs(*arrays)), strict=True):
            np.testing.assert_allclose(given, same, rtol=1e-11, atol=1e-11, err_msg=name)


@pytest.mark.parametrize(
    ("shapes", "axis"), [(((3, 4), (4,)), -1), (((3, 4), (3, 1)), -1), (((4,), (3, 4)), None)], ids=str
)
def test_derivatives_of_arrays_that_broadcast(library, shapes, axis):
    rng = np.random.default_rng(8)
    z, w = (rng.normal(size=shape) for shape in shapes)
    f = library.transformations

    def second(function):
        total = lambda z, w: library.xp.sum(library.xp.cos(function(z, w)))  # noqa: E731
        return lambda z, w: (f.grad(total, argnums=BOTH)(z, w), f.jacrev(f.grad(total, argnums=BOTH), argnums=1)(z, w))

    ours, theirs = partial(weighted, axis=axis), partial(definition, library, axis=axis)
    check(library, second(ours), second(theirs), z, w)


@pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (0, 0)], ids=str)
def test_mapped_derivatives(library, in_dims):
    rng = np.random.default_rng(9)
    z, w = (rng.normal(size=(5, 4) if mapped == 0 else (4,)) for mapped in in_dims)
    f = library.transformations

    def mapped(function):
        return f.vmap(lambda z, w: (function(z, w), f.grad(function, argnums=BOTH)(z, w)), in_dims)

    check(library, mapped(weighted), mapped(partial(definition, library)), z, w)


def gradients(library, z, w, **options):
    function = lambda z, w: library.xp.sum(weighted(z, w, **options))  # noqa: E731
    arrays = (library.array(np.asarray(array, float)) for array in (z, w))
    given = compiled(library, library.transformations.grad(function, argnums=BOTH))(*arrays)
    return leaves(library, given)


# logits, weights; gradients by both
EDGES = {
    "weight of 0 at +inf": ([0, INF, 0], [1, 0, 1], [0.5, 0, 0.5], [0.5, 0, 0.5]),
    "weight of 0 at NaN": ([0, NAN, 0], [1, 0, 1], [0.5, 0, 0.5], [0.5, 0, 0.5]),
    "weight of 0 at -inf": ([0, -INF, 0], [1, 0, 1], [0.5, 0, 0.5], [0.5, 0, 0.5]),
    "weight of 0 far above": ([0, 2000, 0], [1, 0, 1], [0.5, 0, 0.5], [0.5, "large", 0.5]),
    "-inf": ([0, -INF, 0], [1, 3, 1], [0.5, 0, 0.5], [0.5, 0, 0.5]),
    "all -inf": ([-INF] * 3, [1, -1, 2], [0, 0, 0], [0, 0, 0]),
    "all weights 0": ([3, 2, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]),
    "zero sum": ([0, 0, 0], [1, 1, -2], [NAN] * 3, [NAN] * 3),
    "+inf": ([0, INF, 0], [1, 1, 0], [NAN, NAN, 0], [NAN] * 3),
    "NaN": ([0, NAN, 0], [1, 1, 0], [NAN, NAN, 0], [NAN] * 3),
    "tiny weights": (
        [600, 0, 0],
        [1e-300, 1e-300, -1e-300],
        [1, np.exp(-600), -np.exp(-600)],
        [1e300, *2 * [1e300 * np.exp(-600)]],
    ),
    "leaders that cancel": ([0, 0, -50], [1, -1, 1], [np.exp(50), -np.exp(50), 1], [*2 * [np.exp(50)], 1]),
}


@pytest.mark.parametrize("case", EDGES.values(), ids=EDGES)
def test_gradients_at_the_edges(library, case):
    """Beside ordinary rows, which keep theirs."""
    z, w = (np.asarray([[0, 0, 0], row, [0, 0, 0]], float) for row in case[:2])
    w[[0, 2]] = [1, 2, 1]
    for given, expected, ordinary in zip(
        gradients(library, z, w), case[2:], ([0.25, 0.5, 0.25], [0.25] * 3), strict=True
    ):
        np.testing.assert_allclose(given[[0, 2]], [ordinary] * 2, rtol=1e-14)
        for value, number in zip(given[1], expected, strict=True):
            if number == "large":
                assert 1e300 < value < INF
            else:
                np.testing.assert_allclose(value, number, rtol=1e-12)


def test_excluded_classes_have_no_gradient(library):
    where = library.array(np.asarray([[True, False, True], [False] * 3]))
    given = gradients(library, [[0, NAN, 0], [NAN, 0, INF]], [[1, NAN, 3], [1, 2, NAN]], where=where)
    np.testing.assert_allclose(given, [[[0.25, 0, 0.75], [0] * 3], [[0.25, 0, 0.25], [0] * 3]], rtol=1e-14)


def test_a_negative_sum_without_its_sign_has_no_gradient(library):
    function = lambda z, w: library.xp.sum(logsumexp(z, weights=w))  # noqa: E731
    arrays = [library.array(np.asarray(rows)) for rows in ([[0.0, 0], [0, 0]], [[1.0, 3], [1, -3]])]
    given = leaves(library, library.transformations.grad(function, argnums=BOTH)(*arrays))
    np.testing.assert_allclose(given, [[[0.25, 0.75], [NAN] * 2], [[0.25, 0.25], [NAN] * 2]], rtol=1e-14)


def test_sign_has_no_derivative(library):
    z, w = (library.array(np.asarray(row)) for row in ROWS["both signs"])
    for weights in (None, w):
        function = lambda z, weights=weights: logsumexp(z, weights=weights, return_sign=True)[1]  # noqa: E731
        np.testing.assert_array_equal(library.numpy(library.transformations.jacrev(function)(z)), np.zeros(4))


def test_curvature_of_a_leader_keeps_its_digits(library):
    """Where all others are tiny, entries of the Hessian are as small as they are."""
    z, w = np.asarray([90.0, 1, 0.5]), np.asarray([0.75, 2, 1])
    f = library.transformations
    second = f.jacfwd(f.jacrev(weighted, argnums=BOTH), argnums=BOTH)

    def exact():
        terms = [arb(b) * arb(a).exp() for a, b in zip(z.tolist(), w.tolist(), strict=True)]
        p = [term / sum(terms, arb(0)) for term in terms]
        products = [[p[i] * ((i == j) - p[j]) for j in range(3)] for i in range(3)]
        products[0][0] = p[0] * (p[1] + p[2])
        return products

    given = library.numpy(second(*map(library.array, (z, w)))[0][0])
    expected = np.stack([row[0] for row in evaluated(exact)])
    np.testing.assert_allclose(given, expected, rtol=1e-13)


@pytest.mark.only_backends("jax")
def test_a_scan_that_is_differentiated_twice(library):
    """JAX then forgets the rules of the first derivatives, and differentiates the formulas."""
    jax = library.jax
    given = tuple(jax.numpy.stack([jax.numpy.asarray(row[i]) for row in ROWS.values()]) for i in BOTH)

    def total(f):
        return lambda *rows: jax.lax.scan(lambda sum_, row: (sum_ + f(*row), None), 0.0, rows)[0]

    ours, theirs = (jax.jit(jax.hessian(total(f), BOTH))(*given) for f in (weighted, partial(definition, library)))
    for values, same in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(values, same, rtol=1e-10, atol=1e-11)


@pytest.mark.only_backends("jax")
def test_no_operation_makes_a_nan(library):
    """Where neither the result nor an input has one, one operation after another."""
    jax = library.jax
    sound = [case for case in EDGES.values() if not any(x != x for x in (*case[0], *case[2], *case[3]))]
    z, w = (np.asarray([case[i] for case in sound], float) for i in BOTH)
    function = lambda z, w: library.xp.sum(weighted(z, w))  # noqa: E731
    with jax.debug_nans(True):
        arrays = tuple(map(library.array, (z, w)))
        ones = tuple(map(library.xp.ones_like, arrays))
        given, _ = jax.jvp(jax.grad(function, BOTH), arrays, ones)
        assert np.all(np.isfinite(given))
        with_values = [case for case in CONTRACT.values() if not any(x != x for x in (*case[0], *case[1], case[3]))]
        z, w = (library.array(np.asarray([case[i] for case in with_values], np.float32)) for i in BOTH)
        assert not np.any(np.isnan(weighted(z, w)))


@pytest.mark.only_backends("jax")
def test_products_in_the_place_of_logits(library):
    """A compiler contracts a product with the next operation: the leading term must stay 1."""
    h = library.array(np.random.default_rng(10).normal(size=(64, 50)).astype(np.float32) * 7)
    ones = library.array(np.ones(50, np.float32))
    given = library.jax.jit(lambda h, t: (weighted(h * t, ones), logsumexp(h * t)))(h, 3.3)
    np.testing.assert_allclose(*given, rtol=1e-6)
    row = library.array(np.asarray([[0.3, -9.1]], np.float32))
    given = library.jax.jit(lambda h, t: weighted(h * t - 0.99, ones[:2]))(row, np.float32(3.3))
    np.testing.assert_allclose(given, np.exp(-9.4 * 3.3), rtol=1e-4, atol=1e-7)


@pytest.mark.only_backends("torch")
@pytest.mark.parametrize("wanted", [(True, False), (False, True), (True, True)], ids=str)
def test_autograd(library, wanted):
    """With respect to one array or both, twice, and with the sign as a plain tensor."""
    import torch

    rng = np.random.default_rng(11)
    rows = [
        torch.asarray(rng.normal(size=shape)).requires_grad_(is_wanted)
        for shape, is_wanted in zip(((3, 4), (4,)), wanted, strict=True)
    ]
    asked = [row for row in rows if row.requires_grad]
    value, sign = logsumexp(*rows[:1], weights=rows[1], return_sign=True)
    assert not sign.requires_grad
    for order in range(2):
        given = torch.autograd.grad(value.sum(), asked, create_graph=True)
        expected = definition(library, *rows)
        same = torch.autograd.grad(expected.sum(), asked, create_graph=True)
        if order:
            given, same = (torch.autograd.grad(sum((g**2).sum() for g in first), asked) for first in (given, same))
        torch.testing.assert_close(given, same, rtol=1e-11, atol=1e-12)
