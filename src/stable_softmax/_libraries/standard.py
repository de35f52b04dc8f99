"""The operations of an array library, from the array API standard alone.

A library that can do more, or that needs another form of an operation, has its own class, derived from this one.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np


class Library:
    """One array library: its namespace, what it can do, and all operations that have more than one form.

    No other code in this package asks which library an array belongs to.
    """

    #: Whether the library has several forms, each for some of its arrays.
    has_forms = False
    #: Whether each operation runs immediately on the CPU, so that reading values costs nothing and code may depend on
    #: them. Otherwise, a compiler may fuse operations and contract their roundings.
    reads_values = False
    #: Whether the memory of arrays can be written to, and functions accept memory for their results as `out`.
    writes = False
    #: Whether derivatives of functions may be requested.
    differentiates = False
    #: Whether arrays consist of chunks that are computed later.
    has_chunks = False
    #: Whether the library's own functions accept NumPy arrays beside its own.
    takes_numpy = False
    #: Whether sums over axes are known to be added nearly as a tree.
    adds_as_tree = False
    #: Whether `softmax` may return the probabilities.
    has_softmax = False
    #: Whether plans depend only on the metadata of arrays and on `settings`, and may be cached.
    caches_plans = False
    #: Global settings of the library that plans depend on.
    settings: Any = None
    #: Whether all arrays of the library are taken as they are.
    prepares_nothing = False
    #: Whether each operation runs on one thread, so that several threads may share the work on one array.
    runs_on_one_thread = False
    #: Rows of at most this many classes are worth copying to get few long operations instead of many short ones.
    short_rows = 0

    def __init__(self, xp: ModuleType) -> None:
        self.xp = xp
        self.name = xp.__name__.removeprefix("array_api_compat.")

    def for_arrays(self, *_arrays: Any) -> "Library":
        """Return the library in its form for these arrays."""
        return self

    # Metadata

    def is_known(self, length: Any) -> bool:
        """Whether a length is a number, and not a symbol for an unknown one."""
        return isinstance(length, int)

    def is_split(self, _array: Any, _axis: int) -> bool:
        """Whether an axis is known to be split over devices, so that no entry can be picked by an index along it."""
        return False

    def merges_axes(self, _array: Any, _axes: tuple[int, ...]) -> bool:
        """Whether several axes are worth merging into one, on one device."""
        return self.reads_values

    def records(self, *_arrays: Any) -> bool:
        """Whether derivatives with respect to any of these arrays may be requested."""
        return False

    def is_of_kind(self, dtype: Any, *kinds: str) -> bool:
        """Whether a dtype is of one of these kinds of the standard."""
        try:
            return bool(self.xp.isdtype(dtype, kinds))
        except (TypeError, ValueError, AttributeError):  # not a dtype, or one of another library
            return False

    def default_dtype(self, kind: str) -> Any:
        """Return the library's default dtype for numbers of a kind."""
        return self.xp.__array_namespace_info__().default_dtypes()[kind]

    def bits_of(self, dtype: Any) -> int:
        """Return the number of bits of a floating dtype."""
        # NumPy's `itemsize` takes no time, and also works for dtypes that its finfo does not accept.
        return int(dtype.itemsize * 8 if isinstance(dtype, np.dtype) else self.xp.finfo(dtype).bits)

    def limit(self, dtype: Any, name: str) -> Any:
        """Return a limit of a floating dtype, such as "max", as a number that can be combined with the arrays.

        Some libraries give NumPy scalars, whose operators would turn the library's arrays into NumPy arrays.
        """
        return float(getattr(self.xp.finfo(dtype), name))

    def computed_dtype(self, dtype: Any) -> Any:
        """Return the dtype of results that are computed from arrays of a dtype."""
        return native_dtype(dtype)

    def dtype_object(self, dtype: Any) -> Any:
        """Return a dtype in the form that results have, and not as a scalar type."""
        return native_dtype(self.xp.empty(0, dtype=native_dtype(dtype)).dtype)

    def dtype_named(self, name: str) -> Any:
        """Return the dtype that has a name; None if no dtype has it."""
        dtype = getattr(self.xp, name, None)
        return numpy_dtype_named(name) if dtype is None and self.takes_numpy else dtype

    def autocast_dtype(self, _logits: Any) -> Any:
        """Return the dtype that autocast prescribes for the loss of these logits; None without autocast."""
        return None

    def multiplies_narrow(self, _array: Any) -> bool:
        """Whether the device multiplies an array of a narrow dtype directly, many times faster than a wider one."""
        return False

    # Arguments and results

    def prepared(self, array: Any) -> Any:
        """Return an array of the library in the form that the computation needs."""
        return array

    def from_numpy(self, array: Any) -> Any:
        """Return a NumPy array as one of the library; unchanged if the library does not have its dtype."""
        array = np.asarray(array)
        if self.takes_numpy and array.dtype.kind in "iu":
            # Integers are clipped to the library's range: class ids that are out of range must stay out of range.
            own, limits = np.iinfo(array.dtype), self.xp.iinfo(self.default_dtype("integral"))
            if own.max > limits.max:
                array = np.clip(array, max(own.min, limits.min), limits.max)
        try:
            return self.xp.asarray(array.astype(native_dtype(array.dtype), copy=False))
        except (TypeError, ValueError, NotImplementedError):
            return array  # the check of the dtype gives the message

    def on_one_mesh(self, arrays: dict[Any, Any]) -> dict[Any, Any]:
        """Return arrays by name; if some are split over devices, those on one device are copied to all devices."""
        return arrays

    def convert(self, values: Any, dtype: Any) -> Any:
        """Return the values in a dtype; unchanged if they have it, which some libraries take long to find out."""
        return values if values.dtype == dtype else self.xp.astype(values, dtype)

    def result(self, values: Any) -> Any:
        """Return a 0-d result in the form that the library's own functions return."""
        return values

    def without_gradient(self, array: Any) -> Any:
        """Return an array without its derivatives."""
        return array

    def in_silence(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Return a function's result, with no floating-point error reported, whatever settings the caller has.

        Underflow, overflow to infinity and NaN are part of correct results here, as documented.
        """
        return function(*arguments, **options)

    # Elementwise operations

    def clip(self, values: Any, smallest: float | None, largest: float | None) -> Any:
        """Return the values, clipped to a range."""
        return self.xp.clip(values, smallest, largest)

    def nan_where(self, condition: Any, values: Any) -> Any:
        """Return the values, with NaN where the condition holds."""
        return self.xp.where(condition, self.xp.nan, values)

    def rounded(self, values: Any) -> Any:
        """Return the values, rounded to their dtype before any other operation uses them."""
        return values

    def rounded_product(self, first: Any, second: Any) -> Any:
        """Return the product in this order: a compiler could multiply a constant by other constants first."""
        return self.rounded(first * second)

    def in_place(self, function: Callable[..., Any], *arrays: Any) -> Any:
        """Return a function of the arrays, written over the first of them if that can and may be written to."""
        is_free = self.writes and not self.records(*arrays)  # a graph may need it as it is
        return function(*arrays, out=arrays[0]) if is_free else function(*arrays)

    def add_to(self, total: Any, values: Any) -> Any:
        """Return the total plus values, written over the total if nothing else uses it; without a total, the values."""
        if total is None:
            return values
        if not self.writes or self.records(total, values):  # a graph may use the total again when it is recomputed
            return total + values
        total += values
        return total

    # Rows and class ids

    def reshape(self, array: Any, shape: tuple[int, ...]) -> Any:
        """Return an array in another shape."""
        return self.xp.reshape(array, shape)

    def expand_dims(self, array: Any, axis: int) -> Any:
        """Return an array with one more axis, of length 1."""
        return self.xp.expand_dims(array, axis=axis)

    def squeeze(self, array: Any, axes: tuple[int, ...]) -> Any:
        """Return an array without some axes of length 1."""
        return self.xp.squeeze(array, axis=axes)

    def indices_along(self, length: int, like: Any, dtype: Any) -> Any:
        """Return 0, 1, ... on the device or devices of an array."""
        # MLX's arrays have no device. What cubed's have is how they are computed, which has to be the same for all.
        place = {name: getattr(like, name) for name in ("device", "spec") if hasattr(like, name)}
        return self.xp.arange(length, dtype=dtype, **place)

    def entries_along(self, rows: Any, indices: Any, axis: int) -> Any:
        """Return the entries of rows at indices along an axis, one for each row."""
        xp = self.xp
        if hasattr(xp, "take_along_axis"):
            return xp.take_along_axis(rows, indices, axis=axis)
        chosen = self.is_at(rows, indices, axis)
        if rows.dtype == xp.bool:
            return xp.any(chosen & rows, axis=axis, keepdims=True)
        return xp.sum(xp.where(chosen, rows, xp.zeros_like(rows)), axis=axis, keepdims=True)

    def is_at(self, rows: Any, indices: Any, axis: int) -> Any:
        """Return a mask of the entries of rows at indices along an axis, one for each row."""
        length = rows.shape[axis]
        if self.is_known(length) and length < 2**31:  # compilers compare twice as many small integers at once
            is_inside = (indices >= 0) & (indices < length)
            indices = self.xp.where(is_inside, self.xp.astype(indices, self.xp.int32), -1)
        shape = (1,) * axis + (-1,) + (1,) * (rows.ndim - axis - 1)
        return self.xp.reshape(self.indices_along(length, indices, indices.dtype), shape) == indices

    def positions_of(self, _rows: Any, indices: Any, axis: int) -> Any:
        """Return the positions in arrays of the shape of the rows of indices along an axis, one for each row."""
        return indices, axis

    def pick(self, rows: Any, positions: Any) -> Any:
        """Return the entries of rows at positions."""
        indices, axis = positions
        if self.is_split(rows, axis):
            return self.xp.sum(self.xp.where(self.is_at(rows, indices, axis), rows, 0), axis=axis, keepdims=True)
        return self.entries_along(rows, indices, axis)

    def put(self, rows: Any, positions: Any, values: Any) -> Any:
        """Return the rows with values at positions, in the same memory if the library can write to it."""
        return self.xp.where(self.is_at(rows, *positions), values, rows)

    # Tests of values, if these can be read

    def is_any(self, values: Any) -> bool:
        """Whether any value is true or nonzero."""
        return bool(self.xp.count_nonzero(values))

    def lie_within(self, values: Any, largest: float, smallest: float = 0.0) -> bool:
        """Whether all values are known to lie in [smallest, largest], where `smallest` is not negative."""
        return 0 in values.shape or bool(self.xp.min(values) >= smallest and self.xp.max(values) <= largest)

    def starts_within(self, _values: Any, _largest: float) -> bool:
        """Whether the first value is at most this far from 0, or not known: a glance where it costs next to nothing."""
        return True

    def are_in_range(self, class_ids: Any, classes: int) -> bool:
        """Whether all class ids lie in [0, classes), without a temporary array."""
        if 0 in class_ids.shape:
            return True
        return bool(self.xp.min(class_ids) >= 0 and self.xp.max(class_ids) < classes)

    # Reductions

    def maximum(self, rows: Any, axes: tuple[int, ...]) -> Any:
        """Return the maximum over axes, keeping each with length 1."""
        return self.xp.max(rows, axis=axes, keepdims=True)

    def softmax(self, _logits: Any, _axes: tuple[int, ...], _into: Any = None) -> Any:
        """Return the probabilities from the library's own softmax if one pass is faster than several; else None."""
        raise NotImplementedError

    def accurate_softmax(self, _logits: Any, _axes: tuple[int, ...], _into: Any = None) -> Any:
        """Return the same if the library's own softmax adds nearly as a tree, too; else None."""
        raise NotImplementedError

    def tree_sum(self, terms: Any, axes: tuple[int, ...]) -> Any:
        """Return the sum over axes, of a library that adds nearly as a tree."""
        return self.xp.sum(terms, axis=axes, keepdims=True)

    def sum(self, terms: Any, axis: int) -> Any:
        """Return the sum over an axis of at most `longest_sum` terms, keeping it with length 1."""
        return self.xp.sum(terms, axis=axis, keepdims=True)

    def sum_of_all(self, _values: Any) -> Any:
        """Return the sum of all values, added nearly as a tree; None if that needs several steps."""
        return None

    def adds_at_once(self, terms: Any, axis: int) -> bool:
        """Whether an axis has at most `longest_sum` terms or an unknown number."""
        length = terms.shape[axis]
        return not self.is_known(length) or length <= self.longest_sum(terms, axis)

    def longest_sum(self, _terms: Any, _axis: int) -> int:
        """Return how many terms `sum` adds nearly as a tree, or are so few that their order does not matter."""
        return 8

    def sums_neighbours(self, _terms: Any, _axis: int) -> bool:
        """Whether the library adds the entries along an axis fast because they are adjacent in memory."""
        return False

    def fold(self, terms: Any, axis: int) -> tuple[Any, Any]:
        """Return the sum of equal parts of an axis, and the entries that are left over."""
        length, along = terms.shape[axis] // 2, (slice(None),) * axis

        def part(first: int, last: int | None) -> Any:
            return terms[(*along, slice(first, last), ...)]

        return part(0, length) + part(length, 2 * length), part(2 * length, None)

    def contract(
        self, first: Any, second: Any, axes: tuple[int, int], dtype: Any, like: Any = None, total: Any = None
    ) -> Any:
        """Return the product of two matrices, summed along an axis of each, accumulated and returned in a dtype.

        The dtype is at least as wide as theirs. The result has the shape and device of `like`. If there is a total, it
        is added to the result, and may be overwritten.
        """
        del like
        arrays = (self.convert(array, dtype) for array in (first, second))
        product = self.in_silence(self.xp.tensordot, *arrays, axes=tuple((axis,) for axis in axes))
        return self.add_to(total, product)

    # Memory, if it can be written to

    def strides_of(self, array: Any) -> tuple[int, ...]:
        """Return the strides of an array, in any unit."""
        raise NotImplementedError

    def are_neighbours(self, array: Any, axis: int) -> bool:
        """Whether the entries along an axis are adjacent in memory."""
        raise NotImplementedError

    def with_neighbours(self, array: Any) -> Any:
        """Return an array whose entries along its last axis are adjacent in memory."""
        return array

    def is_in_fixed_order(self, _logits: Any, _operands: Any, _axis: int) -> bool:
        """Whether `in_fixed_order` obviously changes nothing, and the class axis is the last in memory."""
        return False

    def in_fixed_order(self, logits: Any, operands: Any, axis: int) -> tuple[Any, Any]:
        """Return arrays whose results have the same order in memory for any number of rows."""
        raise NotImplementedError

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        """Return uninitialized memory on the device of an array."""
        return self.xp.empty(shape, dtype=dtype, device=like.device)

    def block_factor(self) -> int:
        """Return the factor by which blocks must exceed the usual size for operations to be worth starting."""
        return 1

    def sweep_factor(self, _weight: Any) -> int:
        """Return the factor by which blocks of a sweep over projected features should exceed those of NumPy."""
        return 1

    # Functions

    def evaluate(self, function: Any, *arrays: Any, **options: Any) -> Any:
        """Return the value of a differentiable function, in a form that the library can differentiate."""
        raise NotImplementedError

    def compiled(self, function: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
        """Return `function(library, *arrays, **options)`, compiled once for arrays of the same shapes and dtypes.

        The options are hashable.
        """
        return function(self, *arrays, **options)

    def sweep(
        self,
        function: Callable[..., tuple[list[Any], list[Any]]],
        in_rows: tuple[Any, ...],
        whole: tuple[Any, ...],
        size: int,
    ) -> tuple[list[Any], list[Any]]:
        """Return `function(None, in_rows, whole)`, arrays of rows and sums over rows, from blocks of about `size` rows.

        For each block, the function gets the sums over earlier blocks, which it adds to and may overwrite, the rows of
        the block, and the whole arrays. For derivatives, blocks are computed again, and not stored. If a program is
        traced for an unknown number of rows, all rows are one block.
        """
        length = in_rows[0].shape[0]
        number = max(1, -(-length // size)) if self.is_known(length) else 1
        rows: list[list[Any]] = []
        sums: Any = None
        for i in range(number):
            block = slice(length * i // number, length * (i + 1) // number)
            values, sums = self.recomputed(function, sums, tuple([array[block, ...] for array in in_rows]), whole)
            rows.append(values)
        return [self.xp.concat(blocks) for blocks in zip(*rows, strict=True)], sums

    def recomputed(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return a function of the arguments, and store only these for its derivatives."""
        return function(*arguments)


def native_dtype(dtype: Any) -> Any:
    """Return a dtype in the byte order of the machine, which NumPy's results have and other libraries need."""
    return dtype.newbyteorder("=") if isinstance(dtype, np.dtype) else dtype


def numpy_dtype_named(name: str) -> Any:
    """Return the dtype that NumPy knows by a name, such as "f4"; None if it knows none."""
    try:
        return np.dtype(name)
    except (TypeError, ValueError, SyntaxError):  # NumPy raises all of these for unknown names
        return None
