"""Differentiable functions of rows that are made of a value, its gradients and the products of its Hessian."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from stable_softmax._core.layout import SMALL, Layout, block_of, blocks_of
from stable_softmax._core.memory import keep_freed_memory
from stable_softmax._libraries.differentiable import Differentiable, differentiable_in
from stable_softmax._libraries.standard import Library
from stable_softmax._maths.sums import sum_of_products


def with_gradients(
    values: Callable[..., Any],
    values_and_gradients: Callable[..., tuple[Any, ...]],
    hessian_products: Callable[..., Sequence[Any]],
    variables: int,
) -> tuple[Differentiable, Differentiable]:
    """Return a function of rows and the function that also returns its gradients, both differentiable.

    All get the library, `variables` arrays, and the same options as keywords, of which `axes` is one.

    - `values` returns one value for each row, and `values_and_gradients` also the gradient for each array.
    - `hessian_products` gets a tuple of vectors, one for each array, before the arrays. It returns the derivatives of
      all gradients in the direction of the vectors, in which it is linear.
    """
    value = differentiable_in(variables)(values)
    both = differentiable_in(variables)(values_and_gradients)

    def split(lib: Library, arguments: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        vectors, arrays = arguments[:variables], arguments[variables:]
        given = zip(vectors, arrays, strict=True)
        return tuple([lib.xp.zeros_like(array) if vector is None else vector for vector, array in given]), arrays

    def slope(lib: Library, gradients: Sequence[Any], vectors: Sequence[Any], axes: tuple[int, ...]) -> Any:
        pairs = zip(gradients, vectors, strict=True)
        return sum(sum_of_products(lib, gradient, vector, axes) for gradient, vector in pairs)

    @value.has_jvp
    def _(lib: Library, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        vectors, arrays = split(lib, arguments)
        values, *gradients = both(lib, *arrays, **options)
        return values, slope(lib, gradients, vectors, options["axes"])

    @value.has_vjp
    def _(lib: Library, cotangent: Any, *arrays: Any, wanted: Any = None, **options: Any) -> Any:
        del wanted
        _, *gradients = both(lib, *arrays, **options)
        products = [cotangent * gradient for gradient in gradients]
        return products if variables > 1 else products[0]

    @value.has_value_and_gradient
    def _(lib: Library, *arrays: Any, wanted: Any = None, **options: Any) -> tuple[Any, Any]:
        del wanted
        values, *gradients = _in_blocks(lib, both.value, *arrays, **options)
        return values, gradients if variables > 1 else gradients[0]

    @both.has_jvp
    def _(lib: Library, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        vectors, arrays = split(lib, arguments)
        values, *gradients = both(lib, *arrays, **options)
        products = hessian_products(lib, vectors, *arrays, **options)
        return (values, *gradients), (slope(lib, gradients, vectors, options["axes"]), *products)

    @both.has_vjp
    def _(lib: Library, cotangents: tuple[Any, ...], *arrays: Any, wanted: Any = None, **options: Any) -> Any:
        del wanted
        of_values, *vectors = cotangents
        _, *gradients = both(lib, *arrays, **options)
        second = hessian_products(lib, tuple(vectors), *arrays, **options)
        products = [of_values * gradient + product for gradient, product in zip(gradients, second, strict=True)]
        return products if variables > 1 else products[0]

    return value, both


def _in_blocks(
    lib: Library,
    values_and_gradients: Callable[..., tuple[Any, ...]],
    *arrays: Any,
    axes: tuple[int, ...],
    **options: Any,
) -> Sequence[Any]:
    """Return values and gradients, from blocks of rows that fit the processor's cache with all temporary arrays.

    A graph is not recorded from blocks, but here the gradients that it needs are known already.
    """
    first = arrays[0]
    if not lib.writes or math.prod(first.shape) <= SMALL or len(axes) > 1:
        return values_and_gradients(lib, *arrays, axes=axes, **options)
    keep_freed_memory(1)
    layout = Layout(tuple(first.shape), axes, first.dtype, first.dtype)
    results: list[Any] = []
    for block in blocks_of(layout, lib.strides_of(first)):
        values = values_and_gradients(lib, *(block_of(array, block) for array in arrays), axes=axes, **options)
        if not results:
            rows = tuple([1 if i in axes else length for i, length in enumerate(first.shape)])
            results = [lib.empty(rows, first.dtype, first), *(lib.xp.empty_like(array) for array in arrays)]
        for result, value in zip(results, values, strict=True):
            block_of(result, block)[...] = value
    return results
