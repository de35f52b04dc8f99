"""The losses of `optax` that are a softmax's, with its arguments."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from stable_softmax import softmax_crossentropy_with_logits, softmax_kl_divergence

__all__ = [
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "safe_softmax_cross_entropy",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]


def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return the cross-entropy of each example with the probabilities `labels`, as `optax.softmax_cross_entropy`.

    Examples
    --------
    >>> print(softmax_cross_entropy(jnp.asarray([[50.0, 0.0]]), jnp.asarray([[1.0, 0.0]])))
    [1.9287499e-22]
    """
    dtype = jnp.result_type(logits, labels)
    logits, labels = jnp.broadcast_arrays(jnp.asarray(logits), jnp.asarray(labels, dtype))
    classes = tuple(range(logits.ndim)) if axis is None else axis
    return softmax_crossentropy_with_logits(logits, labels, classes, where=_mask(where, logits, classes), dtype=dtype)


def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: int | tuple[int, ...] = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return the loss of each example with a class id, as `optax.softmax_cross_entropy_with_integer_labels`.

    Examples
    --------
    >>> print(softmax_cross_entropy_with_integer_labels(jnp.asarray([[50.0, 0.0]]), jnp.asarray([0])))
    [1.9287499e-22]
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must have an integer dtype, not {labels.dtype}")
    mask = _mask(where, logits, axis)
    # Of an example without classes, the loss is 0 whatever its label is.
    counts = None if mask is None else jnp.any(mask, axis).astype(logits.dtype)
    return softmax_crossentropy_with_logits(logits, labels, axis, where=mask, example_weights=counts)


def safe_softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Return `softmax_cross_entropy` along the last axis: here, both count 0 times infinity as 0.

    Examples
    --------
    >>> print(safe_softmax_cross_entropy(jnp.asarray([[50.0, 0.0, -jnp.inf]]), jnp.asarray([[1.0, 0.0, 0.0]])))
    [1.9287499e-22]
    """
    return softmax_cross_entropy(logits, labels)


def kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return the divergence of each prediction from the probabilities `targets`, as `optax.losses.kl_divergence`.

    Both are normalized, so that their rounding does not count as a difference.

    Examples
    --------
    >>> print(kl_divergence(jnp.log(jnp.asarray([0.25, 0.75])), jnp.asarray([0.25, 0.75])))
    0.0
    """
    return kl_divergence_with_log_targets(log_predictions, jnp.log(jnp.asarray(targets)), axis, where)


def kl_divergence_with_log_targets(
    log_predictions: ArrayLike,
    log_targets: ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return the divergence of each prediction from targets, as `optax.losses.kl_divergence_with_log_targets`.

    Both are normalized, so that their rounding does not count as a difference. Logits are taken as well.

    Examples
    --------
    >>> f"{float(kl_divergence_with_log_targets(jnp.asarray([0.0, 1e-9]), jnp.zeros(2))):.3}"
    '1.25e-19'
    """
    dtype = jnp.result_type(log_predictions, log_targets)
    predictions, references = jnp.broadcast_arrays(jnp.asarray(log_predictions), jnp.asarray(log_targets))
    return softmax_kl_divergence(
        predictions, references, axis, where=None if where is None else jnp.asarray(where), dtype=dtype
    )


def _mask(where: ArrayLike | None, logits: jax.Array, axis: int | tuple[int, ...]) -> Any:
    """Return `where` in the shape of the logits, from this shape or from that of the examples."""
    if where is None:
        return None
    mask = jnp.asarray(where)
    return jnp.broadcast_to(mask if mask.ndim == logits.ndim else jnp.expand_dims(mask, axis), logits.shape)
