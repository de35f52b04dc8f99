"""What each array library lets the code do: one class a library, which is found once for each call."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from array_api_compat import array_namespace, is_array_api_obj

from stable_softmax._libraries.standard import Library

#: The modules of this package by the namespaces that they are about. Others are known by the array API standard alone.
_MODULES = {
    "numpy": "numpy",
    "array_api_compat.numpy": "numpy",
    "array_api_strict": "strict",
    "array_api_compat.cupy": "cupy",
    "dask.array": "dask",
    "array_api_compat.dask.array": "dask",
    "jax.numpy": "jax",
    "torch": "torch",
    "array_api_compat.torch": "torch",
}
_LIBRARIES: dict[ModuleType, Library] = {}


def library_of(*arrays: Any) -> Library:
    """Return what the library that all arrays are of lets the code do with them."""
    torch = _compiling_torch() if "torch._dynamo" in sys.modules else None
    if torch and all(isinstance(array, torch.Tensor) for array in arrays):  # pragma: no cover - traced, never run
        from stable_softmax._libraries.torch import TRACED

        return TRACED
    xp = array_namespace(*arrays)
    library = _LIBRARIES.get(xp)
    if library is None:
        library = _LIBRARIES[xp] = _library(xp)
    return library.for_arrays(*arrays)


def is_array(value: Any) -> bool:
    """Whether a value is an array, traced ones included."""
    torch = _compiling_torch() if "torch._dynamo" in sys.modules else None
    return isinstance(value, torch.Tensor) if torch else is_array_api_obj(value)


def _compiling_torch() -> Any:
    """Return PyTorch while it compiles: it warns of caches, such as those in array-api-compat's answers."""
    # Whether its compiler is there is asked before: PyTorch is not as a whole, while another thread imports it.
    torch: Any = sys.modules["torch"]
    return torch if torch.compiler.is_compiling() else None


def _library(xp: ModuleType) -> Library:
    name = _MODULES.get(xp.__name__)
    if name is None:
        return Library(xp)
    library: Library = import_module(f"stable_softmax._libraries.{name}").LIBRARY
    return library
