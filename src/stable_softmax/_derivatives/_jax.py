"""Analytic derivatives as JAX's own, in forward and reverse mode."""

from functools import partial
from typing import Any

import jax

from stable_softmax._derivatives import Differentiable

Options = tuple[tuple[str, Any], ...]


# A call outside of `jit` is one call of compiled code, instead of one for each operation.
@partial(jax.jit, static_argnums=(0, 1), inline=True)
def call(function: Differentiable, options: Options, *arrays: jax.Array) -> Any:
    """Return the function's value."""
    return _value(function, options, *arrays)


# JAX derives reverse mode from this rule, by transposing it. A custom_vjp would rule out forward mode.
@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _value(function: Differentiable, options: Options, *arrays: jax.Array) -> Any:
    return function.value(jax.numpy, *arrays, **dict(options))


@_value.defjvp
def _jvp(function: Differentiable, options: Options, primals: Any, tangents: Any) -> tuple[Any, Any]:
    return function.jvp(jax.numpy, tangents[0], *primals, **dict(options))
