"""Which library an array is of, and what that library lets the code do."""

import sys
from types import ModuleType
from typing import Any

from array_api_compat import array_namespace, is_array_api_obj


def namespace(*arrays: Any) -> ModuleType:
    """Return the array namespace that all arrays share."""
    torch = _compiling_torch()
    if torch and all(isinstance(array, torch.Tensor) for array in arrays):  # pragma: no cover - traced, never run
        import array_api_compat.torch as xp

        return xp
    found: ModuleType = array_namespace(*arrays)
    return found


def is_array(value: Any) -> bool:
    """Whether a value is an array, traced ones included."""
    torch = _compiling_torch()
    return isinstance(value, torch.Tensor) if torch else is_array_api_obj(value)


def _compiling_torch() -> Any:
    """Return PyTorch while it compiles: it warns of caches, such as those in array-api-compat's answers."""
    if "torch._dynamo" not in sys.modules:  # nor may PyTorch be there as a whole, while another thread imports it
        return None
    torch: Any = sys.modules["torch"]
    return torch if torch.compiler.is_compiling() else None


def is_numpy(xp: ModuleType) -> bool:
    """Whether arrays are NumPy's."""
    # By name: importing the first of these takes as long as NumPy itself.
    return xp.__name__ in ("array_api_compat.numpy", "numpy")


def is_torch(xp: ModuleType) -> bool:
    """Whether arrays are PyTorch's."""
    return xp.__name__ in ("torch", "array_api_compat.torch")


def is_jax(xp: ModuleType) -> bool:
    """Whether arrays are JAX's."""
    return xp.__name__ == "jax.numpy"


def is_dask(xp: ModuleType) -> bool:
    """Whether arrays are made of chunks, each of which is worked on later."""
    return xp.__name__ in ("dask.array", "array_api_compat.dask.array")


def is_strict(xp: ModuleType) -> bool:
    """Whether arrays are those of array-api-strict, which has NumPy do the work."""
    return xp.__name__ == "array_api_strict"


def is_eager(xp: ModuleType, array: Any) -> bool:
    """Whether each operation on `array` runs at once on the CPU, on values that can be read for free.

    If not, values cannot steer the code, and a compiler may fuse operations and contract their roundings.
    """
    return is_numpy(xp) or is_writable(xp, array) or is_strict(xp)


def is_writable(xp: ModuleType, array: Any) -> bool:
    """Whether an eager array also gives and takes values at an array of indices, which the standard leaves out."""
    if is_numpy(xp):
        return True
    if not is_torch(xp):
        return False
    from stable_softmax._libraries._torch import is_plain

    return is_plain(array)


def is_indexable(xp: ModuleType, array: Any) -> bool:
    """Whether an array gives and takes values at an array of indices at once, on whatever device they lie."""
    if not is_torch(xp):
        return is_numpy(xp)
    from stable_softmax._libraries._torch import runs_at_once

    return runs_at_once(array)


def runs_in_parts(xp: ModuleType, *arrays: Any) -> bool:
    """Whether parts of arrays may be worked on one after another, with nothing between that records the work."""
    if is_numpy(xp):
        return True
    if not is_torch(xp):
        return False
    from stable_softmax._libraries import _torch

    return _torch.needs_no_graph(*arrays)


def is_constant(xp: ModuleType, *arrays: Any) -> bool:
    """Whether no derivative with respect to any of these arrays can be asked for."""
    if is_jax(xp):
        from stable_softmax._libraries import _jax

        return not any(map(_jax.is_traced, arrays))
    if is_torch(xp):
        from stable_softmax._libraries import _torch

        return _torch.is_constant(*arrays)
    return True


def warns(xp: ModuleType) -> bool:
    """Whether NumPy does the work, which warns of overflow and of invalid values."""
    return is_numpy(xp) or is_strict(xp)


def takes_numpy(xp: ModuleType) -> bool:
    """Whether the library's own functions take NumPy arrays beside its own."""
    return is_jax(xp) or is_dask(xp)


def is_split(xp: ModuleType, array: Any, axis: int) -> bool:
    """Whether `axis` is known to lie on several devices, so that nothing may be picked by an index along it."""
    if is_jax(xp):
        from stable_softmax._libraries import _jax

        return _jax.is_sharded(array, axis)
    if is_torch(xp):
        from stable_softmax._libraries import _torch

        return _torch.is_sharded(array, axis)
    return False
