"""Softmax and its logarithm."""

import math
from types import ModuleType
from typing import Any, TypeVar

from stable_softmax import _blocks, _cores
from stable_softmax._arguments import Axis, Rows, namespace_of, rows_of, where_of
from stable_softmax._axes import along_one_axis, can_merge
from stable_softmax._conversion import converted

Array = TypeVar("Array")


def softmax(logits: Array, axis: Axis = -1, *, where: Array | None = None, dtype: Any = None) -> Array:
    """Return the probabilities that `logits` stand for.

    Parameters
    ----------
    logits : array (..., C, ...)
        Unnormalized log-probabilities, in nats, of any real floating or integer dtype.
    axis : int, tuple of int, or None
        The axes that hold the classes. None means all.
    where : boolean array that broadcasts to `logits`, optional
        The classes to leave. The others have probability 0, whatever their logits hold.
    dtype : dtype, optional
        Of the result. The work is done in at least this precision, and in at least float32.

    Returns
    -------
    array of the shape of `logits`
        Each entry within a few rounding errors of its exact value. NaN for a row that holds NaN or +inf, or nothing
        but -inf; 0 where `where` leaves nothing of a row.

    Raises
    ------
    TypeError, ValueError
        Where an argument's type, dtype, shape or range is not as above.

    Notes
    -----
    ``exp(z - max(z)) / sum(exp(z - max(z)))``, the more accurate of the two shifted forms; see
    Blanchard, Higham and Higham (2021), doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import numpy as np
    >>> softmax(np.asarray([1000.0, 1000.0, -np.inf]))
    array([0.5, 0.5, 0. ])
    """
    return _normalized(_cores.softmax, logits, axis, where, dtype, excluded=0.0)


def log_softmax(logits: Array, axis: Axis = -1, *, where: Array | None = None, dtype: Any = None) -> Array:
    """Return the logarithms of the probabilities that `logits` stand for.

    Parameters
    ----------
    logits, axis, where, dtype
        As for `softmax`.

    Returns
    -------
    array of the shape of `logits`
        In nats; -inf for a logit of -inf, and for what `where` excludes. NaN for a row that holds NaN or +inf, or
        nothing but -inf.

    Raises
    ------
    TypeError, ValueError
        As for `softmax`.

    Notes
    -----
    ``(z - max(z)) - log1p(sum of exp(z - max(z)) without the maximum's own 1)``. Leaving the 1 out keeps the
    log-probability of a class that leads by far: it is tiny, but not 0.

    Examples
    --------
    >>> import numpy as np
    >>> log_softmax(np.asarray([50.0, 0.0]))
    array([-1.92874985e-22, -5.00000000e+01])
    """
    return _normalized(_cores.log_softmax, logits, axis, where, dtype, excluded=-math.inf)


def logsumexp(
    logits: Array, axis: Axis = -1, *, where: Array | None = None, keepdims: bool = False, dtype: Any = None
) -> Array:
    """Return the logarithm of the sum of the exponentials of `logits`.

    Parameters
    ----------
    logits, axis, where, dtype
        As for `softmax`.
    keepdims : bool
        Whether to keep the reduced axes, with length 1.

    Returns
    -------
    array of the shape of `logits` without `axis`
        In nats. -inf where all logits are -inf, +inf where one is +inf, NaN where one is NaN.

    Raises
    ------
    TypeError, ValueError
        As for `softmax`.

    Notes
    -----
    ``max(z) + log1p(sum of exp(z - max(z)) without the maximum's own 1)``.

    Examples
    --------
    >>> import numpy as np
    >>> float(logsumexp(np.asarray([1000.0, 1000.0])))
    1000.6931471805599
    """
    xp = namespace_of(logits=logits) if where is None else namespace_of(logits=logits, where=where)
    if not isinstance(keepdims, bool):
        raise TypeError(f"keepdims must be True or False, not {keepdims!r}")
    rows = rows_of(xp, logits, axis, dtype)
    totals = converted(xp, _run(_cores.logsumexp, xp, rows, where, "rows"), rows.dtype)
    return totals if keepdims else xp.squeeze(totals, axis=rows.axes)


def _normalized(function: Any, logits: Any, axis: Axis, where: Any, dtype: Any, excluded: float) -> Any:
    xp = namespace_of(logits=logits) if where is None else namespace_of(logits=logits, where=where)
    rows = rows_of(xp, logits, axis, dtype)
    return _run(function, xp, rows, where, "classes", excluded)


def _run(
    function: Any, xp: ModuleType, rows: Rows, where: Any, result: _blocks.Result, excluded: float | None = None
) -> Any:
    if where is None:
        return _blocks.run(_of_rows, xp, rows, results=(result,), function=function)
    where = where_of(xp, where, rows)
    return _blocks.run(_masked, xp, rows, where, results=(result,), function=function, excluded=excluded)


def _of_rows(xp: ModuleType, logits: Any, axes: tuple[int, ...], function: Any) -> Any:
    if can_merge(xp, logits, axes):
        return along_one_axis(xp, function, logits, axes)
    return function(xp, logits, axes=axes)


def _masked(
    xp: ModuleType, logits: Any, where: Any, axes: tuple[int, ...], function: Any, excluded: float | None
) -> Any:
    """Return the function of the logits that the mask leaves, and `excluded`, unless None, for the others."""
    values = _of_rows(xp, xp.where(where, logits, -xp.inf), axes, function)
    return values if excluded is None else xp.where(where, values, excluded)
