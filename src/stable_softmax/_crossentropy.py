"""The cross-entropy of the softmax against class ids, its gradient, both at once, and its Hessian times a vector."""

from functools import partial
from types import ModuleType
from typing import Any, TypeVar

from stable_softmax import _blocks, _cores
from stable_softmax._arguments import (
    Reduction,
    Rows,
    check_reduction,
    check_single_axis,
    class_ids_of,
    namespace_of,
    rows_of,
    vector_of,
)
from stable_softmax._labels import check_class_ids
from stable_softmax._results import gradient_divisor, reduced, rounded

Array = TypeVar("Array")


def softmax_crossentropy_with_logits(
    logits: Array, reference_answers: Array, axis: int = -1, *, reduction: Reduction = "none", dtype: Any = None
) -> Array:
    """Return the negative log-probability of the right class, by default for each example.

    Parameters
    ----------
    logits : array (..., C, ...)
        Unnormalized log-probabilities, in nats, of any real floating or integer dtype.
    reference_answers : integer array of the shape of `logits` without `axis`
        The right class of each example, in [0, C).
    axis : int
        The axis that holds the classes.
    reduction : {"none", "mean", "sum"}
        Over the examples. The mean over none is 0.
    dtype : dtype, optional
        Of the result. The work is done in at least this precision, and in at least float32.

    Returns
    -------
    array of the shape of `reference_answers`, or of shape ()
        In nats. NaN for a row that holds NaN or +inf, or nothing but -inf; inf for a logit of -inf at the right class.

    Raises
    ------
    TypeError, ValueError
        Where an argument's type, dtype, shape or range is not as above. A class id out of range gives NaN instead
        where reading values is not free: under JAX and Dask, and on GPUs.

    Notes
    -----
    With ``d = z - max(z)``, ``log1p(sum of exp(d) over the other classes + expm1(d_y)) - d_y``. Neither term is
    negative, so a confident prediction keeps its loss: it is tiny, but not 0.

    Examples
    --------
    >>> import numpy as np
    >>> softmax_crossentropy_with_logits(np.asarray([[50.0, 0.0], [0.0, 0.0]]), np.asarray([0, 1]))
    array([1.92874985e-22, 6.93147181e-01])
    """
    xp = namespace_of(logits=logits, reference_answers=reference_answers)
    rows, class_ids = _examples_of(xp, logits, reference_answers, axis, reduction, dtype)
    kernel = partial(_cores.crossentropy, axis=rows.axes[0])
    losses = _blocks.run(kernel, xp, rows.logits, class_ids, axes=rows.axes, keep_classes=False)
    return rounded(xp, reduced(xp, losses, rows.axes[0], reduction), rows.dtype)


def grad_softmax_crossentropy_with_logits(
    logits: Array, reference_answers: Array, axis: int = -1, *, reduction: Reduction = "mean", dtype: Any = None
) -> Array:
    """Return the gradient of the cross-entropy with respect to `logits`, by default that of the batch mean.

    Parameters
    ----------
    logits, reference_answers, axis, dtype
        As for `softmax_crossentropy_with_logits`.
    reduction : {"none", "mean", "sum"}
        Of the loss. With "none", each row is the gradient of its own example's loss.

    Returns
    -------
    array of the shape of `logits`
        Rows of NaN where the loss is NaN.

    Raises
    ------
    TypeError, ValueError
        As for `softmax_crossentropy_with_logits`.

    Notes
    -----
    ``p_j`` for the other classes. At the right class ``-(sum of exp(d) over the other classes) / sum of exp(d)``,
    and not ``p_y - 1``, which is 0 as soon as ``p_y`` rounds to 1.

    Examples
    --------
    >>> import numpy as np
    >>> grad_softmax_crossentropy_with_logits(np.asarray([[50.0, 0.0]]), np.asarray([0]))
    array([[-1.92874985e-22,  1.92874985e-22]])
    """
    xp = namespace_of(logits=logits, reference_answers=reference_answers)
    rows, class_ids = _examples_of(xp, logits, reference_answers, axis, reduction, dtype)
    divisor = gradient_divisor(logits, rows.axes[0], reduction)
    kernel = partial(_cores.crossentropy_gradient, axis=rows.axes[0], divisor=divisor)
    gradient = _blocks.run(kernel, xp, rows.logits, class_ids, axes=rows.axes, keep_classes=True)
    return rounded(xp, gradient, rows.dtype)


def value_and_grad_softmax_crossentropy_with_logits(
    logits: Array, reference_answers: Array, axis: int = -1, *, reduction: Reduction = "mean", dtype: Any = None
) -> tuple[Array, Array]:
    """Return the cross-entropy and its gradient from one evaluation of the exponentials.

    Parameters
    ----------
    logits, reference_answers, axis, dtype
        As for `softmax_crossentropy_with_logits`.
    reduction : {"none", "mean", "sum"}
        Of the loss, and of the loss that the gradient is of.

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
    xp = namespace_of(logits=logits, reference_answers=reference_answers)
    rows, class_ids = _examples_of(xp, logits, reference_answers, axis, reduction, dtype)
    divisor = gradient_divisor(logits, rows.axes[0], reduction)
    kernel = partial(_cores.crossentropy_and_gradient, axis=rows.axes[0], divisor=divisor)
    losses, gradient = _blocks.run(kernel, xp, rows.logits, class_ids, axes=rows.axes, keep_classes=(False, True))
    return rounded(xp, reduced(xp, losses, rows.axes[0], reduction), rows.dtype), rounded(xp, gradient, rows.dtype)


def hvp_softmax_crossentropy_with_logits(
    logits: Array,
    reference_answers: Array,
    vector: Array,
    axis: int = -1,
    *,
    reduction: Reduction = "mean",
    dtype: Any = None,
) -> Array:
    """Return the Hessian of the cross-entropy with respect to `logits` times a vector, without building the Hessian.

    Parameters
    ----------
    logits, reference_answers, axis, dtype
        As for `softmax_crossentropy_with_logits`.
    vector : array of the shape of `logits`
        What to multiply the Hessian with, of any real floating or integer dtype.
    reduction : {"none", "mean", "sum"}
        Of the loss. No example's loss depends on another's logits, so "none" and "sum" give the same.

    Returns
    -------
    array of the shape of `logits`
        Rows of NaN where the loss is NaN.

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
    xp = namespace_of(logits=logits, reference_answers=reference_answers, vector=vector)
    rows, class_ids = _examples_of(xp, logits, reference_answers, axis, reduction, dtype)
    options = {"axis": rows.axes[0], "divisor": gradient_divisor(logits, rows.axes[0], reduction)}

    def kernel(xp: ModuleType, logits: Any, class_ids: Any, vector: Any) -> Any:
        return _cores.hessian_product(xp, vector, logits, class_ids, **options)

    vector = vector_of(xp, vector, rows.logits)
    product = _blocks.run(kernel, xp, rows.logits, class_ids, vector, axes=rows.axes, keep_classes=True)
    return rounded(xp, product, rows.dtype)


def _examples_of(
    xp: ModuleType, logits: Any, reference_answers: Any, axis: int, reduction: Reduction, dtype: Any
) -> tuple[Rows, Any]:
    """Check all arguments of a loss before any work is done."""
    check_reduction(reduction)
    check_single_axis(axis)
    rows = rows_of(xp, logits, axis, dtype)
    class_ids = class_ids_of(xp, reference_answers, logits, rows.axes[0])
    check_class_ids(xp, class_ids, reference_answers, logits.shape[rows.axes[0]])
    return rows, class_ids
