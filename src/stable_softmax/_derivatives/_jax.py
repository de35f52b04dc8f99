"""Analytic derivatives as JAX's own, in forward and reverse mode."""

from functools import partial
from typing import Any

import jax

from stable_softmax._derivatives import Call


def is_sharded(array: jax.Array, axis: int) -> bool:
    """Whether the type of an array, on a mesh with explicit axes, splits `axis`."""
    return jax.typeof(array).sharding.spec[axis] is not None


# A call outside of `jit` is one call of compiled code, instead of one for each operation.
@partial(jax.jit, static_argnums=0, inline=True)
def evaluate(call: Call, *arrays: jax.Array) -> Any:
    """Return the call's value."""
    return _value(call, *arrays)


# JAX derives reverse mode from this rule, by transposing it. A custom_vjp would rule out forward mode.
@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(call: Call, *arrays: jax.Array) -> Any:
    return call.value(jax.numpy, *arrays)


@_value.defjvp
def _jvp(call: Call, primals: Any, tangents: Any) -> tuple[Any, Any]:
    return call.jvp(jax.numpy, tangents[0], *primals)
