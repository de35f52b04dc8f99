"""The cross-entropy of the softmax, its gradient, both at once, and its Hessian: times a vector, and the diagonal."""

from typing import Any

from stable_softmax._arguments.options import Loss, Options, loss_of
from stable_softmax._arguments.types import AnyArray, Array, Reduction
from stable_softmax._core.kernel import Kernel
from stable_softmax._execution.run import run
from stable_softmax._maths import kernels


def softmax_crossentropy_with_logits(
    logits: Array,
    reference_answers: AnyArray,
    axis: int = -1,
    *,
    where: AnyArray | None = None,
    class_weights: AnyArray | None = None,
    label_smoothing: float | AnyArray = 0.0,
    ignore_index: int | None = None,
    z_loss: float | AnyArray = 0.0,
    reduction: Reduction = "none",
    dtype: Any = None,
) -> Array:
    """Return the negative log-probability of the right class, by default for each example.

    Parameters
    ----------
    logits : array (..., C, ...)
        Unnormalized log-probabilities, in nats, of any real floating or integer dtype.
    reference_answers : integer array of the shape of `logits` without `axis`, or real array of the shape of `logits`
        The labels: the class id of each example, in [0, C); or target probabilities `t`. These must not be below
        -0.001, and need not sum to 1: the loss is linear in them. Targets of classes that `where` excludes do not
        count: normalize them over the other classes if they are to sum to 1.
    axis : int
        The axis that holds the classes: 1 for logits (N, C, H, W). If another axis has the same length, a wrong `axis`
        cannot be detected.
    where : boolean array that broadcasts to `logits`, optional
        The classes to keep. The others have probability 0, whatever their logits hold. If every class is excluded, the
        loss for target probabilities is 0, and every class id is out of range.
    class_weights : array (C,), optional
        Finite and not negative: `w` below. With class ids, "mean" divides by the summed weights of the labels, as
        PyTorch does.
    label_smoothing : float, or array ()
        The share of the target that is spread evenly over the classes, in [0, 1].
    ignore_index : int, optional
        The class id of examples to ignore: their loss and gradient are 0, whatever their logits hold.
    z_loss : float, or array ()
        Coefficient of the penalty ``logsumexp**2`` that is added to the loss of each example. Not negative, and at most
        half the largest number of the dtype of the computation.
    reduction : {"none", "mean", "sum"}
        How the losses of the examples are combined. If all examples are ignored, the mean is 0.
    dtype : dtype, or its name, optional
        dtype of the result; by default that of the logits. The computation uses at least float32.

    Returns
    -------
    array with one entry for each example, or of shape ()
        The losses in nats. NaN for a row that holds NaN or +inf, or nothing but -inf; inf if the label's logit is -inf.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape or range is not as above. Values are checked in eager CPU arrays; under JAX
        and Dask, and on GPUs, a class id or target out of range gives NaN instead.

    Notes
    -----
    ``log1p(sum of exp(z) over the other classes / exp(z_y))``, of logits that are shifted into the dtype's range.
    The sum leaves the label out, so that a confident prediction keeps its loss: it is tiny, but not 0. The options make
    it ``sum of q * -log_softmax(z)``, where 0 times infinity is 0, with ``q = w_y * (1 - smoothing) * onehot(y) +
    w * smoothing / C``, or ``w * ((1 - smoothing) * t + smoothing / C)``, as in PyTorch's ``cross_entropy``.

    Examples
    --------
    >>> import numpy as np
    >>> softmax_crossentropy_with_logits(np.asarray([[50.0, 0.0], [0.0, 0.0]]), np.asarray([0, 1]))
    array([1.92874985e-22, 6.93147181e-01])
    """
    options = Options(
        where=where,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        z_loss=z_loss,
        reduction=reduction,
        dtype=dtype,
    )
    loss = loss_of(logits, reference_answers, axis, options)
    (losses,) = _run(kernels.LOSSES, loss, loss.criterion)
    return losses


def grad_softmax_crossentropy_with_logits(
    logits: Array,
    reference_answers: AnyArray,
    axis: int = -1,
    *,
    where: AnyArray | None = None,
    class_weights: AnyArray | None = None,
    label_smoothing: float | AnyArray = 0.0,
    ignore_index: int | None = None,
    z_loss: float | AnyArray = 0.0,
    reduction: Reduction = "mean",
    dtype: Any = None,
) -> Array:
    """Return the gradient of the cross-entropy with respect to `logits`, by default that of the batch mean.

    Parameters
    ----------
    logits, reference_answers, axis, where, class_weights, label_smoothing, ignore_index, z_loss, dtype
        As for `softmax_crossentropy_with_logits`.
    reduction : {"none", "mean", "sum"}
        Which loss to differentiate. With "none", each row is the gradient of its own example's loss.

    Returns
    -------
    array of the shape of `logits`
        Rows of NaN where the loss is NaN, but 0 for what `where` excludes.

    Raises
    ------
    TypeError, ValueError
        As for `softmax_crossentropy_with_logits`.

    Notes
    -----
    ``p_j`` for the other classes. At the right class ``-(sum of exp(z) over the other classes) / sum of exp(z)``,
    and not ``p_y - 1``, which is 0 as soon as ``p_y`` rounds to 1.

    Examples
    --------
    >>> import numpy as np
    >>> grad_softmax_crossentropy_with_logits(np.asarray([[50.0, 0.0]]), np.asarray([0]))
    array([[-1.92874985e-22,  1.92874985e-22]])
    """
    options = Options(
        where=where,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        z_loss=z_loss,
        reduction=reduction,
        dtype=dtype,
    )
    loss = loss_of(logits, reference_answers, axis, options)
    (gradient,) = _run(kernels.GRADIENT, loss, loss.criterion)
    return gradient


def value_and_grad_softmax_crossentropy_with_logits(
    logits: Array,
    reference_answers: AnyArray,
    axis: int = -1,
    *,
    where: AnyArray | None = None,
    class_weights: AnyArray | None = None,
    label_smoothing: float | AnyArray = 0.0,
    ignore_index: int | None = None,
    z_loss: float | AnyArray = 0.0,
    reduction: Reduction = "mean",
    dtype: Any = None,
) -> tuple[Array, Array]:
    """Return the cross-entropy and its gradient from one evaluation of the exponentials.

    Parameters
    ----------
    logits, reference_answers, axis, where, class_weights, label_smoothing, ignore_index, z_loss, dtype
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

    Notes
    -----
    The formulas of the two functions, over the same exponentials.

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
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        z_loss=z_loss,
        reduction=reduction,
        dtype=dtype,
    )
    loss = loss_of(logits, reference_answers, axis, options)
    losses, gradient = _run(kernels.LOSSES_AND_GRADIENT, loss, loss.criterion)
    return losses, gradient


def hvp_softmax_crossentropy_with_logits(
    logits: Array,
    reference_answers: AnyArray,
    vector: AnyArray,
    axis: int = -1,
    *,
    where: AnyArray | None = None,
    class_weights: AnyArray | None = None,
    label_smoothing: float | AnyArray = 0.0,
    ignore_index: int | None = None,
    z_loss: float | AnyArray = 0.0,
    reduction: Reduction = "mean",
    dtype: Any = None,
) -> Array:
    """Return the Hessian of the cross-entropy with respect to `logits` times a vector, without building the Hessian.

    Parameters
    ----------
    logits, reference_answers, axis, where, class_weights, label_smoothing, ignore_index, z_loss, dtype
        As for `softmax_crossentropy_with_logits`.
    vector : array of the shape of `logits`
        What to multiply the Hessian with, of any real floating or integer dtype.
    reduction : {"none", "mean", "sum"}
        Which loss to differentiate. No example's loss depends on another's logits, so "none" and "sum" give the same.

    Returns
    -------
    array of the shape of `logits`
        Rows of NaN where the loss is NaN, but 0 for what `where` excludes.

    Raises
    ------
    TypeError, ValueError
        As for `softmax_crossentropy_with_logits`, and where `vector` is not as above.

    Notes
    -----
    ``p * (w - sum(p * w))`` with ``w = v - v_m`` and ``m`` the class of the largest logit. The Hessian maps constants
    to 0, so that this is ``p * v - p * sum(p * v)``, of which all digits cancel once one class leads by far.

    Examples
    --------
    >>> import numpy as np
    >>> hvp_softmax_crossentropy_with_logits(np.asarray([[50.0, 0.0]]), np.asarray([0]), np.asarray([[0.0, 1.0]]))
    array([[-1.92874985e-22,  1.92874985e-22]])
    """
    options = Options(
        where=where,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        z_loss=z_loss,
        reduction=reduction,
        dtype=dtype,
    )
    loss = loss_of(logits, reference_answers, axis, options, vector=vector)
    (product,) = _run(kernels.HESSIAN_PRODUCT, loss, (loss.vector, loss.criterion))
    return product


def hessian_diagonal_softmax_crossentropy_with_logits(
    logits: Array,
    reference_answers: AnyArray,
    axis: int = -1,
    *,
    where: AnyArray | None = None,
    class_weights: AnyArray | None = None,
    label_smoothing: float | AnyArray = 0.0,
    ignore_index: int | None = None,
    z_loss: float | AnyArray = 0.0,
    reduction: Reduction = "mean",
    dtype: Any = None,
) -> Array:
    """Return the diagonal of the Hessian of the cross-entropy with respect to `logits`.

    Gradient boosting divides by it: a custom objective returns it with the gradient, both with ``reduction="none"``.

    Parameters
    ----------
    logits, reference_answers, axis, where, class_weights, label_smoothing, ignore_index, z_loss, dtype
        As for `softmax_crossentropy_with_logits`.
    reduction : {"none", "mean", "sum"}
        Which loss to differentiate. No example's loss depends on another's logits, so "none" and "sum" give the same.

    Returns
    -------
    array of the shape of `logits`
        Rows of NaN where the loss is NaN, but 0 for what `where` excludes.

    Raises
    ------
    TypeError, ValueError
        As for `softmax_crossentropy_with_logits`.

    Notes
    -----
    ``p_j * (1 - p_j)``, where ``1 - p_j`` of the most probable class is the sum of the others' probabilities: the
    difference is 0 as soon as its probability rounds to 1. Targets ``q`` multiply it by their sum, and the penalty adds
    ``2 * z_loss * (logsumexp * p_j * (1 - p_j) + p_j**2)``.

    Examples
    --------
    >>> import numpy as np
    >>> hessian_diagonal_softmax_crossentropy_with_logits(np.asarray([[50.0, 0.0]]), np.asarray([0]))
    array([[1.92874985e-22, 1.92874985e-22]])
    """
    options = Options(
        where=where,
        class_weights=class_weights,
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
    if loss.criterion.class_ids is None and "classes" in kernel.results[loss.rows]:
        # In pieces, the target of the most probable class could not be told apart from the others.
        kernel = kernel.on_whole_rows
    return run(kernel, loss.lib, loss.layout, loss.logits, operands, loss.rows)
