"""Operations that have no one form for all libraries."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np

from stable_softmax._libraries import (
    is_dask,
    is_jax,
    is_numpy,
    is_torch,
    is_writable,
    namespace,
    runs_in_parts,
    warns,
)


def limit(xp: ModuleType, dtype: Any, name: str) -> Any:
    """Return a limit of a floating dtype, such as "max", as a number that the library's arrays can be combined with.

    Some libraries give NumPy's scalars, whose operators make NumPy's arrays of theirs. Those of NumPy itself may be
    beyond Python's floats.
    """
    value = getattr(xp.finfo(dtype), name)
    return value if is_numpy(xp) else float(value)


def computed_dtype(xp: ModuleType, dtype: Any) -> Any:
    """Return the dtype that results have: with 64 bits off, JAX computes with float64 arrays in float32."""
    return xp.result_type(dtype) if is_jax(xp) else native_dtype(dtype)


def dtype_object(xp: ModuleType, dtype: Any) -> Any:
    """Return a dtype as results have it, and not as a scalar type."""
    return dtype if is_torch(xp) else native_dtype(xp.empty(0, dtype=native_dtype(dtype)).dtype)


def native_dtype(dtype: Any) -> Any:
    """Return a dtype in the byte order of the machine, as results of NumPy have it: other libraries take no other."""
    return dtype.newbyteorder("=") if isinstance(dtype, np.dtype) else dtype


def without_empty_chunks(xp: ModuleType, array: Any) -> Any:
    """Return an array, and Dask's without chunks of length 0: Dask fails to reshape them, or to find their maximum."""
    if not is_dask(xp) or all(0 not in sizes for sizes in array.chunks):
        return array
    if 0 in array.shape:  # which Dask may leave in its chunks
        return xp.zeros_like(array, chunks=array.shape)
    return array.rechunk(tuple(tuple(filter(None, sizes)) for sizes in array.chunks))


def on_one_mesh(xp: ModuleType, arrays: dict[Any, Any]) -> dict[Any, Any]:
    """Return arrays by their names: PyTorch's plain tensors beside DTensors as DTensors, whole on all devices."""
    if not is_torch(xp):
        return arrays
    from stable_softmax._libraries import _torch

    return _torch.on_one_mesh(arrays)


def autocast_dtype(xp: ModuleType, logits: Any) -> Any:
    """Return the dtype that PyTorch's autocast gives to a loss; None where it does not."""
    if not is_torch(xp):
        return None
    from stable_softmax._libraries import _torch

    return _torch.autocast_dtype(logits)


def with_axis(xp: ModuleType, array: Any, axis: int) -> Any:
    """Return an array with one more axis, of length 1."""
    if is_numpy(xp):  # whose own function takes two microseconds more
        return array.reshape((*array.shape[:axis], 1, *array.shape[axis:]))
    return xp.expand_dims(array, axis=axis)


def computed(function: Callable[..., Any], *arrays: Any, into: Any = None) -> Any:
    """Return the function of the arrays, in given memory if there is any."""
    return function(*arrays) if into is None else function(*arrays, out=into)


def computed_in_place(xp: ModuleType, function: Callable[..., Any], *arrays: Any) -> Any:
    """Return the function of the arrays, in the place of the last where the library writes to memory."""
    return computed(function, *arrays, into=arrays[-1] if is_writable(xp, arrays[-1]) else None)


def is_any(xp: ModuleType, values: Any) -> bool:
    """Return whether any value is true, or not 0: of an array whose values can be read for free."""
    return bool(np.count_nonzero(values) if is_numpy(xp) else xp.count_nonzero(values))


def all_in_range(xp: ModuleType, class_ids: Any, classes: int) -> bool:
    """Return whether all class ids lie in [0, classes), without a temporary array."""
    if 0 in class_ids.shape:
        return True
    if is_numpy(xp):  # as unsigned integers, the negative ones are the largest
        return bool(class_ids.view(f"u{class_ids.itemsize}").max() < classes)
    return bool(xp.min(class_ids) >= 0 and xp.max(class_ids) < classes)


def clipped(xp: ModuleType, values: Any, smallest: float, largest: float) -> Any:
    """Return the values, at least and at most so much."""
    if is_numpy(xp):  # whose own function takes several microseconds
        return np.minimum(np.maximum(values, smallest), largest)
    return xp.clip(values, smallest, largest)


def is_known(xp: ModuleType, length: Any) -> bool:
    """Return whether a length is a number, and not one that stands for any."""
    if not is_torch(xp):
        return isinstance(length, int)
    from stable_softmax._libraries import _torch

    return _torch.is_known(length)


def strides_of(array: Any) -> tuple[int, ...]:
    """Return how far apart in memory neighbours along each axis are, in any unit."""
    return tuple(array.strides if isinstance(array, np.ndarray) else array.stride())


def are_neighbours(xp: ModuleType, array: Any, axis: int) -> bool:
    """Return whether the entries along an axis of an array in memory lie next to each other."""
    return bool(array.strides[axis] == array.itemsize if is_numpy(xp) else array.stride(axis) == 1)


def with_neighbours(xp: ModuleType, array: Any) -> Any:
    """Return an array in memory such that the entries along its last axis lie next to each other."""
    if not is_writable(xp, array) or are_neighbours(xp, array, -1):
        return array
    return np.ascontiguousarray(array) if is_numpy(xp) else array.contiguous()


def steady(xp: ModuleType, logits: Any, others: tuple[Any, ...], axis: int) -> tuple[Any, Any]:
    """Return arrays in memory such that what is computed from them lies in one order, for any number of rows.

    Copies are made where the libraries would put another axis than the class axis nearest together: where rows overlap
    or lie in the same memory, and, in PyTorch, where a mask or targets lie in another order than the logits. So they
    are of NumPy's arrays with gaps between all entries: whether exponentials of these come from vector instructions
    depends on the addresses of the arrays.
    """
    is_last = axis == logits.ndim - 1
    if not (logits.flags.c_contiguous if is_numpy(xp) else logits.is_contiguous()):
        strides = strides_of(logits)
        unsteady = [
            length > 1 and (stride <= 0 or (is_last and i != axis and stride <= strides[axis]))
            for i, (length, stride) in enumerate(zip(logits.shape, strides, strict=True))
        ]
        if True in unsteady or (is_numpy(xp) and _has_gaps(logits)):
            logits = np.ascontiguousarray(logits) if is_numpy(xp) else logits.contiguous()
    if is_last and not is_numpy(xp):
        others = tuple(
            with_neighbours(xp, array) if hasattr(array, "ndim") and array.shape[-1] > 1 else array for array in others
        )
    return logits, others


def _has_gaps(array: Any) -> bool:
    """Whether no two entries of NumPy's array lie next to each other in memory."""
    steps = [stride for stride, length in zip(array.strides, array.shape, strict=True) if length > 1]
    return array.itemsize not in steps


def empty(xp: ModuleType, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
    """Return memory where an array has its own."""
    return np.empty(shape, dtype=dtype) if is_numpy(xp) else xp.empty(shape, dtype=dtype, device=like.device)


def block_factor(xp: ModuleType) -> int:
    """Return how many times the memory of one block the library's operations need to be worth their start."""
    if not is_torch(xp):
        return 1
    from stable_softmax._libraries import _torch

    return _torch.block_factor()


def sweep_factor(xp: ModuleType, weight: Any) -> int:
    """Return how many times the memory of NumPy's blocks those of a sweep over projected features are worth."""
    if is_jax(xp):
        from stable_softmax._libraries import _jax

        return _jax.sweep_factor()
    return 16 if is_torch(xp) and weight.is_cuda else 1


def indices_along(xp: ModuleType, length: int, like: Any, dtype: Any) -> Any:
    """Return 0, 1, ... on the device, or the devices, of an array."""
    if is_numpy(xp):
        return np.arange(length, dtype=dtype)
    # JAX moves what has no device of its own to where the others are. Its `device` is a sharding, which may not fit.
    # MLX's arrays have none. What cubed's arrays have is how they are computed, which has to be the same for all.
    names = () if is_jax(xp) else ("device", "spec")
    place = {name: getattr(like, name) for name in names if hasattr(like, name)}
    indices = xp.arange(length, dtype=dtype, **place)
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
    if is_torch(xp):  # a selection of NaN would have derivative 0
        return values * xp.where(condition, xp.nan, xp.ones_like(values))
    return xp.where(condition, xp.nan, values)


def computed_alone(xp: ModuleType, values: Any) -> Any:
    """Return the values, computed before anything that depends on them."""
    if not is_jax(xp):
        return values
    from stable_softmax._libraries._jax import apart

    return apart(values)


def rounded_product(xp: ModuleType, first: Any, second: Any) -> Any:
    """Return the product as it stands: XLA would multiply a constant with other constants first."""
    return computed_alone(xp, first * second)


def without_gradient(xp: ModuleType, array: Any) -> Any:
    """Return an array for its values alone."""
    if is_jax(xp):
        from stable_softmax._libraries._jax import constant

        return constant(array)
    return array.detach() if is_torch(xp) else array


def compiled(xp: ModuleType, function: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    """Return `function(xp, *arrays, **options)`, which JAX compiles once for all arrays of the same shapes and dtypes.

    The options are hashable.
    """
    if not is_jax(xp):
        return function(xp, *arrays, **options)
    from stable_softmax._libraries import _jax

    return _jax.compiled(function, tuple(options.items()), *arrays)


def native(xp: ModuleType, values: Any) -> Any:
    """Return a result in the form that the library's own functions have: scalars instead of NumPy's 0-d arrays."""
    return values[()] if is_numpy(xp) and values.ndim == 0 else values


def unreported(xp: ModuleType) -> AbstractContextManager[Any]:
    """Return a context in which NumPy reports no floating-point errors, whatever `numpy.errstate` the caller has set.

    Underflow, overflow to infinity and NaN are parts of right results here, which the contract describes.
    """
    return np.errstate(all="ignore") if warns(xp) else nullcontext()


def multiplies_narrow(xp: ModuleType, array: Any) -> bool:
    """Return whether the device multiplies an array of a narrow dtype as it is, many times faster than a wider one."""
    if is_jax(xp):
        from stable_softmax._libraries import _jax

        return not _jax.runs_on_cpu()
    if not is_torch(xp):
        return False
    from stable_softmax._libraries import _torch

    return _torch.multiplies_narrow(array)


def contracted(
    xp: ModuleType,
    first: Any,
    second: Any,
    axes: tuple[int, int],
    dtype: Any,
    like: Any = None,
    total: Any = None,
) -> Any:
    """Return the sums of products of two matrices along an axis of each, accumulated in a dtype, which they have.

    The dtype is at least as wide as theirs. The result has the shape of `like`, and lies where that does. It is added
    to a total if there is one, which may be overwritten.
    """
    if is_torch(xp):
        from stable_softmax._libraries import _torch

        return _torch.contracted(first, second, axes, dtype, total)
    if is_jax(xp):
        from stable_softmax._libraries import _jax

        return added(xp, total, _jax.contracted(first, second, axes, dtype, like))
    product = _contracted_chunks if is_dask(xp) else _contracted_arrays
    return added(xp, total, product(first, second, axes, dtype))


def _contracted_arrays(first: Any, second: Any, axes: tuple[int, int], dtype: Any) -> Any:
    xp = namespace(first, second)
    arrays = (array if array.dtype == dtype else xp.astype(array, dtype) for array in (first, second))
    with unreported(xp):
        return xp.tensordot(*arrays, axes=tuple((axis,) for axis in axes))


def _contracted_chunks(first: Any, second: Any, axes: tuple[int, int], dtype: Any) -> Any:
    """Return the product as Dask's own, but for NumPy's warnings, which belong to whoever computes it."""
    from dask.array import blockwise, reduction

    def product(first: Any, second: Any) -> Any:
        return _contracted_arrays(first, second, axes, dtype)[..., None]

    def summed(chunk: Any, axis: Any, keepdims: bool) -> Any:
        xp = namespace(chunk)
        with unreported(xp):
            return xp.sum(chunk, axis=axis, keepdims=keepdims)

    indices = ("ik" if axes[0] else "ki"), ("jk" if axes[1] else "kj")
    parts = blockwise(product, "ijk", first, indices[0], second, indices[1], adjust_chunks={"k": 1}, dtype=dtype)
    return reduction(parts, summed, summed, axis=2, dtype=dtype)


def added(xp: ModuleType, total: Any, values: Any) -> Any:
    """Return the sum, in the place of the total where nothing else sees it; the values, if there is none."""
    if total is None:
        return values
    if not runs_in_parts(xp, total, values):  # a graph may have the total computed again, and see it then
        return total + values
    total += values
    return total
