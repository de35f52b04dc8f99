"""A function with derivatives with respect to several of its arrays, which no public function has."""

import numpy as np
import pytest

from stable_softmax._libraries import library_of
from stable_softmax._libraries.differentiable import differentiable

pytestmark = pytest.mark.covering_on("numpy", "jax")


@differentiable
def product(_lib, first, second, factor, power):
    return factor * first**power * second


@product.has_jvp
def _(lib, first_tangent, second_tangent, first, second, factor, power):
    of_first, of_second = gradients_of(first, second, factor, power)
    slope = sum(g * dx for g, dx in ((of_first, first_tangent), (of_second, second_tangent)) if dx is not None)
    return product.value(lib, first, second, factor, power), slope


@product.has_vjp
def _(_lib, cotangent, first, second, factor, power, wanted):
    gradients = gradients_of(first, second, factor, power)
    return tuple(cotangent * g if is_wanted else None for g, is_wanted in zip(gradients, wanted, strict=True))


def gradients_of(first, second, factor, power):
    return factor * power * first ** (power - 1) * second, factor * first**power


monomial = product.of_variables(2)
FIRST, SECOND, FACTOR = np.asarray([1.5, 2.0]), np.asarray([3.0, -0.5]), np.asarray([2.0, 4.0])


@pytest.mark.only_backends("jax", "torch")
def test_each_variable_has_its_derivatives_in_both_modes(library):
    first, second, factor = map(library.array, (FIRST, SECOND, FACTOR))
    gradients = 3 * FACTOR * FIRST**2 * SECOND, FACTOR * FIRST**3
    curvature = 6 * FACTOR * FIRST * SECOND

    func = library.transformations

    def total(first, second):
        return monomial(library_of(first), first, second, factor, power=3).sum()

    def slope(first):
        return func.jvp(lambda first: total(first, second), (first,), (library.xp.ones_like(first),))[1]

    for gradient, expected in zip(func.grad(total, argnums=(0, 1))(first, second), gradients, strict=True):
        np.testing.assert_allclose(library.numpy(gradient), expected, rtol=1e-14)
    tangent = func.jvp(total, (first, second), (first, second))[1]
    np.testing.assert_allclose(library.numpy(tangent), np.sum(gradients[0] * FIRST + gradients[1] * SECOND), rtol=1e-14)
    np.testing.assert_allclose(library.numpy(func.grad(slope)(first)), curvature, rtol=1e-14)


@pytest.mark.only_backends("jax")
def test_arrays_that_are_no_variables_have_no_derivative(library):
    def total(factor):
        return monomial(library_of(factor), FIRST, SECOND, factor, power=3).sum()

    value, gradient = library.jax.value_and_grad(total)(library.array(FACTOR))
    np.testing.assert_allclose(value, np.sum(FACTOR * FIRST**3 * SECOND), rtol=1e-14)
    np.testing.assert_array_equal(gradient, np.zeros(2))
