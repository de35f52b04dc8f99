"""Conversion between dtypes."""

from types import ModuleType
from typing import Any

from stable_softmax._libraries import is_dask, namespace
from stable_softmax._libraries._operations import unreported


def converted(xp: ModuleType, values: Any, dtype: Any) -> Any:
    """Convert to a dtype; NumPy does not warn where its range is exceeded.

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
    with unreported(xp):
        return xp.astype(values, dtype)
