"""Refusals of values that are not arrays of plain numbers of a supported library, with advice for the caller."""

from typing import Any

import numpy as np

from stable_softmax._libraries import is_array
from stable_softmax._libraries.remedies import REFUSED, remedy_for_value, root_of


def check_is_array(name: str, value: Any, given: dict[str, Any]) -> None:
    """Raise TypeError for a value, one of those given, that is not an array of numbers; say what to pass instead."""
    type_name = type_name_of(value)
    if type_name == "torch.fx.proxy.Proxy":
        raise TypeError(f"{name} is a proxy of torch.fx, which has no shape: trace with torch.export or make_fx")
    if isinstance(value, np.matrix) or root_of(value) in REFUSED or not is_array(value):
        raise TypeError(
            f"{name} must be an array of a library that array-api-compat supports (NumPy, JAX, PyTorch, Dask, ...), "
            f"not {type_name}{remedy_for_value(name, value, given)}"
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
    if root_of(array) != "torch":
        return root_of(array) != "sparse"
    return not array.is_quantized and not array.is_nested and str(array.layout) == "torch.strided"
