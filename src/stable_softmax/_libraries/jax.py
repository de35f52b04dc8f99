"""JAX, whose functions are traced: by `jit`, by derivatives, or to run immediately as one compiled program."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
from jax import numpy as xp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import NamedSharding, PartitionSpec

from stable_softmax._libraries.differentiable import Differentiable
from stable_softmax._libraries.standard import Library

Options: TypeAlias = tuple[tuple[str, Any], ...]


class JAX(Library):
    """JAX, whose values are never read, and whose compiler XLA fuses operations."""

    differentiates = True
    takes_numpy = True
    adds_as_tree = True
    caches_plans = True
    prepares_nothing = True

    @property
    def settings(self) -> Any:
        """What the dtypes of results depend on."""
        # Newer versions have the second.
        return jax.config.jax_enable_x64, getattr(jax.config, "jax_explicit_x64_dtypes", None)  # type: ignore[attr-defined]

    def is_split(self, array: Any, axis: int) -> bool:
        """Whether an array on a mesh with explicit axes is split along an axis, by its type."""
        return jax.typeof(array).sharding.spec[axis] is not None

    def merges_axes(self, array: Any, axes: tuple[int, ...]) -> bool:
        return not any(self.is_split(array, axis) for axis in axes)

    def records(self, *arrays: Any) -> bool:
        return any(isinstance(array, jax.core.Tracer) for array in arrays)

    def computed_dtype(self, dtype: Any) -> Any:
        """Return the dtype of results: without `jax_enable_x64`, float64 arrays are computed in float32."""
        return xp.result_type(dtype)

    def multiplies_narrow(self, _array: Any) -> bool:
        return not _runs_on_cpu()

    def without_gradient(self, array: Any) -> Any:
        return jax.lax.stop_gradient(array)

    def nan_where(self, condition: Any, values: Any) -> Any:
        # Debuggers report a NaN constant even if no value becomes NaN.
        return values * xp.sqrt(xp.where(condition, -1.0, 1.0))

    def rounded(self, values: Any) -> Any:
        """Return the values, rounded to the precision of their dtype.

        XLA for the CPU in JAX 0.10.2, but not in 0.7.2 and 0.12.0, makes a float32 sum of products a dot product, and
        computes it wrongly if one factor is broadcast and the other is used again beside the sum.
        """
        limits: Any = xp.finfo(values.dtype)  # type: ignore[no-untyped-call]
        return jax.lax.reduce_precision(values, exponent_bits=limits.nexp, mantissa_bits=limits.nmant)

    def indices_along(self, length: int, like: Any, dtype: Any) -> Any:
        # An array without a device moves to that of the others. Their `device` is a sharding, which may not fit.
        del like
        return xp.arange(length, dtype=dtype)

    def contract(
        self, first: Any, second: Any, axes: tuple[int, int], dtype: Any, like: Any = None, total: Any = None
    ) -> Any:
        place = None if like is None else _place_of_product(like, first, second)
        along = tuple((axis,) for axis in axes)
        more = {} if place is None else {"out_sharding": place}  # which JAX has from 0.7 on
        product = xp.tensordot(first, second, axes=along, preferred_element_type=dtype, **more)
        return self.add_to(total, product)

    def sweep_factor(self, _weight: Any) -> int:
        return 1 if _runs_on_cpu() else 16  # GPUs need more rows to be busy

    def evaluate(self, function: Differentiable, *arrays: Any, **options: Any) -> Any:
        return _evaluated(function, tuple(options.items()), *arrays)

    def compiled(self, function: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
        return _compiled(function, tuple(options.items()), *arrays)

    def sweep(self, function: Callable[..., Any], in_rows: tuple[Any, ...], whole: tuple[Any, ...], size: int) -> Any:
        """Return the results of a function over blocks of rows, by a scan.

        The rows of a block are taken at a stride, the number of blocks: if rows lie on several devices, each device has
        a part of every block.
        """

        @partial(jax.checkpoint, prevent_cse=False)
        def step(sums: Any, rows: tuple[Any, ...]) -> tuple[Any, Any]:
            values, sums = function(sums, rows, whole)
            return sums, values

        length = in_rows[0].shape[0]
        if not isinstance(length, int) or length <= size:
            return function(None, in_rows, whole)
        number = _number_of_blocks(in_rows[0], size)
        size = length // number
        blocks = tuple(
            _columns_first(array[: number * size].reshape(size, number, *array.shape[1:])) for array in in_rows
        )
        # Only for shapes and shardings: never computed.
        _, like = function(None, tuple(block[0] for block in blocks), whole)
        sums, values = jax.lax.scan(step, [xp.zeros_like(array) for array in like], blocks)
        values = [_columns_first(array).reshape(number * size, *array.shape[2:]) for array in values]
        if length == number * size:
            return values, sums
        sums, more = step(sums, tuple(array[number * size :] for array in in_rows))
        return [xp.concatenate(rows) for rows in zip(values, more, strict=True)], sums


def _runs_on_cpu() -> bool:
    """Whether programs run on the CPU."""
    return jax.default_backend() == "cpu"


def _place_of_product(like: jax.Array, *factors: jax.Array) -> Any:
    """Return the sharding of an array; without a mesh, one for copies on all devices of the factors' mesh, if any."""
    place, *places = (jax.typeof(array).sharding for array in (like, *factors))
    if not place.mesh.empty:
        return place
    meshes = [other.mesh for other in places if not other.mesh.empty]
    return NamedSharding(meshes[0], PartitionSpec()) if meshes else None  # type: ignore[no-untyped-call]


def _number_of_blocks(rows: jax.Array, size: int) -> int:
    """Return the number of blocks for rows: equal ones of at least half the size on each device, if possible."""
    length, place = rows.shape[0], jax.typeof(rows).sharding
    names = place.spec[0] if LIBRARY.is_split(rows, 0) else ()
    on_device = length // math.prod(place.mesh.shape[name] for name in ((names,) if isinstance(names, str) else names))
    least = -(-length // size)
    equal = [number for number in range(least, 2 * least) if on_device % number == 0]
    return equal[0] if equal else least if on_device == length else 1


def _columns_first(array: jax.Array) -> jax.Array:
    return xp.swapaxes(array, 0, 1)


# Compiled, so that a call outside `jit` runs one program, and not one for each operation.
@partial(jax.jit, static_argnums=(0, 1), inline=True)
def _evaluated(function: Differentiable, options: Options, *arrays: jax.Array) -> Any:
    return _value(function, options, *arrays)


# Not inlined, so that outside `jit` its derivatives are compiled once, too.
@partial(jax.jit, static_argnums=(0, 1))
def _compiled(function: Callable[..., Any], options: Options, *arrays: jax.Array) -> Any:
    return function(LIBRARY, *arrays, **dict(options))


# JAX derives reverse mode from this rule, by transposing it. A custom_vjp would rule out forward mode.
@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _value(function: Differentiable, options: Options, *arrays: jax.Array) -> Any:
    return function.value(LIBRARY, *arrays, **dict(options))


@partial(_value.defjvp, symbolic_zeros=True)
def _jvp(function: Differentiable, options: Options, primals: Any, tangents: Any) -> tuple[Any, Any]:
    vectors = [None if isinstance(tangent, SymbolicZero) else tangent for tangent in tangents[: function.variables]]
    if all(vector is None for vector in vectors):
        value = _value(function, options, *primals)
        return value, jax.tree.map(xp.zeros_like, value)
    return function.jvp(LIBRARY, *vectors, *primals, **dict(options))


LIBRARY = JAX(xp)
