"""`softmax`, `log_softmax` and `logsumexp` with the arguments of `scipy.special`: array-likes in, NumPy out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

import stable_softmax

__all__ = ["log_softmax", "logsumexp", "softmax"]


def softmax(x: ArrayLike, axis: int | tuple[int, ...] | None = None) -> Any:
    """Return the softmax of `x`, by default over all axes, as `scipy.special.softmax`.

    Examples
    --------
    >>> softmax([1000, 1000])
    array([0.5, 0.5])
    """
    return stable_softmax.softmax(_numpy_array(x), axis)


def log_softmax(x: ArrayLike, axis: int | tuple[int, ...] | None = None) -> Any:
    """Return the logarithm of the softmax of `x`, by default over all axes, as `scipy.special.log_softmax`.

    Examples
    --------
    >>> log_softmax([50.0, 0.0])
    array([-1.92874985e-22, -5.00000000e+01])
    """
    return stable_softmax.log_softmax(_numpy_array(x), axis)


def logsumexp(
    a: ArrayLike,
    axis: int | tuple[int, ...] | None = None,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: bool = False,
) -> Any:
    """Return the logarithm of the sum of ``b * exp(a)``, by default over all axes, as `scipy.special.logsumexp`.

    Examples
    --------
    >>> logarithm, sign = logsumexp([0, 1000], b=[1, -1], return_sign=True)
    >>> float(logarithm), float(sign)
    (1000.0, -1.0)
    """
    exponents, weights = _numpy_array(a), None if b is None else _numpy_array(b)
    # Numbers, unlike arrays without dimensions, leave the dtype of the other array as it is.
    pairs: list[tuple[Any, Any]] = [(a, exponents)] if weights is None else [(a, exponents), (b, weights)]
    common = np.result_type(*(given if isinstance(given, (bool, int, float)) else array for given, array in pairs))
    dtype = common if common.kind == "f" else np.dtype(np.float64)
    return stable_softmax.logsumexp(
        _numbers(exponents, dtype),
        axis,
        weights=None if weights is None else _numbers(weights, dtype),
        return_sign=bool(return_sign),
        keepdims=bool(keepdims),
        dtype=dtype,
    )


def _numbers(array: Any, dtype: Any) -> Any:
    return array.astype(dtype) if array.dtype == np.bool_ else array


def _numpy_array(given: Any) -> Any:
    # Masked arrays stay what they are, and are refused, rather than lose their mask.
    return given if isinstance(given, np.ma.MaskedArray) else np.asarray(given)
