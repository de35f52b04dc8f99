"""Entropy of the softmax of logits, and the Kullback-Leibler and Jensen-Shannon divergences between two of them."""

from __future__ import annotations

from typing import Any

from stable_softmax._arguments.comparison import compared
from stable_softmax._arguments.signatures import gives_array, gives_array_and_pair, gives_pair
from stable_softmax._arguments.types import AnyArray, Array, Axis, Reduction
from stable_softmax._core.kernel import Kernel
from stable_softmax._execution.run import run
from stable_softmax._maths import kernels


@gives_array
def softmax_entropy(
    logits: Array,
    axis: Axis = -1,
    *,
    where: AnyArray | None = None,
    reduction: Reduction = "none",
    dtype: Any = None,
) -> Array:
    """Return the entropy of the softmax of `logits`, by default for each example.

    Parameters
    ----------
    logits : array (..., C, ...)
        Unnormalized log-probabilities, in nats, of any real floating or integer dtype.
    axis : int, tuple of int, or None
        The axes that hold the classes. None means all, and is needed for 0-d logits, which have one class.
    where : boolean array that broadcasts to `logits`, optional
        Mask of the classes to keep. The others have probability 0, whatever their logits are. If `where` excludes every
        class, the entropy is 0.
    reduction : {"none", "mean", "sum"}
        How the entropies of the examples are combined.
    dtype : dtype, or its name, optional
        dtype of the result; by default that of the logits. The computation uses at least float32.

    Returns
    -------
    array of the shape of `logits` without `axis`, or 0-d array
        In nats, from 0 to ``log(C)`` but for rounding. NaN if the example's logits hold NaN or +inf, or are all -inf.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape or range is not as above.

    Notes
    -----
    With the distances ``D = max(z) - z`` and ``e = exp(-D)``, it is ``log1p(sum of e without the maximum's own 1) +
    sum(e * D) / sum(e)``. No term is negative, so that the entropy of a confident prediction is tiny, but not 0.

    Examples
    --------
    >>> import numpy as np
    >>> softmax_entropy(np.asarray([[50.0, 0.0], [0.0, 0.0]]))
    array([9.83662422e-21, 6.93147181e-01])
    """
    (entropies,) = _run(kernels.ENTROPY, {"logits": logits}, axis, where=where, reduction=reduction, dtype=dtype)
    return entropies


@gives_array
def grad_softmax_entropy(
    logits: Array,
    axis: Axis = -1,
    *,
    where: AnyArray | None = None,
    reduction: Reduction = "mean",
    dtype: Any = None,
) -> Array:
    """Return the gradient of the entropy with respect to `logits`, by default that of the mean over the batch.

    Parameters
    ----------
    logits, axis, where, dtype
        As for `softmax_entropy`.
    reduction : {"none", "mean", "sum"}
        The entropy to differentiate. With "none", each row is the gradient of its own example's entropy.

    Returns
    -------
    array of the shape of `logits`
        NaN for an example whose entropy is NaN, but 0 for classes that `where` excludes.

    Raises
    ------
    TypeError, ValueError
        As for `softmax_entropy`.

    Notes
    -----
    ``p * (D - sum(p * D))`` with the distances ``D = max(z) - z``.

    Examples
    --------
    >>> import numpy as np
    >>> grad_softmax_entropy(np.asarray([[50.0, 0.0]]))
    array([[-9.64374924e-21,  9.64374924e-21]])
    """
    return value_and_grad_softmax_entropy(logits, axis, where=where, reduction=reduction, dtype=dtype)[1]


@gives_pair
def value_and_grad_softmax_entropy(
    logits: Array,
    axis: Axis = -1,
    *,
    where: AnyArray | None = None,
    reduction: Reduction = "mean",
    dtype: Any = None,
) -> tuple[Array, Array]:
    """Return the entropy and its gradient with respect to `logits`.

    Parameters
    ----------
    logits, axis, where, dtype
        As for `softmax_entropy`.
    reduction : {"none", "mean", "sum"}
        How the entropies are combined, and which entropy to differentiate.

    Returns
    -------
    entropy, gradient
        As `softmax_entropy` and `grad_softmax_entropy` return them.

    Raises
    ------
    TypeError, ValueError
        As for `softmax_entropy`.

    Examples
    --------
    >>> import numpy as np
    >>> entropy, gradient = value_and_grad_softmax_entropy(np.zeros((1, 2)))
    >>> float(entropy)
    0.6931471805599453
    """
    entropy, gradient = _run(
        kernels.ENTROPY_AND_GRADIENT, {"logits": logits}, axis, where=where, reduction=reduction, dtype=dtype
    )
    return entropy, gradient


@gives_array
def softmax_kl_divergence(
    logits: Array,
    reference_logits: AnyArray,
    axis: Axis = -1,
    *,
    where: AnyArray | None = None,
    reduction: Reduction = "none",
    dtype: Any = None,
) -> Array:
    """Return the Kullback-Leibler divergence of predictions from a reference, by default for each example.

    This is KL(q || p), where ``p`` is the softmax of `logits` and ``q`` that of `reference_logits`: what a
    cross-entropy with the target probabilities ``q`` exceeds the entropy of ``q`` by. For KL(p || q), swap the two.

    Parameters
    ----------
    logits : array (..., C, ...)
        Unnormalized log-probabilities of the predictions, in nats, of any real floating or integer dtype.
    reference_logits : array of the shape of `logits`
        Those of the reference: a teacher, an earlier policy, or the model before it was quantized.
    axis, where
        As for `softmax_entropy`. A class that `where` excludes has no part in either distribution. If `where` excludes
        every class, the divergence is 0.
    reduction : {"none", "mean", "sum"}
        How the divergences of the examples are combined; "mean" divides by the number of examples, as PyTorch's
        "batchmean" does.
    dtype : dtype, or its name, optional
        dtype of the result; by default that of `logits`. The computation uses at least float32, and at least the dtype
        of either array.

    Returns
    -------
    array of the shape of `logits` without `axis`, or 0-d array
        In nats, never negative, and 0 where the two distributions are equal. inf if a class of logit -inf is possible
        for the reference, or if it would be near the largest number of the dtype. NaN if the example has NaN or +inf,
        or nothing but -inf, in either array.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape or range is not as above.

    Notes
    -----
    With the deviation ``a`` of ``logits - reference_logits`` from its mean under ``q``, the divergence is
    ``log1p(sum of q * (exp(a) - 1 - a))``, a sum without a negative term. The usual form, ``sum of q * (log(q) -
    log(p))``, cancels where the distributions nearly agree. docs/numerics.md derives it, and bounds its error.

    Examples
    --------
    >>> import numpy as np
    >>> softmax_kl_divergence(np.asarray([[0.0, 1e-9], [0.0, 1.0]]), np.zeros((2, 2)))
    array([1.25000000e-19, 1.20114507e-01])
    """
    (divergences,) = _run(
        kernels.KL_DIVERGENCE,
        {"logits": logits, "reference_logits": reference_logits},
        axis,
        where=where,
        reduction=reduction,
        dtype=dtype,
    )
    return divergences


@gives_pair
def grad_softmax_kl_divergence(
    logits: Array,
    reference_logits: AnyArray,
    axis: Axis = -1,
    *,
    where: AnyArray | None = None,
    reduction: Reduction = "mean",
    dtype: Any = None,
) -> tuple[Array, Array]:
    """Return the gradients of the Kullback-Leibler divergence with respect to both arrays, by default of its mean.

    Parameters
    ----------
    logits, reference_logits, axis, where, dtype
        As for `softmax_kl_divergence`.
    reduction : {"none", "mean", "sum"}
        The divergence to differentiate. With "none", each row is the gradient of its own example's divergence.

    Returns
    -------
    gradient, reference_gradient : arrays of the shape of `logits`
        With respect to `logits` and to `reference_logits`, both in the dtype of the result. NaN for an example whose
        divergence is NaN, but 0 for classes that `where` excludes. Where the divergence is inf, the first is finite,
        and the second NaN.

    Raises
    ------
    TypeError, ValueError
        As for `softmax_kl_divergence`.

    Notes
    -----
    ``p - q``, computed as ``q * expm1(a - KL)``, and ``-q * a``, with the deviation ``a`` of `softmax_kl_divergence`.

    Examples
    --------
    >>> import numpy as np
    >>> gradient, reference_gradient = grad_softmax_kl_divergence(np.asarray([[0.0, 1e-20]]), np.zeros((1, 2)))
    >>> gradient
    array([[-2.5e-21,  2.5e-21]])
    """
    return value_and_grad_softmax_kl_divergence(
        logits, reference_logits, axis, where=where, reduction=reduction, dtype=dtype
    )[1]


@gives_array_and_pair
def value_and_grad_softmax_kl_divergence(
    logits: Array,
    reference_logits: AnyArray,
    axis: Axis = -1,
    *,
    where: AnyArray | None = None,
    reduction: Reduction = "mean",
    dtype: Any = None,
) -> tuple[Array, tuple[Array, Array]]:
    """Return the Kullback-Leibler divergence and its gradients with respect to both arrays.

    Parameters
    ----------
    logits, reference_logits, axis, where, dtype
        As for `softmax_kl_divergence`.
    reduction : {"none", "mean", "sum"}
        How the divergences are combined, and which divergence to differentiate.

    Returns
    -------
    divergence, (gradient, reference_gradient)
        As `softmax_kl_divergence` and `grad_softmax_kl_divergence` return them.

    Raises
    ------
    TypeError, ValueError
        As for `softmax_kl_divergence`.

    Examples
    --------
    >>> import numpy as np
    >>> divergence, _ = value_and_grad_softmax_kl_divergence(np.asarray([[0.0, 1e-9]]), np.zeros((1, 2)))
    >>> float(divergence)
    1.25e-19
    """
    divergence, *gradients = _run(
        kernels.KL_DIVERGENCE_AND_GRADIENTS,
        {"logits": logits, "reference_logits": reference_logits},
        axis,
        where=where,
        reduction=reduction,
        dtype=dtype,
    )
    return divergence, (gradients[0], gradients[1])


@gives_array
def softmax_js_divergence(
    logits: Array,
    reference_logits: AnyArray,
    axis: Axis = -1,
    *,
    reference_weight: float = 0.5,
    where: AnyArray | None = None,
    reduction: Reduction = "none",
    dtype: Any = None,
) -> Array:
    """Return the Jensen-Shannon divergence between predictions and a reference, by default for each example.

    It is ``s * KL(q || m) + (1 - s) * KL(p || m)``, where ``p`` is the softmax of `logits`, ``q`` that of
    `reference_logits`, ``s`` is `reference_weight`, and ``m = s * q + (1 - s) * p`` (Lin 1991, doi:10.1109/18.61115).

    Parameters
    ----------
    logits, reference_logits, axis, where, reduction, dtype
        As for `softmax_kl_divergence`.
    reference_weight : float
        The weight of the reference in the mixture, between 0 and 1. With 0.5, the divergence is symmetric.

    Returns
    -------
    array of the shape of `logits` without `axis`, or 0-d array
        In nats, at least 0, and at most ``log(2)`` but for rounding, for a reference weight of 0.5. NaN if the example
        has NaN or +inf, or nothing but -inf, in either array.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape or range is not as above.

    Notes
    -----
    Computed as a sum without a negative term, from the logarithm of ``p / q`` that `softmax_kl_divergence` rests on.

    Examples
    --------
    >>> import numpy as np
    >>> softmax_js_divergence(np.asarray([[0.0, 1e-9], [0.0, -np.inf]]), np.asarray([[0.0, 0.0], [-np.inf, 0.0]]))
    array([3.12500000e-20, 6.93147181e-01])
    """
    (divergences,) = _run(
        kernels.JS_DIVERGENCE,
        {"logits": logits, "reference_logits": reference_logits},
        axis,
        where=where,
        reduction=reduction,
        dtype=dtype,
        reference_weight=reference_weight,
    )
    return divergences


@gives_pair
def grad_softmax_js_divergence(
    logits: Array,
    reference_logits: AnyArray,
    axis: Axis = -1,
    *,
    reference_weight: float = 0.5,
    where: AnyArray | None = None,
    reduction: Reduction = "mean",
    dtype: Any = None,
) -> tuple[Array, Array]:
    """Return the gradients of the Jensen-Shannon divergence with respect to both arrays, by default of its mean.

    Parameters
    ----------
    logits, reference_logits, axis, reference_weight, where, dtype
        As for `softmax_js_divergence`.
    reduction : {"none", "mean", "sum"}
        The divergence to differentiate. With "none", each row is the gradient of its own example's divergence.

    Returns
    -------
    gradient, reference_gradient : arrays of the shape of `logits`
        With respect to `logits` and to `reference_logits`, both in the dtype of the result. NaN for an example whose
        divergence is NaN, but 0 for classes that `where` excludes.

    Raises
    ------
    TypeError, ValueError
        As for `softmax_js_divergence`.

    Notes
    -----
    ``-(1 - s) * p * (log(m / p) + KL(p || m))`` and ``-s * q * (log(m / q) + KL(q || m))``.

    Examples
    --------
    >>> import numpy as np
    >>> gradient, reference_gradient = grad_softmax_js_divergence(np.asarray([[0.0, 1e-9]]), np.zeros((1, 2)))
    >>> gradient
    array([[-6.25e-11,  6.25e-11]])
    """
    return value_and_grad_softmax_js_divergence(
        logits, reference_logits, axis, reference_weight=reference_weight, where=where, reduction=reduction, dtype=dtype
    )[1]


@gives_array_and_pair
def value_and_grad_softmax_js_divergence(
    logits: Array,
    reference_logits: AnyArray,
    axis: Axis = -1,
    *,
    reference_weight: float = 0.5,
    where: AnyArray | None = None,
    reduction: Reduction = "mean",
    dtype: Any = None,
) -> tuple[Array, tuple[Array, Array]]:
    """Return the Jensen-Shannon divergence and its gradients with respect to both arrays.

    Parameters
    ----------
    logits, reference_logits, axis, reference_weight, where, dtype
        As for `softmax_js_divergence`.
    reduction : {"none", "mean", "sum"}
        How the divergences are combined, and which divergence to differentiate.

    Returns
    -------
    divergence, (gradient, reference_gradient)
        As `softmax_js_divergence` and `grad_softmax_js_divergence` return them.

    Raises
    ------
    TypeError, ValueError
        As for `softmax_js_divergence`.

    Examples
    --------
    >>> import numpy as np
    >>> divergence, _ = value_and_grad_softmax_js_divergence(np.asarray([[0.0, 1e-9]]), np.zeros((1, 2)))
    >>> float(divergence)
    3.125e-20
    """
    divergence, *gradients = _run(
        kernels.JS_DIVERGENCE_AND_GRADIENTS,
        {"logits": logits, "reference_logits": reference_logits},
        axis,
        where=where,
        reduction=reduction,
        dtype=dtype,
        reference_weight=reference_weight,
    )
    return divergence, (gradients[0], gradients[1])


def _run(kernel: Kernel, given: dict[str, Any], axis: Axis, **options: Any) -> tuple[Any, ...]:
    checked = compared(given, axis, **options)
    return run(kernel, checked.lib, checked.layout, checked.logits, checked.comparison, checked.rows)
