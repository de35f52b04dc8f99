"""Entropy and Kullback-Leibler divergence of projected features, so that no full logits are ever materialized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from stable_softmax._arguments.options import NO_OPTIONS
from stable_softmax._arguments.projection import Sweep, projected_comparison, projected_loss
from stable_softmax._arguments.signatures import gives_array_from_features, gives_gradients, gives_named_gradients
from stable_softmax._arguments.types import AnyArray, Array, Reduction
from stable_softmax._execution import sweep
from stable_softmax._linear import of_examples, value_and_gradients_of, value_of


@gives_array_from_features
def linear_softmax_entropy(
    features: Array,
    weight: AnyArray,
    bias: AnyArray | None = None,
    *,
    softcap: float | None = None,
    where: AnyArray | None = None,
    reduction: Reduction = "mean",
    dtype: Any = None,
    block_size: int | None = None,
) -> Array:
    """Return the entropy of the softmax of ``features @ weight.T + bias``, by default its mean over the batch.

    Neither the full logits, for all examples and classes, nor their gradient are ever materialized.

    Parameters
    ----------
    features, weight, bias, softcap, block_size
        As for `linear_softmax_crossentropy`.
    where, reduction, dtype
        As for `softmax_entropy` with logits (..., C).

    Returns
    -------
    0-d array, or array with one entry for each example
        In nats.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape or range is not as above.

    Notes
    -----
    Derivatives of the mean and of the sum come from the same blocks as the entropy, by three matrix products; for the
    entropies of single examples, each block is computed again.

    Examples
    --------
    >>> import numpy as np
    >>> features, weight = np.asarray([[1.0], [0.0]]), np.asarray([[50.0], [0.0]])
    >>> linear_softmax_entropy(features, weight, reduction="none")
    array([9.83662422e-21, 6.93147181e-01])
    """
    given = {"features": features, "weight": weight, "bias": bias}
    how = Sweep({"softcap": softcap}, block_size)
    return value_of(projected_comparison("entropy", given, where, reduction, dtype, how))


@gives_gradients
def value_and_grad_linear_softmax_entropy(
    features: Array,
    weight: AnyArray,
    bias: AnyArray | None = None,
    *,
    softcap: float | None = None,
    where: AnyArray | None = None,
    reduction: Reduction = "mean",
    dtype: Any = None,
    block_size: int | None = None,
    with_respect_to: str | Sequence[str] = ("features", "weight", "bias"),
) -> tuple[Array, tuple[Array | None, Array | None, Array | None]]:
    """Return the entropy of projected features and its gradients, from the same blocks of logits.

    Parameters
    ----------
    features, weight, bias, softcap, where, reduction, block_size
        As for `linear_softmax_entropy`. With the reduction "none", the gradients are those of the sum.
    dtype : dtype, or its name, optional
        dtype of all results; by default, each gradient has the dtype of its array.
    with_respect_to : str or sequence of str
        The gradients to compute; the others cost nothing.

    Returns
    -------
    entropy, (gradient of features, gradient of weight, gradient of bias)
        Each gradient has the shape of its array; None if `with_respect_to` does not name it, or if there is no bias.

    Raises
    ------
    TypeError, ValueError
        As for `linear_softmax_entropy`.

    Examples
    --------
    >>> import numpy as np
    >>> entropy, gradients = value_and_grad_linear_softmax_entropy(np.asarray([[1.0]]), np.asarray([[50.0], [0.0]]))
    >>> gradients[1]
    array([[-9.64374924e-21],
           [ 9.64374924e-21]])
    """
    given = {"features": features, "weight": weight, "bias": bias}
    how = Sweep({"softcap": softcap}, block_size, with_respect_to)
    entropy, gradients = value_and_gradients_of(projected_comparison("entropy", given, where, reduction, dtype, how))
    of_features, of_weight, of_bias = (*gradients, None)[:3]
    return entropy, (of_features, of_weight, of_bias)


@gives_array_from_features
def linear_softmax_kl_divergence(
    features: Array,
    weight: AnyArray,
    reference_features: AnyArray,
    reference_weight: AnyArray,
    bias: AnyArray | None = None,
    reference_bias: AnyArray | None = None,
    *,
    softcap: float | None = None,
    reference_softcap: float | None = None,
    where: AnyArray | None = None,
    reduction: Reduction = "mean",
    dtype: Any = None,
    block_size: int | None = None,
) -> Array:
    """Return the divergence of a model's predictions from another's, both from features, by default its mean.

    This is KL(q || p), where ``p`` is the softmax of ``features @ weight.T + bias``, and ``q`` that of
    ``reference_features @ reference_weight.T + reference_bias``: a teacher, or the policy before an update. The full
    logits of neither model are ever materialized.

    Parameters
    ----------
    features : array (..., D)
        The features, of any real floating or integer dtype.
    weight : array (C, D)
        The weights, laid out as in `torch.nn.Linear`; for Flax, pass ``kernel.T``.
    reference_features : array (..., D')
        Those of the reference, for the same examples; their number may be another.
    reference_weight : array (C, D')
        The weights of the reference, for the same classes.
    bias, reference_bias : array (C,), optional
        Added to the logits.
    softcap, reference_softcap : float, optional
        Caps the logits: ``softcap * tanh(logits / softcap)``. A positive normal number of the dtype of the computation.
    where, reduction, dtype
        As for `softmax_kl_divergence` with logits (..., C).
    block_size : int, optional
        Number of examples to process at a time. It affects speed and memory; results change only by rounding.

    Returns
    -------
    0-d array, or array with one entry for each example
        In nats.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape or range is not as above.

    Notes
    -----
    Derivatives of the mean and of the sum come from the same blocks as the divergence. Those that nobody asks for, such
    as those of a reference that is not trained, cost no matrix product.

    Examples
    --------
    >>> import numpy as np
    >>> features, weight, change = np.asarray([[1.0, 2.0]]), np.asarray([[1.0, 0.0], [0.0, 1.0]]), 1e-9
    >>> divergence = linear_softmax_kl_divergence(features + change * features[:, ::-1], weight, features, weight)
    >>> print(f"{divergence:.4e}")
    9.8306e-20
    """
    given = _of_two(features, weight, bias, reference_features, reference_weight, reference_bias)
    how = Sweep({"softcap": softcap, "reference_softcap": reference_softcap}, block_size)
    return value_of(projected_comparison("kl_divergence", given, where, reduction, dtype, how))


@gives_named_gradients
def value_and_grad_linear_softmax_kl_divergence(
    features: Array,
    weight: AnyArray,
    reference_features: AnyArray,
    reference_weight: AnyArray,
    bias: AnyArray | None = None,
    reference_bias: AnyArray | None = None,
    *,
    softcap: float | None = None,
    reference_softcap: float | None = None,
    where: AnyArray | None = None,
    reduction: Reduction = "mean",
    dtype: Any = None,
    block_size: int | None = None,
    with_respect_to: str | Sequence[str] = ("features", "weight", "bias"),
) -> tuple[Array, dict[str, Array]]:
    """Return the divergence of two models of projected features and its gradients, from the same blocks of logits.

    Parameters
    ----------
    features, weight, reference_features, reference_weight, bias, reference_bias, softcap, reference_softcap, where
        As for `linear_softmax_kl_divergence`.
    reduction, block_size
        As for `linear_softmax_kl_divergence`. With the reduction "none", the gradients are those of the sum.
    dtype : dtype, or its name, optional
        dtype of all results; by default, each gradient has the dtype of its array.
    with_respect_to : str or sequence of str
        The gradients to compute, by the names of the arguments; the others cost no matrix product.

    Returns
    -------
    divergence, gradients
        The gradients are a dict by the names in `with_respect_to`, without those of a bias that is not given. Each has
        the shape of its array.

    Raises
    ------
    TypeError, ValueError
        As for `linear_softmax_kl_divergence`.

    Examples
    --------
    >>> import numpy as np
    >>> features, weight = np.asarray([[1.0, 2.0]]), np.asarray([[1.0, 0.0], [0.0, 1.0]])
    >>> divergence, gradients = value_and_grad_linear_softmax_kl_divergence(
    ...     features, weight, features, weight, with_respect_to=("features", "reference_features")
    ... )
    >>> sorted(gradients), float(divergence)
    (['features', 'reference_features'], 0.0)
    """
    given = _of_two(features, weight, bias, reference_features, reference_weight, reference_bias)
    how = Sweep({"softcap": softcap, "reference_softcap": reference_softcap}, block_size, with_respect_to)
    arguments = projected_comparison("kl_divergence", given, where, reduction, dtype, how)
    divergence, gradients = value_and_gradients_of(arguments)
    named = zip(arguments.settings.names, gradients, strict=False)
    return divergence, {name: gradient for name, gradient in named if gradient is not None}


class LinearSummary(NamedTuple):
    """What `linear_softmax_summary` tells of each example, in the shape of the features without the last axis."""

    #: The cross-entropy of the label, in nats: minus its log-probability.
    loss: Any
    #: The logsumexp of the logits.
    logsumexp: Any
    #: The entropy of the prediction, in nats.
    entropy: Any
    #: The class id of the largest logit, the first one of several.
    most_probable: Any


def linear_softmax_summary(
    features: AnyArray,
    weight: AnyArray,
    reference_answers: AnyArray,
    bias: AnyArray | None = None,
    *,
    softcap: float | None = None,
    where: AnyArray | None = None,
    ignore_index: int | None = None,
    dtype: Any = None,
    block_size: int | None = None,
) -> LinearSummary:
    """Return what each example's prediction is, from one sweep over ``features @ weight.T + bias``.

    Those who train policies need the log-probability of what was done, which is minus the loss, and the entropy. The
    full logits are never materialized.

    Parameters
    ----------
    features, weight, reference_answers, bias, softcap, where, ignore_index, dtype, block_size
        As for `linear_softmax_crossentropy`.

    Returns
    -------
    LinearSummary
        Loss, logsumexp, entropy and most probable class of each example. Examples that are ignored have 0, and the
        class -1.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape or range is not as above.

    Notes
    -----
    All but the class ids have derivatives, for which each block is computed again: four matrix products in all.

    Examples
    --------
    >>> import numpy as np
    >>> features, weight = np.asarray([[1.0], [0.0]]), np.asarray([[0.0], [50.0]])
    >>> summary = linear_softmax_summary(features, weight, np.asarray([1, 0]))
    >>> summary.loss, summary.entropy
    (array([1.92874985e-22, 6.93147181e-01]), array([9.83662422e-21, 6.93147181e-01]))
    >>> summary.most_probable.tolist()
    [1, 0]
    """
    options = NO_OPTIONS._replace(where=where, ignore_index=ignore_index, dtype=dtype)
    how = Sweep({"softcap": softcap}, block_size)
    given = projected_loss(features, weight, reference_answers, bias, options, how)
    loss, logsumexp, entropy, classes = sweep.summary(given.lib, *given.arrays, settings=given.settings)
    return LinearSummary(
        loss=of_examples(given, loss),
        logsumexp=of_examples(given, logsumexp),
        entropy=of_examples(given, entropy),
        most_probable=given.lib.xp.reshape(classes, given.layout.shape[:-1]),
    )


def _of_two(
    features: Any, weight: Any, bias: Any, reference_features: Any, reference_weight: Any, reference_bias: Any
) -> dict[str, Any]:
    return {
        "features": features,
        "weight": weight,
        "bias": bias,
        "reference_features": reference_features,
        "reference_weight": reference_weight,
        "reference_bias": reference_bias,
    }
