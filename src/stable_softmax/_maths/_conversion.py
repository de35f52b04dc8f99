"""Conversion between dtypes."""

from types import ModuleType
from typing import Any

from stable_softmax._libraries import is_dask, namespace, warns
from stable_softmax._libraries._operations import underflow_ignored


def converted(xp: ModuleType, values: Any, dtype: Any) -> Any:
    """Convert to a dtype, without NumPy's warning where its range is exceeded.

    The values themselves are returned if they have the dtype: some libraries take long to find out that nothing is
    to do.
    """
    if values.dtype == dtype:
        return values
    if not xp.isdtype(values.dtype, "real floating") or xp.finfo(dtype).max >= xp.finfo(values.dtype).max:
        return xp.astype(values, dtype)
    if is_dask(xp):
        chunks: Any = values
        return chunks.map_blocks(lambda chunk: converted(namespace(chunk), chunk, dtype), dtype=dtype)
    with underflow_ignored(xp):
        return xp.astype(_to_infinity(xp, values, dtype) if warns(xp) else values, dtype)


def _to_infinity(xp: ModuleType, values: Any, dtype: Any) -> Any:
    """Return the values, and infinity instead of those that the dtype is too narrow for."""
    limits = xp.finfo(dtype)
    largest, epsilon = float(limits.max), float(limits.eps)
    # Half the spacing of the largest numbers; from there on, rounding gives infinity.
    beyond = xp.abs(values) - largest >= largest * (epsilon / (4 - 2 * epsilon))
    return xp.where(beyond & (values > 0), xp.inf, xp.where(beyond, -xp.inf, values))
