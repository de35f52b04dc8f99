"""`softmax`, `log_softmax` and `logsumexp` with the arguments of `jax.nn` and `jax.scipy.special.logsumexp`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

import stable_softmax

__all__ = ["log_softmax", "logsumexp", "softmax"]

Axis: TypeAlias = int | Sequence[int] | None


def softmax(x: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None) -> jax.Array:
    """Return the softmax of `x`, 0 where `where` excludes an entry, as `jax.nn.softmax`.

    Examples
    --------
    >>> print(softmax(jnp.asarray([1000.0, 1000.0])))
    [0.5 0.5]
    """
    return stable_softmax.softmax(*_in_jax(x, axis), where=_mask(where))


def log_softmax(x: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None) -> jax.Array:
    """Return the logarithm of the softmax of `x`, -inf where `where` excludes an entry, as `jax.nn.log_softmax`.

    Examples
    --------
    >>> print(log_softmax(jnp.asarray([50.0, 0.0])))
    [-1.9287499e-22 -5.0000000e+01]
    """
    return stable_softmax.log_softmax(*_in_jax(x, axis), where=_mask(where))


def logsumexp(
    a: ArrayLike,
    axis: Axis = None,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: bool = False,
    where: ArrayLike | None = None,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Return the logarithm of the sum of ``b * exp(a)``, by default over all axes, as `jax.nn.logsumexp`.

    Examples
    --------
    >>> logarithm, sign = logsumexp(jnp.asarray([0.0, 1000.0]), b=jnp.asarray([1, -1]), return_sign=True)
    >>> float(logarithm), float(sign)
    (1000.0, -1.0)
    """
    dtype = _floating(jnp.result_type(a) if b is None else jnp.result_type(a, b))
    exponents, axes = _in_jax(jnp.asarray(a, dtype), axis)
    return stable_softmax.logsumexp(
        exponents,
        axes,
        weights=None if b is None else jnp.asarray(b, dtype),
        keepdims=bool(keepdims),
        return_sign=bool(return_sign),
        where=_mask(where),
    )


def _in_jax(given: ArrayLike, axis: Axis) -> tuple[jax.Array, Any]:
    array = jnp.asarray(given)
    if jnp.issubdtype(array.dtype, jnp.integer):
        array = array.astype(_floating(array.dtype))
    return array, tuple(axis) if isinstance(axis, Sequence) else axis


def _floating(dtype: Any) -> Any:
    """Return the dtype in which JAX has a function of numbers of a dtype: float32 for int32, in 64-bit mode as well."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return dtype
    return jax.eval_shape(jnp.exp, np.zeros((), dtype)).dtype


def _mask(where: ArrayLike | None) -> Any:
    return None if where is None else jnp.asarray(where)
