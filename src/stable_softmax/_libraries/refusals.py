"""Refusals of values that are not arrays of plain numbers of a supported library, with advice for the caller."""

from typing import Any

import numpy as np

from stable_softmax._libraries import is_array

# Types that NumPy converts to arrays.
_CONVERTIBLE = (list, tuple, float, int, np.matrix)
_BY_NUMPY = "numpy.asarray({})"
#: Code that converts another library's array to a supported one.
_CONVERSIONS = dict.fromkeys(("tensorflow", "pandas", "polars", "xarray", "pyarrow", "h5py"), _BY_NUMPY) | {
    "zarr": "dask.array.from_zarr({})",
    "blosc2": "{}[...]",
    "scipy": "{}.toarray()",
    "pint": "{}.magnitude",
    "paddle": "{}.numpy()",
    "tinygrad": "{}.numpy()",
}
#: Libraries that have the namespace of the standard, but not its functions.
_REFUSED = ("blosc2",)


def check_is_array(name: str, value: Any) -> None:
    """Raise TypeError for a value that is not an array of numbers, and say what to pass instead."""
    type_name = type_name_of(value)
    if type_name == "torch.fx.proxy.Proxy":
        raise TypeError(f"{name} is a proxy of torch.fx, which has no shape: trace with torch.export or make_fx")
    if isinstance(value, np.matrix) or _root(value) in _REFUSED or not is_array(value):
        conversion = _BY_NUMPY if isinstance(value, _CONVERTIBLE) else _CONVERSIONS.get(_root(value))
        raise TypeError(
            f"{name} must be an array of a library that array-api-compat supports (NumPy, JAX, PyTorch, Dask, ...), "
            f"not {type_name}{f': pass {conversion.format(name)}' if conversion else ''}"
        )
    refuse_masked(name, value)
    _refuse_units(name, value)
    if not _is_dense(value):
        raise TypeError(f"{name} must be a dense array of numbers: this {type_name} is not")


def refuse_masked(name: str, array: Any) -> None:
    """Raise for masked arrays of NumPy and PyTorch, and for Dask arrays that are known to have masked chunks."""
    chunk = getattr(array, "_meta", array)
    if isinstance(chunk, np.ma.MaskedArray) or type(array).__name__ == "MaskedTensor":
        raise TypeError(f"{name} must not be a masked array: pass its data, and the mask's inverse as where")


def _refuse_units(name: str, array: Any) -> None:
    """Raise for quantities, such as those of astropy and unyt, whose numbers depend on the unit."""
    unit = getattr(array, "unit", getattr(array, "units", None)) if isinstance(array, np.ndarray) else None
    if unit is not None and str(unit) not in ("", "dimensionless"):
        raise TypeError(
            f"{name} must be plain numbers, not a quantity in {str(unit)!r}: divide it by its unit, "
            f"or pass {name}.value"
        )


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
