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
    if "torch._dynamo" in sys.modules and is_compiled_torch(*arrays):  # pragma: no cover - traced, never run
        from stable_softmax._libraries.torch import TRACED

        return TRACED
    xp = array_namespace(*arrays)
    library = _LIBRARIES.get(xp)
    if library is None:
        library = _LIBRARIES[xp] = _library(xp)
    return library.for_arrays(*arrays)


def is_array(value: Any) -> bool:
    """Whether a value is an array, traced ones included."""
    return is_compiled_torch(value) or is_array_api_obj(value)


def is_compiled_torch(*values: Any) -> bool:
    """Whether these are tensors that PyTorch compiles.

    It warns of caches, such as those in array-api-compat's answers.
    """
    if "torch._dynamo" not in sys.modules:  # nor may PyTorch be there as a whole, while another thread imports it
        return False
    torch: Any = sys.modules["torch"]
    return torch.compiler.is_compiling() and all(isinstance(value, torch.Tensor) for value in values)


def _library(xp: ModuleType) -> Library:
    name = _MODULES.get(xp.__name__)
    if name is None:
        return Library(xp)
    library: Library = import_module(f"stable_softmax._libraries.{name}").LIBRARY
    return library
