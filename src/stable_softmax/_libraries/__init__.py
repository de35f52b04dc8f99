"""One class for each array library: what it can do, and how; each call finds its library once."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from array_api_compat import array_namespace, is_array_api_obj

from stable_softmax._libraries.standard import Library

#: Modules of this package by namespace. Other libraries are used through the array API standard alone.
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
    """Return the library that all arrays belong to, in its form for these arrays."""
    torch = _compiling_torch() if "torch._dynamo" in sys.modules else None
    if torch and all(isinstance(array, torch.Tensor) for array in arrays):  # pragma: no cover - traced, never run
        from stable_softmax._libraries.torch import TRACED

        return TRACED
    xp = array_namespace(*arrays)
    library = _LIBRARIES.get(xp) or _library(xp)
    return library.for_arrays(*arrays) if library.has_forms else library


def is_array(value: Any) -> bool:
    """Whether a value is an array, perhaps a traced one."""
    torch = _compiling_torch() if "torch._dynamo" in sys.modules else None
    return isinstance(value, torch.Tensor) if torch else is_array_api_obj(value)


def _compiling_torch() -> Any:
    """Return PyTorch if it is compiling: its compiler warns of caches, such as those of array-api-compat; else None."""
    # Callers check first that its compiler is imported: another thread may still be importing PyTorch.
    torch: Any = sys.modules["torch"]
    return torch if torch.compiler.is_compiling() else None


def _library(xp: ModuleType) -> Library:
    name = _MODULES.get(xp.__name__)
    if name is None:  # and nothing is kept: some libraries make a new namespace each time
        return Library(xp)
    library: Library = import_module(f"stable_softmax._libraries.{name}").LIBRARY
    _LIBRARIES[xp] = library
    return library
