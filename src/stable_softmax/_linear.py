"""Projection and cross-entropy in one, so that the full logits are never materialized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stable_softmax._arguments.options import Options
from stable_softmax._arguments.projection import Projected, Sweep, projected_loss
from stable_softmax._arguments.signatures import gives_array_from_features, gives_gradients
from stable_softmax._arguments.types import AnyArray, Array, Reduction
from stable_softmax._execution import sweep
from stable_softmax._execution.run import total


@gives_array_from_features
def linear_softmax_crossentropy(
    features: Array,
    weight: AnyArray,
    reference_answers: AnyArray,
    bias: AnyArray | None = None,
    *,
    softcap: float | None = None,
    where: AnyArray | None = None,
    class_weights: AnyArray | None = None,
    example_weights: AnyArray | None = None,
    label_smoothing: float | AnyArray = 0.0,
    ignore_index: int | None = None,
    z_loss: float | AnyArray = 0.0,
    reduction: Reduction = "mean",
    dtype: Any = None,
    block_size: int | None = None,
) -> Array:
    """Return the softmax cross-entropy of ``features @ weight.T + bias``, by default its mean over the batch.

    Neither the full logits, for all examples and classes, nor their gradient are ever materialized.

    Parameters
    ----------
    features : array (..., D)
        The features, of any real floating or integer dtype.
    weight : array (C, D)
        The weights, laid out as in `torch.nn.Linear`; for Flax, pass ``kernel.T``.
    reference_answers : integer array (...), or real array (..., C)
        The labels: the class id of each example, in [0, C), or target probabilities.
    bias : array (C,), optional
        Added to the logits.
    softcap : float, optional
        Caps the logits: ``softcap * tanh(logits / softcap)``. A positive normal number of the dtype of the computation.
    where, class_weights, example_weights, label_smoothing, ignore_index, z_loss, dtype
        As for `softmax_crossentropy_with_logits` with logits (..., C).
    reduction : {"none", "mean", "sum"}
        How the losses of the examples are combined. If all examples are ignored, the mean is 0.
    block_size : int, optional
        Number of examples to process at a time. It affects speed and memory; results change only by rounding.

    Returns
    -------
    0-d array, or array with one entry for each example
        The losses in nats.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape or range is not as above; see `softmax_crossentropy_with_logits`.

    Notes
    -----
    Products are accumulated in at least float32. Derivatives of the mean and of the sum come from the same blocks as
    the loss; for the losses of single examples, each block is computed again.

    Examples
    --------
    >>> import numpy as np
    >>> features, weight = np.asarray([[1.0, 2.0], [0.0, 1.0]]), np.asarray([[25.0, 0.0], [-25.0, 0.0]])
    >>> linear_softmax_crossentropy(features, weight, np.asarray([0, 1]), reduction="none")
    array([1.92874985e-22, 6.93147181e-01])
    """
    options = Options(
        where=where,
        class_weights=class_weights,
        example_weights=example_weights,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        z_loss=z_loss,
        reduction=reduction,
        dtype=dtype,
    )
    how = Sweep({"softcap": softcap}, block_size)
    return value_of(projected_loss(features, weight, reference_answers, bias, options, how))


@gives_gradients
def value_and_grad_linear_softmax_crossentropy(
    features: Array,
    weight: AnyArray,
    reference_answers: AnyArray,
    bias: AnyArray | None = None,
    *,
    softcap: float | None = None,
    where: AnyArray | None = None,
    class_weights: AnyArray | None = None,
    example_weights: AnyArray | None = None,
    label_smoothing: float | AnyArray = 0.0,
    ignore_index: int | None = None,
    z_loss: float | AnyArray = 0.0,
    reduction: Reduction = "mean",
    dtype: Any = None,
    block_size: int | None = None,
    with_respect_to: str | Sequence[str] = ("features", "weight", "bias"),
) -> tuple[Array, tuple[Array | None, Array | None, Array | None]]:
    """Return the softmax cross-entropy of projected features and its gradients, from the same blocks of logits.

    Parameters
    ----------
    features, weight, reference_answers, bias, softcap, where, class_weights, label_smoothing, ignore_index, z_loss
        As for `linear_softmax_crossentropy`.
    reduction : {"none", "mean", "sum"}
        How the losses are combined, and which loss to differentiate. With "none", the gradients are those of the sum:
        each row of the features' gradient is that of its own example's loss.
    dtype : dtype, or its name, optional
        dtype of all results; by default, each gradient has the dtype of its array.
    block_size : int, optional
        As for `linear_softmax_crossentropy`.
    with_respect_to : str or sequence of str
        The gradients to compute; the others cost nothing.

    Returns
    -------
    loss, (gradient of features, gradient of weight, gradient of bias)
        Each gradient has the shape of its array; None if `with_respect_to` does not name it, or if there is no bias.

    Raises
    ------
    TypeError, ValueError
        As for `linear_softmax_crossentropy`.

    Notes
    -----
    ``G @ weight``, ``G.T @ features`` and the sum of `G` over the examples; `G` is the gradient of a block's logits.

    Examples
    --------
    >>> import numpy as np
    >>> features, weight = np.asarray([[1.0, 2.0]]), np.asarray([[25.0, 0.0], [-25.0, 0.0]])
    >>> loss, gradients = value_and_grad_linear_softmax_crossentropy(features, weight, np.asarray([0]))
    >>> gradients[1]
    array([[-1.92874985e-22, -3.85749970e-22],
           [ 1.92874985e-22,  3.85749970e-22]])
    """
    options = Options(
        where=where,
        class_weights=class_weights,
        example_weights=example_weights,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        z_loss=z_loss,
        reduction=reduction,
        dtype=dtype,
    )
    how = Sweep({"softcap": softcap}, block_size, with_respect_to)
    loss, gradients = value_and_gradients_of(projected_loss(features, weight, reference_answers, bias, options, how))
    of_features, of_weight, of_bias = (*gradients, None)[:3]
    return loss, (of_features, of_weight, of_bias)


def value_of(given: Projected) -> Any:
    """Return the values of the examples, or their reduction."""
    lib, settings = given.lib, given.settings
    if given.reduction == "none":
        return of_examples(given, sweep.values(lib, *given.arrays, settings=settings))
    return _result(given, sweep.total(lib, *given.arrays, settings=settings), given.layout.dtype)


def value_and_gradients_of(given: Projected) -> tuple[Any, list[Any]]:
    """Return the values of the examples or their reduction, and the gradients with respect to each array of a model."""
    columns, gradients = sweep.values_and_gradients(given.lib, *given.arrays, settings=given.settings)
    if given.reduction == "none":
        value = of_examples(given, columns)
    else:
        value = _result(given, total(given.lib, columns), given.layout.dtype)
    results = zip(gradients, given.shapes, given.dtypes, strict=True)
    return value, [None if gradient is None else _in_shape(given, gradient, *like) for gradient, *like in results]


def of_examples(given: Projected, column: Any) -> Any:
    """Return a column, with one entry for each row, in the shape of the examples and in the dtype of the result."""
    return _result(given, given.lib.xp.reshape(column, given.layout.shape[:-1]), given.layout.dtype)


def _in_shape(given: Projected, gradient: Any, shape: tuple[Any, ...], dtype: Any) -> Any:
    gradient = _result(given, gradient, dtype)
    return gradient if tuple(gradient.shape) == shape else given.lib.xp.reshape(gradient, shape)


def _result(given: Projected, values: Any, dtype: Any) -> Any:
    values = given.lib.convert(values, dtype)
    return values if values.ndim else given.lib.result(values)
