"""The documented error bound as a number: how far a result may be from its exact value."""

import math
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stable_softmax.reference.exact import Exact


class Precision(NamedTuple):
    """The properties of a floating-point format that the bound depends on."""

    significant_bits: int
    smallest_exponent: int
    largest: float

    @property
    def unit_roundoff(self) -> float:
        """Half the distance from 1 to the next larger number."""
        return 2.0**-self.significant_bits

    @property
    def smallest_normal(self) -> float:
        """The smallest positive normal number."""
        return 2.0**self.smallest_exponent

    @property
    def smallest(self) -> float:
        """The smallest positive number."""
        return 2.0 ** (self.smallest_exponent - self.significant_bits + 1)


PRECISIONS = {
    "float16": Precision(11, -14, 65504.0),
    "bfloat16": Precision(8, -126, float.fromhex("0x1.fep127")),
    "float32": Precision(24, -126, float.fromhex("0x1.fffffep127")),
    "float64": Precision(53, -1022, float.fromhex("0x1.fffffffffffffp1023")),
}


class Dtype(StrEnum):
    """The keys of `PRECISIONS`, as choices of a command-line option."""

    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"
    float64 = "float64"


def rounded(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Round to the numbers of a dtype; those of bfloat16 are returned in a wider dtype, unless they had it."""
    with np.errstate(all="ignore"):
        if dtype != "bfloat16" or values.dtype.name == dtype:
            return values.astype(dtype, copy=False)
        values = values.astype(np.result_type(values.dtype, np.float32))
        precision = PRECISIONS[dtype]
        steps = np.maximum(np.frexp(values)[1], precision.smallest_exponent + 1) - precision.significant_bits
        return np.ldexp(np.rint(np.ldexp(values, -steps)), steps)


def representable(values: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    """Return the nearest numbers that a dtype can represent."""
    return rounded(values, dtype).astype(np.float64)


def units_allowed(logits: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    """Return for each row the relative error that is allowed for normal numbers of the dtype of the computation."""
    working = _working(dtype)
    logits = logits.astype(np.float64)
    with np.errstate(over="ignore"):
        spans = logits.max(axis=1) - logits.min(axis=1)
    spans = np.minimum(spans, -math.log(working.smallest_normal))
    return np.asarray((spans + 2 * math.log2(logits.shape[1]) + 16) * working.unit_roundoff)


def error_shares(values: NDArray[Any], exact: Exact, logits: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    """Return each error as a share of the documented bound: at most 1 within the bound, NaN for a NaN.

    `values` and `exact` are (examples, classes), or (examples,), `logits` (examples, classes); `dtype` is the result's.
    """
    working, classes = _working(dtype), logits.shape[1]
    units = units_allowed(logits, dtype)
    if values.ndim == 2:
        units = units[:, None]
    allowed = units * np.abs(exact.nearest) + classes * working.smallest_normal
    result = PRECISIONS[dtype]
    if result is not working:
        # One more rounding, to a format whose subnormal numbers are evenly spaced.
        allowed += result.unit_roundoff * np.maximum(np.abs(exact.nearest) * (1 + units), result.smallest_normal)
    errors = exact.error(values)
    # Values that round beyond the largest number are infinite.
    beyond = np.abs(exact.nearest) * (1 + units) > result.largest
    errors = np.where(beyond & (values == np.copysign(np.inf, exact.nearest)), 0, errors)
    with np.errstate(invalid="ignore"):
        shares = errors / allowed
    return np.where(errors == 0, 0, shares)


def _working(dtype: str) -> Precision:
    return PRECISIONS["float64" if dtype == "float64" else "float32"]
