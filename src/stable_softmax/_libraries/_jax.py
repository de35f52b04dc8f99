"""Analytic derivatives as JAX's own, in forward and reverse mode."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
from jax.custom_derivatives import SymbolicZero
from jax.sharding import NamedSharding, PartitionSpec

from stable_softmax._libraries._differentiable import Differentiable

Options: TypeAlias = tuple[tuple[str, Any], ...]


def is_sharded(array: jax.Array, axis: int) -> bool:
    """Whether the type of an array, on a mesh with explicit axes, splits `axis`."""
    return jax.typeof(array).sharding.spec[axis] is not None


def apart(values: jax.Array) -> jax.Array:
    """Return the values, rounded to the precision that they have.

    XLA for the CPU took the products in a float32 sum of products for a dot product, and computed wrong ones where one
    factor is broadcast and the other is used again beside the sum: JAX 0.10.2 does, 0.7.2 and 0.12.0 do not.
    """
    limits: Any = jax.numpy.finfo(values.dtype)  # type: ignore[no-untyped-call]
    return jax.lax.reduce_precision(values, exponent_bits=limits.nexp, mantissa_bits=limits.nmant)


def sweep_factor() -> int:
    """Return how many times the memory of NumPy's blocks those of a sweep are worth: GPUs need more rows to be busy."""
    return 1 if runs_on_cpu() else 16


def runs_on_cpu() -> bool:
    """Whether programs are for the CPU."""
    return jax.default_backend() == "cpu"


def is_traced(value: Any) -> bool:
    """Whether a value is an array that is traced."""
    return isinstance(value, jax.core.Tracer)


def constant(values: jax.Array) -> jax.Array:
    """Return the values without their derivatives."""
    return jax.lax.stop_gradient(values)


def contracted(
    first: jax.Array, second: jax.Array, axes: tuple[int, int], dtype: Any, like: jax.Array | None
) -> jax.Array:
    """Return the sums of products of two matrices along an axis of each, on the devices where another array lies."""
    place = None if like is None else _place_of_product(like, first, second)
    more = {} if place is None else {"out_sharding": place}  # which JAX has from 0.7 on
    along = tuple((axis,) for axis in axes)
    return jax.numpy.tensordot(first, second, axes=along, preferred_element_type=dtype, **more)


def _place_of_product(like: jax.Array, *factors: jax.Array) -> Any:
    """Return where an array lies; on all devices of its factors' mesh, if it is on none; None if these are not."""
    place, *places = (jax.typeof(array).sharding for array in (like, *factors))
    if not place.mesh.empty:
        return place
    meshes = [other.mesh for other in places if not other.mesh.empty]
    return NamedSharding(meshes[0], PartitionSpec()) if meshes else None  # type: ignore[no-untyped-call]


def swept(function: Callable[..., Any], arrays: tuple[Any, ...], in_rows: tuple[bool, ...], size: int) -> Any:
    """Return what a function of blocks of rows gives, by a scan.

    The rows of a block are as far apart as there are blocks, so that where rows lie on several devices, each has a
    part of every block.
    """

    def given(rows: list[Any]) -> list[Any]:
        remaining = iter(rows)
        return [next(remaining) if is_cut else array for array, is_cut in zip(arrays, in_rows, strict=True)]

    @partial(jax.checkpoint, prevent_cse=False)
    def step(sums: Any, rows: list[Any]) -> tuple[Any, Any]:
        values, sums = function(sums, *given(rows))
        return sums, values

    cut = [array for array, is_cut in zip(arrays, in_rows, strict=True) if is_cut]
    length = cut[0].shape[0]
    if not isinstance(length, int) or length <= size:
        return function(None, *arrays)
    number = _number_of_blocks(cut[0], size)
    size = length // number
    blocks = [_columns_first(array[: number * size].reshape(size, number, *array.shape[1:])) for array in cut]
    _, like = function(None, *given([block[0] for block in blocks]))  # for shapes and shardings: never computed
    sums, values = jax.lax.scan(step, [jax.numpy.zeros_like(array) for array in like], blocks)
    values = [_columns_first(array).reshape(number * size, *array.shape[2:]) for array in values]
    if length == number * size:
        return values, sums
    sums, more = step(sums, [array[number * size :] for array in cut])
    return [jax.numpy.concatenate(rows) for rows in zip(values, more, strict=True)], sums


def _number_of_blocks(rows: jax.Array, size: int) -> int:
    """Return into how many blocks rows are cut: equal ones of at least half the size, if that goes, on each device."""
    length, place = rows.shape[0], jax.typeof(rows).sharding
    names = place.spec[0] if is_sharded(rows, 0) else ()
    on_device = length // math.prod(place.mesh.shape[name] for name in ((names,) if isinstance(names, str) else names))
    least = -(-length // size)
    equal = [number for number in range(least, 2 * least) if on_device % number == 0]
    return equal[0] if equal else least if on_device == length else 1


def _columns_first(array: jax.Array) -> jax.Array:
    return jax.numpy.swapaxes(array, 0, 1)


# A call outside of `jit` is one call of compiled code, instead of one for each operation.
@partial(jax.jit, static_argnums=(0, 1), inline=True)
def evaluate(function: Differentiable, options: Options, *arrays: jax.Array) -> Any:
    """Return the function's value."""
    return _value(function, options, *arrays)


# Not inlined, so that outside of `jit` what JAX derives from it is compiled once, too.
@partial(jax.jit, static_argnums=(0, 1))
def compiled(function: Callable[..., Any], options: Options, *arrays: jax.Array) -> Any:
    """Return the value of a function that JAX is to differentiate as it stands."""
    return function(jax.numpy, *arrays, **dict(options))


# JAX derives reverse mode from this rule, by transposing it. A custom_vjp would rule out forward mode.
@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _value(function: Differentiable, options: Options, *arrays: jax.Array) -> Any:
    return function.value(jax.numpy, *arrays, **dict(options))


@partial(_value.defjvp, symbolic_zeros=True)
def _jvp(function: Differentiable, options: Options, primals: Any, tangents: Any) -> tuple[Any, Any]:
    vectors = [None if isinstance(tangent, SymbolicZero) else tangent for tangent in tangents[: function.variables]]
    if all(vector is None for vector in vectors):
        value = _value(function, options, *primals)
        return value, jax.tree.map(jax.numpy.zeros_like, value)
    return function.jvp(jax.numpy, *vectors, *primals, **dict(options))
