"""Analytic derivatives as JAX's own, in forward and reverse mode."""

from functools import partial
from typing import Any, TypeAlias

import jax

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


def constant(values: jax.Array) -> jax.Array:
    """Return the values without their derivatives."""
    return jax.lax.stop_gradient(values)


# A call outside of `jit` is one call of compiled code, instead of one for each operation.
@partial(jax.jit, static_argnums=(0, 1), inline=True)
def evaluate(function: Differentiable, options: Options, *arrays: jax.Array) -> Any:
    """Return the function's value."""
    return _value(function, options, *arrays)


# JAX derives reverse mode from this rule, by transposing it. A custom_vjp would rule out forward mode.
@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _value(function: Differentiable, options: Options, *arrays: jax.Array) -> Any:
    return function.value(jax.numpy, *arrays, **dict(options))


@_value.defjvp
def _jvp(function: Differentiable, options: Options, primals: Any, tangents: Any) -> tuple[Any, Any]:
    return function.jvp(jax.numpy, *tangents[: function.variables], *primals, **dict(options))
