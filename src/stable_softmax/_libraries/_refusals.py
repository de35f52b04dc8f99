"""What is no array of a supported library, or whose entries are not what they seem, and what to do about it."""

from typing import Any

import numpy as np

from stable_softmax._libraries import is_array

# Of which NumPy makes arrays.
_CONVERTIBLE = (list, tuple, float, int, np.matrix)
_CONVERTERS = dict.fromkeys(("tensorflow", "pandas", "polars", "xarray"), "numpy.asarray") | {
    "zarr": "dask.array.from_zarr"
}


def check_is_array(name: str, value: Any) -> None:
    """Raise a TypeError for what is not an array of numbers, and say what to pass instead."""
    type_name = type_name_of(value)
    if type_name == "torch.fx.proxy.Proxy":
        raise TypeError(f"{name} is a proxy of torch.fx, which has no shape: trace with torch.export or make_fx")
    if isinstance(value, np.matrix) or not is_array(value):
        converter = "numpy.asarray" if isinstance(value, _CONVERTIBLE) else _CONVERTERS.get(_root(value))
        raise TypeError(
            f"{name} must be an array of a library that array-api-compat supports (NumPy, JAX, PyTorch, Dask, ...), "
            f"not {type_name}{f': pass {converter}({name})' if converter else ''}"
        )
    refuse_masked(name, value)
    if not _is_dense(value):
        raise TypeError(f"{name} must be a dense array of numbers: this {type_name} is not")


def refuse_masked(name: str, array: Any) -> None:
    """Raise for the masked arrays of NumPy and PyTorch, and for Dask's where it knows that its chunks are such."""
    chunk = getattr(array, "_meta", array)
    if isinstance(chunk, np.ma.MaskedArray) or type(array).__name__ == "MaskedTensor":
        raise TypeError(f"{name} must not be a masked array: pass its data, and the mask's inverse as where")


def type_name_of(value: object) -> str:
    """Return the name of a value's type, with its module."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _is_dense(array: Any) -> bool:
    """Whether an array holds each of its numbers, unlike sparse, nested and quantized ones."""
    if _root(array) != "torch":
        return _root(array) != "sparse"
    return not array.is_quantized and not array.is_nested and str(array.layout) == "torch.strided"


def _root(value: object) -> str:
    return type(value).__module__.partition(".")[0]
