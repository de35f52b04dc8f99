"""Softmax, its logarithm and that of its complement, and logsumexp."""

from __future__ import annotations

from typing import Any

from stable_softmax._arguments.arrays import broadcast_shape, layout_of, weights_of, where_of
from stable_softmax._arguments.signatures import gives_array, gives_logarithm_or_pair
from stable_softmax._arguments.types import AnyArray, Array, Axis
from stable_softmax._core.kernel import Kernel
from stable_softmax._core.layout import Result
from stable_softmax._execution.run import run
from stable_softmax._libraries.common import common_library
from stable_softmax._maths import kernels


@gives_array
def softmax(logits: Array, axis: Axis = -1, *, where: AnyArray | None = None, dtype: Any = None) -> Array:
    """Return the softmax of `logits`: the probabilities of the classes.

    Parameters
    ----------
    logits : array (..., C, ...)
        Unnormalized log-probabilities, in nats, of any real floating or integer dtype.
    axis : int, tuple of int, or None
        The axes that hold the classes. None means all, and is needed for 0-d logits, which have one class.
    where : boolean array that broadcasts to `logits`, optional
        Mask of the classes to keep. The others have probability 0, whatever their logits are.
    dtype : dtype, or its name, optional
        dtype of the result; by default that of the logits. The computation uses at least float32.

    Returns
    -------
    array of the shape of `logits`
        Each entry is within a few rounding errors of its exact value. NaN if the example's logits hold NaN or +inf, or
        are all -inf; 0 if `where` excludes every class.

    Raises
    ------
    TypeError, ValueError
        If an argument's type, dtype, shape or range is not as above.

    Notes
    -----
    ``exp(z - s) / sum(exp(z - s))``, the more accurate of two forms with a shift ``s`` (Blanchard, Higham and Higham
    2021, doi:10.1093/imanum/draa038). The shift is ``max(z)`` or less: 0 for most rows.

    Examples
    --------
    >>> import numpy as np
    >>> softmax(np.asarray([1000.0, 1000.0, -np.inf]))
    array([0.5, 0.5, 0. ])
    """
    return _run(kernels.SOFTMAX, logits, axis, where, dtype)[0]


@gives_array
def log_softmax(logits: Array, axis: Axis = -1, *, where: AnyArray | None = None, dtype: Any = None) -> Array:
    """Return the logarithm of the softmax of `logits`: the log-probabilities of the classes.

    Parameters
    ----------
    logits, axis, where, dtype
        As for `softmax`.

    Returns
    -------
    array of the shape of `logits`
        In nats; -inf for a logit of -inf, and for classes that `where` excludes. NaN where `softmax` returns NaN.

    Raises
    ------
    TypeError, ValueError
        As for `softmax`.

    Notes
    -----
    ``(z - max(z)) - log1p(sum of exp(z - max(z)) without the maximum's own 1)``. Leaving the 1 out keeps the
    log-probability of a class that leads by far tiny, but not 0.

    Examples
    --------
    >>> import numpy as np
    >>> log_softmax(np.asarray([50.0, 0.0]))
    array([-1.92874985e-22, -5.00000000e+01])
    """
    return _run(kernels.LOG_SOFTMAX, logits, axis, where, dtype)[0]


@gives_array
def log_softmax_complement(
    logits: Array, axis: Axis = -1, *, where: AnyArray | None = None, dtype: Any = None
) -> Array:
    """Return the logarithm of 1 minus the softmax of `logits`: the log-probability that it is another class.

    Parameters
    ----------
    logits, axis, where, dtype
        As for `softmax`.

    Returns
    -------
    array of the shape of `logits`
        In nats; 0 for a logit of -inf, and for classes that `where` excludes; -inf for the only class that is possible.
        NaN where `softmax` returns NaN.

    Raises
    ------
    TypeError, ValueError
        As for `softmax`.

    Notes
    -----
    For a class that has more than half of the probability, ``log(R) - log1p(R)``, where ``R`` is the sum of ``exp(z -
    max(z))`` over all others. ``log(1 - p)`` would be -inf as soon as ``p`` rounds to 1.

    Examples
    --------
    >>> import numpy as np
    >>> log_softmax_complement(np.asarray([50.0, 0.0]))
    array([-5.00000000e+01, -1.92874985e-22])
    """
    return _run(kernels.LOG_COMPLEMENT, logits, axis, where, dtype)[0]


@gives_logarithm_or_pair
def logsumexp(
    logits: Array,
    axis: Axis = -1,
    *,
    weights: AnyArray | None = None,
    return_sign: bool = False,
    where: AnyArray | None = None,
    keepdims: bool = False,
    dtype: Any = None,
) -> Array | tuple[Array, Array]:
    """Return the logarithm of the sum of the exponentials of `logits`, each times its weight.

    Parameters
    ----------
    logits, axis, where, dtype
        As for `softmax`. The computation uses at least the dtype of floating-point `weights`, too.
    weights : array that broadcasts with `logits`, optional
        What to multiply the exponentials by, of any real floating or integer dtype and of any sign. A class of weight 0
        does not count, whatever its logit is.
    return_sign : bool
        Whether to return the logarithm of the magnitude of the sum, and the sign of the sum.
    keepdims : bool
        Whether to keep the reduced axes, with length 1.

    Returns
    -------
    array of the shape of `logits`, or of `logits` and `weights` broadcast, without `axis`
        In nats. -inf if the sum is 0: all logits are -inf (with derivative 0), none is left, or terms cancel; +inf if
        one is +inf; NaN for NaN, for terms of +inf and -inf, and, without `return_sign`, for a negative sum.
    sign : array of the same shape and dtype, if `return_sign`
        1, -1, or 0 for a sum of 0; NaN where the logarithm is NaN. It has no derivative.

    Raises
    ------
    TypeError, ValueError
        As for `softmax`.

    Notes
    -----
    ``max(z) + log1p(sum of exp(z - max(z)) without the maximum's own 1)``, and likewise with weights, where the largest
    term takes the place of the maximum: docs/numerics.md has the formula, and its bound.

    Examples
    --------
    >>> import numpy as np
    >>> float(logsumexp(np.asarray([1000.0, 1000.0])))
    1000.6931471805599
    >>> logarithm, sign = logsumexp(np.asarray([1000.0, 1000.0]), weights=np.asarray([1.0, -3.0]), return_sign=True)
    >>> float(logarithm), float(sign)
    (1000.6931471805599, -1.0)
    """
    if not isinstance(keepdims, bool):
        raise TypeError(f"keepdims must be True or False, not {keepdims!r}")
    if not isinstance(return_sign, bool):
        raise TypeError(f"return_sign must be True or False, not {return_sign!r}")
    rows: Result = "rows" if keepdims else "examples"
    if weights is not None:
        results = _run_with_weights(logits, weights, axis, where, dtype, rows, return_sign)
    else:
        kernel = kernels.LOGSUMEXP_AND_SIGN if return_sign else kernels.LOGSUMEXP
        results = _run(kernel, logits, axis, where, dtype, rows)
    return results if return_sign else results[0]


def _run_with_weights(
    logits: Any, weights: Any, axis: Axis, where: Any, dtype: Any, rows: Result, return_sign: bool
) -> Any:
    given = {"logits": logits, "weights": weights}
    lib, own = common_library(given if where is None else given | {"where": where})
    logits, weights = own["logits"], own["weights"]
    shape = broadcast_shape("weights", tuple(weights.shape), tuple(logits.shape))
    weights, layout = weights_of(lib, weights, layout_of(lib, shape, logits.dtype, axis, dtype))
    if tuple(logits.shape) != shape:
        logits = lib.xp.broadcast_to(logits, shape)
    operands = None if where is None else where_of(lib, own["where"], layout), weights
    kernel = kernels.WEIGHTED_LOGSUMEXP_AND_SIGN if return_sign else kernels.WEIGHTED_LOGSUMEXP
    return run(kernel, lib, layout, logits, operands, rows)


def _run(kernel: Kernel, logits: Any, axis: Axis, where: Any, dtype: Any, rows: Result = "rows") -> tuple[Any, ...]:
    lib, own = common_library({"logits": logits} if where is None else {"logits": logits, "where": where})
    logits = own["logits"]
    layout = layout_of(lib, tuple(logits.shape), logits.dtype, axis, dtype)
    where = None if where is None else where_of(lib, own["where"], layout)
    return run(kernel, lib, layout, logits, where, rows)
