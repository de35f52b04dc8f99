"""The questions that the code asks about the library behind an array, and what has no one form for all libraries."""

import math
import sys
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj

# Below, dividing the work into blocks would cost more than it saves.
_SMALL = 4096


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
    return xp.__name__ in ("numpy", "array_api_compat.numpy")


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
    return is_writable(xp, array) or is_strict(xp)


def warns(xp: ModuleType) -> bool:
    """Whether NumPy does the work, which warns of overflow and of invalid values."""
    return is_numpy(xp) or is_strict(xp)


def underflow_ignored(xp: ModuleType) -> AbstractContextManager[Any]:
    """Return a context in which NumPy lets numbers underflow: exponentials do so rightly, whatever the caller wants."""
    return np.errstate(under="ignore") if warns(xp) else nullcontext()


def is_writable(xp: ModuleType, array: Any) -> bool:
    """Whether an eager array also gives and takes values at an array of indices, which the standard leaves out."""
    if is_numpy(xp):
        return True
    if not is_torch(xp):
        return False
    from stable_softmax._libraries._torch import is_plain

    return is_plain(array)


def in_blocks(xp: ModuleType, logits: Any) -> bool:
    """Whether the work on an array is done block by block: parts of it can be read and stored, and it is large."""
    return is_numpy(xp) and logits.size > _SMALL


def is_dense(array: Any) -> bool:
    """Whether an array holds each of its numbers, unlike sparse, nested and quantized ones."""
    module = type(array).__module__.partition(".")[0]
    if module != "torch":
        return module != "sparse"
    return not array.is_quantized and not array.is_nested and str(array.layout) == "torch.strided"


def refuse_masked(name: str, array: Any) -> None:
    """Raise for the masked arrays of NumPy and PyTorch, and for Dask's where it knows that its chunks are such."""
    chunk = getattr(array, "_meta", array)
    if isinstance(chunk, np.ma.MaskedArray) or type(array).__name__ == "MaskedTensor":
        raise TypeError(f"{name} must not be a masked array: pass its data, and the mask's inverse as where")


def computed_dtype(xp: ModuleType, dtype: Any) -> Any:
    """Return the dtype that results have: with 64 bits off, JAX computes with float64 arrays in float32."""
    return xp.result_type(dtype) if is_jax(xp) else dtype


def dtype_object(xp: ModuleType, dtype: Any) -> Any:
    """Return a dtype as arrays have it, and not as a scalar type."""
    return dtype if is_torch(xp) else xp.empty(0, dtype=dtype).dtype


def autocast_dtype(xp: ModuleType, logits: Any) -> Any:
    """Return the dtype that PyTorch's autocast gives to a loss; None where it does not."""
    if not is_torch(xp):
        return None
    from stable_softmax._libraries import _torch

    return _torch.autocast_dtype(logits)


def takes_numpy(xp: ModuleType) -> bool:
    """Whether the library's own functions take NumPy arrays beside its own."""
    return is_jax(xp) or is_dask(xp)


def strides_of(array: Any) -> tuple[int, ...]:
    """Return how far apart in memory neighbours along each axis are."""
    return tuple(array.strides)


def pairwise_length(xp: ModuleType, array: Any, axis: int) -> int:
    """Return how many neighbours along an axis the library adds nearly as a tree: 1 if it adds one after another."""
    if is_numpy(xp):
        # As much as its buffers hold, which older versions add up one after another.
        return 8192 if array.flags.c_contiguous and math.prod(array.shape[axis + 1 :]) == 1 else 1
    if is_torch(xp):
        # Its registers are added up one after another, and are filled in rounds of 16.
        return 128 if array.stride(axis) == 1 else 1
    return 1


def is_split(xp: ModuleType, array: Any, axis: int) -> bool:
    """Whether `axis` is known to lie on several devices, so that nothing may be picked by an index along it."""
    if is_jax(xp):
        from stable_softmax._libraries import _jax

        return _jax.is_sharded(array, axis)
    if is_torch(xp):
        from stable_softmax._libraries import _torch

        return _torch.is_sharded(array, axis)
    return False


def indices_along(xp: ModuleType, length: int, like: Any, dtype: Any) -> Any:
    """Return 0, 1, ... on the device, or the devices, of an array."""
    # JAX moves what has no device of its own to where the others are. Its `device` is a sharding, which may not fit.
    place = None if is_jax(xp) else getattr(like, "device", None)
    indices = xp.arange(length, dtype=dtype, device=place)
    if not is_torch(xp):
        return indices
    from stable_softmax._libraries import _torch

    return _torch.replicated(indices, like)


def entries_along(xp: ModuleType, rows: Any, indices: Any, axis: int) -> Any:
    """Return the entries of rows at indices, of which there is one for each row."""
    if is_torch(xp):
        # take_along_dim makes its compiler compile anew for each size.
        return rows.gather(axis, indices)
    if not hasattr(xp, "take_along_axis"):
        shape = (1,) * axis + (-1,) + (1,) * (rows.ndim - axis - 1)
        chosen = xp.reshape(indices_along(xp, rows.shape[axis], indices, indices.dtype), shape) == indices
        if rows.dtype == xp.bool:
            return xp.any(chosen & rows, axis=axis, keepdims=True)
        return xp.sum(xp.where(chosen, rows, xp.zeros_like(rows)), axis=axis, keepdims=True)
    return xp.take_along_axis(rows, indices, axis=axis)


def nan_where(xp: ModuleType, condition: Any, values: Any) -> Any:
    """Return the values, and NaN where the condition holds."""
    if is_jax(xp):
        # Its debuggers report a NaN constant, whether anything becomes NaN or not.
        return values * xp.sqrt(xp.where(condition, -1.0, 1.0))
    return xp.where(condition, xp.nan, values)


def computed_alone(xp: ModuleType, values: Any) -> Any:
    """Return the values, computed before anything that depends on them."""
    if not is_jax(xp):
        return values
    from stable_softmax._libraries._jax import apart

    return apart(values)


def without_gradient(xp: ModuleType, array: Any) -> Any:
    """Return an array for its values alone."""
    return array.detach() if is_torch(xp) else array


def native(xp: ModuleType, values: Any) -> Any:
    """Return a result in the form that the library's own functions have: scalars instead of NumPy's 0-d arrays."""
    return values[()] if is_numpy(xp) and values.ndim == 0 else values
