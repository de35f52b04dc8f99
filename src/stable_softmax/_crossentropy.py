"""Softmax cross-entropy: loss, gradient, both at once, Hessian times a vector, and diagonal of the Hessian."""

from __future__ import annotations

from typing import Any

from stable_softmax._arguments.options import Loss, Options, loss_of
from stable_softmax._arguments.signatures import gives_array, gives_pair
from stable_softmax._arguments.types import AnyArray, Array, Reduction
from stable_softmax._core.kernel import Kernel
from stable_softmax._execution.run import run
from stable_softmax._maths import kernels


@gives_array
def softmax_crossentropy_with_logits(
    logits: Array,
    reference_answers: AnyArray,
    axis: int | tuple[int, ...] = -1,
    *,
    where: AnyArray | None = None,
    class_weights: AnyArray | None = None,
    example_weights: AnyArray | None = None,
    label_smoothing: float | AnyArray = 0.0,
    ignore_index: int | None = None,
    z_loss: float | AnyArray = 0.0,
    reduction: Reduction = "none",
    dtype: Any = None,
) -> Array:
    """Return the softmax cross-entropy: the negative log-probability of the label, by default for each example.

    Parameters
    ----------
    logits : array (..., C, ...)
        Unnormalized log-probabilities, in nats, of any real floating or integer dtype.
    reference_answers : integer array of the shape of `logits` without `axis`, or real array of the shape of `logits`
        The labels: the class id of each example, in [0, C), or target probabilities `t`. These must be at least
        -0.001, and need not sum to 1: the loss is linear in them. Targets of classes that `where` excludes do not
        count: if the targets should sum to 1, normalize them over the other classes.
    axis : int, or tuple of int
        The axis that holds the classes: 1 for logits (N, C, H, W). If another axis has the same length, a wrong `axis`
        cannot be detected. Several axes hold the classes in C order: with ``axis=(1, 2)``, the classes of logits
        (N, A, B) are A B in number, and that at (a, b) has the id ``a * B + b``.
    where : boolean array that broadcasts to `logits`, optional
        Mask of the classes to keep. The others have probability 0, whatever their logits are. If `where` excludes every
        class, the loss for target probabilities is 0, and every class id is out of range.
    class_weights : array (C,), optional
        Weight `w` of each class, finite and not negative. With class ids, "mean" divides by the summed weights of the
        labels, as PyTorch does.
    example_weights : array of the shape of `logits` without `axis`, optional
        What each example counts, `v`, finite and not negative: its loss is multiplied by it. "mean" divides by the sum
        of `v`; with class ids and class weights, by the sum of `v * w[y]`. An example of weight 0 is ignored, whatever
        its logits and its label or targets are.
    label_smoothing : float or 0-d array
        Share of the target to spread evenly over the classes, in [0, 1].
    ignore_index : int, optional
        The class id of examples to ignore: their loss and gradient are 0, whatever their logits are.
    z_loss : float or 0-d array
        Coefficient of the penalty ``logsumexp**2`` that is added to the loss of each example. At least 0, and at most
        half the largest number of the dtype of the computation.
    reduction : {"none", "mean", "sum"}
        How the losses of the examples are combined. If all examples are ignored, the mean is 0.
    dtype : dtype, or its name, optional
        dtype of the result; by default that of the logits. The computation uses at least float32.

    Returns
    -------
    array with one entry for each example, or 0-d array
        The losses in nats. NaN if the example's logits hold NaN or +inf, or are all -inf; inf if the label's logit is
        -inf.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape or range is not as above. Values are checked on eager CPU arrays; with JAX
        and Dask, and on GPUs, a class id or target out of range gives NaN instead.

    Notes
    -----
    For logits `z`, shifted into the dtype's range, and label `y`, the loss is ``log1p(sum of exp(z) over the other
    classes / exp(z_y))``. The sum leaves the label out, so that the loss of a confident prediction is tiny, but not 0.
    With options, it is ``sum of q * -log_softmax(z)``, where 0 times infinity is 0, and the targets are those of
    PyTorch's ``cross_entropy``: ``q = w_y * (1 - smoothing) * onehot(y) + w * smoothing / C`` for class ids, and
    ``q = w * ((1 - smoothing) * t + smoothing / C)`` for target probabilities.

    Examples
    --------
    >>> import numpy as np
    >>> softmax_crossentropy_with_logits(np.asarray([[50.0, 0.0], [0.0, 0.0]]), np.asarray([0, 1]))
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
    loss = loss_of(logits, reference_answers, axis, options)
    (losses,) = _run(kernels.LOSSES, loss, loss.criterion)
    return losses


@gives_array
def grad_softmax_crossentropy_with_logits(
    logits: Array,
    reference_answers: AnyArray,
    axis: int | tuple[int, ...] = -1,
    *,
    where: AnyArray | None = None,
    class_weights: AnyArray | None = None,
    example_weights: AnyArray | None = None,
    label_smoothing: float | AnyArray = 0.0,
    ignore_index: int | None = None,
    z_loss: float | AnyArray = 0.0,
    reduction: Reduction = "mean",
    dtype: Any = None,
) -> Array:
    """Return the gradient of the softmax cross-entropy with respect to `logits`, by default that of the batch mean.

    Parameters
    ----------
    logits, reference_answers, axis, where, class_weights, example_weights, label_smoothing,
    ignore_index, z_loss, dtype
        As for `softmax_crossentropy_with_logits`.
    reduction : {"none", "mean", "sum"}
        The loss to differentiate. With "none", each row is the gradient of its own example's loss.

    Returns
    -------
    array of the shape of `logits`
        NaN for an example whose loss is NaN, but 0 for classes that `where` excludes.

    Raises
    ------
    TypeError, ValueError
        As for `softmax_crossentropy_with_logits`.

    Notes
    -----
    For class ids, ``-(sum of exp(z) over the other classes) / sum of exp(z)`` at the label, where ``p_y - 1`` would be
    0 as soon as ``p_y`` rounds to 1, and ``p_j`` at the other classes.

    Examples
    --------
    >>> import numpy as np
    >>> grad_softmax_crossentropy_with_logits(np.asarray([[50.0, 0.0]]), np.asarray([0]))
    array([[-1.92874985e-22,  1.92874985e-22]])
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
    loss = loss_of(logits, reference_answers, axis, options)
    (gradient,) = _run(kernels.GRADIENT, loss, loss.criterion)
    return gradient


@gives_pair
def value_and_grad_softmax_crossentropy_with_logits(
    logits: Array,
    reference_answers: AnyArray,
    axis: int | tuple[int, ...] = -1,
    *,
    where: AnyArray | None = None,
    class_weights: AnyArray | None = None,
    example_weights: AnyArray | None = None,
    label_smoothing: float | AnyArray = 0.0,
    ignore_index: int | None = None,
    z_loss: float | AnyArray = 0.0,
    reduction: Reduction = "mean",
    dtype: Any = None,
) -> tuple[Array, Array]:
    """Return the softmax cross-entropy and its gradient with respect to `logits`, from the same exponentials.

    Parameters
    ----------
    logits, reference_answers, axis, where, class_weights, example_weights, label_smoothing,
    ignore_index, z_loss, dtype
        As for `softmax_crossentropy_with_logits`.
    reduction : {"none", "mean", "sum"}
        How the losses are combined, and which loss to differentiate.

    Returns
    -------
    loss, gradient
        As `softmax_crossentropy_with_logits` and `grad_softmax_crossentropy_with_logits` return them.

    Raises
    ------
    TypeError, ValueError
        As for `softmax_crossentropy_with_logits`.

    Examples
    --------
    >>> import numpy as np
    >>> loss, gradient = value_and_grad_softmax_crossentropy_with_logits(np.zeros((2, 2)), np.asarray([0, 1]))
    >>> float(loss)
    0.6931471805599453
    >>> gradient
    array([[-0.25,  0.25],
           [ 0.25, -0.25]])
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
    loss = loss_of(logits, reference_answers, axis, options)
    losses, gradient = _run(kernels.LOSSES_AND_GRADIENT, loss, loss.criterion)
    return losses, gradient


@gives_array
def hvp_softmax_crossentropy_with_logits(
    logits: Array,
    reference_answers: AnyArray,
    vector: AnyArray,
    axis: int | tuple[int, ...] = -1,
    *,
    where: AnyArray | None = None,
    class_weights: AnyArray | None = None,
    example_weights: AnyArray | None = None,
    label_smoothing: float | AnyArray = 0.0,
    ignore_index: int | None = None,
    z_loss: float | AnyArray = 0.0,
    reduction: Reduction = "mean",
    dtype: Any = None,
) -> Array:
    """Return the Hessian of the softmax cross-entropy times a vector, without building the Hessian.

    Parameters
    ----------
    logits, reference_answers, axis, where, class_weights, example_weights, label_smoothing,
    ignore_index, z_loss, dtype
        As for `softmax_crossentropy_with_logits`.
    vector : array of the shape of `logits`
        The vector to multiply the Hessian by, of any real floating or integer dtype.
    reduction : {"none", "mean", "sum"}
        The loss to differentiate. "none" and "sum" give the same: no example's loss depends on another's logits.

    Returns
    -------
    array of the shape of `logits`
        NaN for an example whose loss is NaN, but 0 for classes that `where` excludes.

    Raises
    ------
    TypeError, ValueError
        As for `softmax_crossentropy_with_logits`, and if `vector` is not as above.

    Notes
    -----
    ``p * (w - sum(p * w))``, where ``w = v - v_m`` and ``m`` is the class of the largest logit. This equals
    ``p * v - p * sum(p * v)``, but there all digits cancel once one class leads by far.

    Examples
    --------
    >>> import numpy as np
    >>> hvp_softmax_crossentropy_with_logits(np.asarray([[50.0, 0.0]]), np.asarray([0]), np.asarray([[0.0, 1.0]]))
    array([[-1.92874985e-22,  1.92874985e-22]])
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
    loss = loss_of(logits, reference_answers, axis, options, vector=vector)
    (product,) = _run(kernels.HESSIAN_PRODUCT, loss, (loss.vector, loss.criterion))
    return product


@gives_array
def hessian_diagonal_softmax_crossentropy_with_logits(
    logits: Array,
    reference_answers: AnyArray,
    axis: int | tuple[int, ...] = -1,
    *,
    where: AnyArray | None = None,
    class_weights: AnyArray | None = None,
    example_weights: AnyArray | None = None,
    label_smoothing: float | AnyArray = 0.0,
    ignore_index: int | None = None,
    z_loss: float | AnyArray = 0.0,
    reduction: Reduction = "mean",
    dtype: Any = None,
) -> Array:
    """Return the diagonal of the Hessian of the softmax cross-entropy with respect to `logits`.

    A custom objective for gradient boosting returns it beside the gradient, both with ``reduction="none"``.

    Parameters
    ----------
    logits, reference_answers, axis, where, class_weights, example_weights, label_smoothing,
    ignore_index, z_loss, dtype
        As for `softmax_crossentropy_with_logits`.
    reduction : {"none", "mean", "sum"}
        The loss to differentiate. "none" and "sum" give the same: no example's loss depends on another's logits.

    Returns
    -------
    array of the shape of `logits`
        NaN for an example whose loss is NaN, but 0 for classes that `where` excludes.

    Raises
    ------
    TypeError, ValueError
        As for `softmax_crossentropy_with_logits`.

    Notes
    -----
    ``p_j * (1 - p_j)``. For the most probable class, ``1 - p_j`` is computed as the sum of the other probabilities,
    since the difference is 0 as soon as ``p_j`` rounds to 1. Targets ``q`` multiply the diagonal by their sum, and the
    penalty adds ``2 * z_loss * (logsumexp * p_j * (1 - p_j) + p_j**2)``.

    Examples
    --------
    >>> import numpy as np
    >>> hessian_diagonal_softmax_crossentropy_with_logits(np.asarray([[50.0, 0.0]]), np.asarray([0]))
    array([[1.92874985e-22, 1.92874985e-22]])
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
    loss = loss_of(logits, reference_answers, axis, options)
    (diagonal,) = _run(kernels.HESSIAN_DIAGONAL, loss, loss.criterion)
    return diagonal


def _run(kernel: Kernel, loss: Loss, operands: Any) -> tuple[Any, ...]:
    kinds, axes = kernel.results[loss.rows], loss.class_axes
    if loss.criterion.class_ids is None and "classes" in kinds:
        # Pieces of a row cannot keep the target of the most probable class apart from the other targets.
        kernel = kernel.on_whole_rows
    results = run(kernel, loss.lib, loss.layout, loss.logits, operands, loss.rows)
    if axes is None:
        return results
    pairs = zip(results, kinds, strict=True)
    return tuple([axes.restored(loss.lib, array) if kind == "classes" else array for array, kind in pairs])
