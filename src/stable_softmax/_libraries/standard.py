"""What the array API standard alone lets the code do.

Each library that can do more, or needs another form of something, has a class of its own that is derived from this one.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np

_IN_SILENCE = nullcontext()


class Library:
    """One array library: its namespace, what may be done with its arrays, and all that has more than one form.

    Nothing else in this package asks which library an array is of.
    """

    #: Whether each operation runs at once on the CPU, so that values can be read for free and may steer the code. Where
    #: they cannot, a compiler may fuse operations and contract their roundings.
    reads_values = False
    #: Whether arrays lie in memory that can be written to, and functions take memory for their results as `out`.
    writes = False
    #: Whether functions may be asked for derivatives.
    differentiates = False
    #: Whether arrays are made of chunks, each of which is worked on later.
    has_chunks = False
    #: Whether the library's own functions take NumPy's arrays beside its own.
    takes_numpy = False
    #: Whether what the metadata of arrays come to depends on nothing else, and may be kept.
    keeps_plans = False
    #: Whether each operation takes one thread, so that several may share the work on one array.
    runs_on_one_thread = False
    #: Up to so many classes, rows are worth copying, if that makes few long operations of many short ones.
    short_rows = 0

    def __init__(self, xp: ModuleType) -> None:
        self.xp = xp
        self.name = xp.__name__.removeprefix("array_api_compat.")

    def for_arrays(self, *_arrays: Any) -> "Library":
        """Return what the library lets the code do with these arrays."""
        return self

    # What is known without values

    def is_known(self, length: Any) -> bool:
        """Whether a length is a number, and not one that stands for any."""
        return isinstance(length, int)

    def is_split(self, _array: Any, _axis: int) -> bool:
        """Whether an axis is known to lie on several devices, so that nothing may be picked by an index along it."""
        return False

    def merges(self, _array: Any, _axes: tuple[int, ...]) -> bool:
        """Whether several axes are worth making one, which lies on one device."""
        return self.reads_values

    def records(self, *_arrays: Any) -> bool:
        """Whether derivatives with respect to any of these arrays may be asked for."""
        return False

    def is_of_kind(self, dtype: Any, *kinds: str) -> bool:
        """Whether a dtype is of one of these kinds of the standard."""
        try:
            return bool(self.xp.isdtype(dtype, kinds))
        except (TypeError, ValueError, AttributeError):  # not a dtype at all, or one of another library
            return False

    def default_dtype(self, kind: str) -> Any:
        """Return the dtype that the library gives to numbers of a kind."""
        return self.xp.__array_namespace_info__().default_dtypes()[kind]

    def bits_of(self, dtype: Any) -> int:
        """Return the number of bits of a floating dtype."""
        # What NumPy knows of a dtype is there at once, also for dtypes that its finfo does not take.
        return int(dtype.itemsize * 8 if isinstance(dtype, np.dtype) else self.xp.finfo(dtype).bits)

    def limit(self, dtype: Any, name: str) -> Any:
        """Return a limit of a floating dtype, such as "max", as a number that the arrays can be combined with.

        Some libraries give NumPy's scalars, whose operators make NumPy's arrays of theirs.
        """
        return float(getattr(self.xp.finfo(dtype), name))

    def computed_dtype(self, dtype: Any) -> Any:
        """Return the dtype that results have which come from arrays of a dtype."""
        return native_dtype(dtype)

    def dtype_object(self, dtype: Any) -> Any:
        """Return a dtype as results have it, and not as a scalar type."""
        return native_dtype(self.xp.empty(0, dtype=native_dtype(dtype)).dtype)

    def dtype_named(self, name: str) -> Any:
        """Return the dtype of a name; None if there is none."""
        dtype = getattr(self.xp, name, None)
        return numpy_dtype_named(name) if dtype is None and self.takes_numpy else dtype

    def autocast_dtype(self, _logits: Any) -> Any:
        """Return the dtype that the library gives to the loss of such logits of its own accord; None if it does not."""
        return None

    def multiplies_narrow(self, _array: Any) -> bool:
        """Whether the device multiplies an array of a narrow dtype as it is, many times faster than a wider one."""
        return False

    # Arrays, taken and given back

    def own(self, array: Any) -> Any:
        """Return one of the library's arrays as the work takes it."""
        return array

    def from_numpy(self, array: Any) -> Any:
        """Return NumPy's array as one of the library's; as it is, where the library has not its dtype."""
        array = np.asarray(array)
        if self.takes_numpy and array.dtype.kind in "iu":
            # Integers are cut to those that the library has. Class ids that are out of range have to stay so.
            own, limits = np.iinfo(array.dtype), self.xp.iinfo(self.default_dtype("integral"))
            if own.max > limits.max:
                array = np.clip(array, max(own.min, limits.min), limits.max)
        try:
            return self.xp.asarray(array.astype(native_dtype(array.dtype), copy=False))
        except (TypeError, ValueError, NotImplementedError):
            return array  # which is said where the dtype is looked at

    def on_one_mesh(self, arrays: dict[Any, Any]) -> dict[Any, Any]:
        """Return arrays by their names, those on one device as on all, if others are split over devices."""
        return arrays

    def convert(self, values: Any, dtype: Any) -> Any:
        """Return the values in a dtype: themselves if they have it, which some libraries take long to find out."""
        return values if values.dtype == dtype else self.xp.astype(values, dtype)

    def result(self, values: Any) -> Any:
        """Return a result without dimensions in the form that the library's own functions have."""
        return values

    def without_gradient(self, array: Any) -> Any:
        """Return an array for its values alone."""
        return array

    def in_silence(self) -> AbstractContextManager[Any]:
        """Return a context in which no floating-point error is reported, whatever the caller has asked for.

        Underflow, overflow to infinity and NaN are parts of right results here, which the contract describes.
        """
        return _IN_SILENCE

    # Operations for each entry

    def clip(self, values: Any, smallest: float | None, largest: float | None) -> Any:
        """Return the values, at least and at most so much."""
        return self.xp.clip(values, smallest, largest)

    def nan_where(self, condition: Any, values: Any) -> Any:
        """Return the values, and NaN where the condition holds."""
        return self.xp.where(condition, self.xp.nan, values)

    def rounded(self, values: Any) -> Any:
        """Return the values, computed before anything that depends on them, and rounded to their dtype."""
        return values

    def rounded_product(self, first: Any, second: Any) -> Any:
        """Return the product as it stands: a compiler may multiply a constant with other constants first."""
        return self.rounded(first * second)

    def in_place(self, function: Callable[..., Any], *arrays: Any) -> Any:
        """Return the function of the arrays, in the place of the last where the library writes to memory."""
        return function(*arrays, out=arrays[-1]) if self.writes else function(*arrays)

    def add_to(self, total: Any, values: Any) -> Any:
        """Return the sum, in the place of the total where nothing else sees it; the values, if there is none."""
        if total is None:
            return values
        if not self.writes or self.records(total, values):  # a graph may have the total computed again, and see it then
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
        """Return an array without axes, of length 1."""
        return self.xp.squeeze(array, axis=axes)

    def indices_along(self, length: int, like: Any, dtype: Any) -> Any:
        """Return 0, 1, ... on the device, or the devices, of an array."""
        # MLX's arrays have no device. What cubed's have is how they are computed, which has to be the same for all.
        place = {name: getattr(like, name) for name in ("device", "spec") if hasattr(like, name)}
        return self.xp.arange(length, dtype=dtype, **place)

    def entries_along(self, rows: Any, indices: Any, axis: int) -> Any:
        """Return the entries of rows at indices along an axis, of which there is one for each row."""
        xp = self.xp
        if hasattr(xp, "take_along_axis"):
            return xp.take_along_axis(rows, indices, axis=axis)
        shape = (1,) * axis + (-1,) + (1,) * (rows.ndim - axis - 1)
        chosen = xp.reshape(self.indices_along(rows.shape[axis], indices, indices.dtype), shape) == indices
        if rows.dtype == xp.bool:
            return xp.any(chosen & rows, axis=axis, keepdims=True)
        return xp.sum(xp.where(chosen, rows, xp.zeros_like(rows)), axis=axis, keepdims=True)

    def positions_of(self, _rows: Any, _indices: Any, _axis: int) -> Any:
        """Return where in rows indices along an axis point, one for each row; None if nothing is reached by position.

        Positions hold for all arrays of the shape of the rows.
        """
        return None

    def pick(self, rows: Any, positions: Any) -> Any:
        """Return the entries of rows at positions."""
        raise NotImplementedError

    def put(self, rows: Any, positions: Any, values: Any) -> Any:
        """Return the rows with other entries at positions, in their own memory where nothing else needs them."""
        raise NotImplementedError

    # What is read, of arrays whose values can be read

    def is_any(self, values: Any) -> bool:
        """Whether any value is true, or not 0."""
        return bool(self.xp.count_nonzero(values))

    def lie_within(self, values: Any, largest: float) -> bool:
        """Whether all values are known to lie in [0, largest]."""
        return 0 in values.shape or bool(self.xp.min(values) >= 0 and self.xp.max(values) <= largest)

    def are_in_range(self, class_ids: Any, classes: int) -> bool:
        """Whether all class ids lie in [0, classes), without a temporary array."""
        if 0 in class_ids.shape:
            return True
        return bool(self.xp.min(class_ids) >= 0 and self.xp.max(class_ids) < classes)

    # Reductions

    def maximum(self, rows: Any, axes: tuple[int, ...]) -> Any:
        """Return the maximum over axes, each of which is kept with length 1."""
        return self.xp.max(rows, axis=axes, keepdims=True)

    def softmax(self, _logits: Any, _axes: tuple[int, ...], _into: Any = None) -> Any:
        """Return the probabilities in one pass of the library's own, where that is faster than several; else None."""
        return None

    def tree_sum(self, _terms: Any, _axes: tuple[int, ...]) -> Any:
        """Return the sum over axes, if the library is known to add nearly as a tree; else None."""
        return None

    def sum(self, terms: Any, axis: int) -> Any:
        """Return the sum over an axis of at most `longest_sum` terms, which is kept with length 1."""
        return self.xp.sum(terms, axis=axis, keepdims=True)

    def adds_at_once(self, terms: Any, axis: int) -> bool:
        """Whether there are no more terms along an axis than `longest_sum` allows, or nobody knows how many."""
        length = terms.shape[axis]
        return not self.is_known(length) or length <= self.longest_sum(terms, axis)

    def longest_sum(self, _terms: Any, _axis: int) -> int:
        """Return how many terms `sum` adds nearly as a tree, or as few that their order does not matter."""
        return 8

    def sums_neighbours(self, _terms: Any, _axis: int) -> bool:
        """Whether the library adds the entries along an axis fast, since they lie next to each other in memory."""
        return False

    def fold(self, terms: Any, axis: int) -> tuple[Any, Any]:
        """Return the sums of some equal parts of the entries along an axis, and the entries that are left over."""
        length, along = terms.shape[axis] // 2, (slice(None),) * axis

        def part(first: int, last: int | None) -> Any:
            return terms[(*along, slice(first, last), ...)]

        return part(0, length) + part(length, 2 * length), part(2 * length, None)

    def contract(
        self, first: Any, second: Any, axes: tuple[int, int], dtype: Any, like: Any = None, total: Any = None
    ) -> Any:
        """Return the sums of products of two matrices along an axis of each, accumulated in a dtype, which they have.

        The dtype is at least as wide as theirs. The result has the shape of `like`, and lies where that does. It is
        added to a total if there is one, which may be overwritten.
        """
        del like
        with self.in_silence():
            arrays = (self.convert(array, dtype) for array in (first, second))
            return self.add_to(total, self.xp.tensordot(*arrays, axes=tuple((axis,) for axis in axes)))

    # Memory, of arrays that lie in memory which can be written to

    def strides_of(self, array: Any) -> tuple[int, ...]:
        """Return how far apart in memory neighbours along each axis are, in any unit."""
        raise NotImplementedError

    def are_neighbours(self, array: Any, axis: int) -> bool:
        """Whether the entries along an axis lie next to each other in memory."""
        raise NotImplementedError

    def with_neighbours(self, array: Any) -> Any:
        """Return an array such that the entries along its last axis lie next to each other, if it lies in memory."""
        return array

    def is_steady(self, _logits: Any, _operands: Any, _axis: int) -> bool:
        """Whether it is seen at once that `steady` has nothing to do, and that the class axis is the last in memory."""
        return False

    def steady(self, logits: Any, operands: Any, _axis: int) -> tuple[Any, Any]:
        """Return arrays such that what is computed from them lies in one order in memory, for any number of rows."""
        return logits, operands

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        """Return memory where an array has its own."""
        return self.xp.empty(shape, dtype=dtype, device=like.device)

    def block_factor(self) -> int:
        """Return how many times the memory of one block the operations need to be worth their start."""
        return 1

    def sweep_factor(self, _weight: Any) -> int:
        """Return how many times the memory of NumPy's blocks those of a sweep over projected features are worth."""
        return 1

    # Functions

    def evaluate(self, function: Any, *arrays: Any, **options: Any) -> Any:
        """Return the value of a differentiable function, in the form that the library knows how to differentiate."""
        return function.value(self, *arrays, **options)

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
        """Return `function(None, in_rows, whole)`: arrays of rows, and sums over rows, from blocks of some `size` rows.

        Each block gets its rows of some arrays and the others whole; and first, the sums over the blocks before, which
        it adds to and may overwrite. For derivatives, blocks are computed again, and not kept. All rows are one block
        where their number is unknown, while a program is traced.
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
        """Return the function of the arguments, of which nothing but these is kept for derivatives."""
        return function(*arguments)


def native_dtype(dtype: Any) -> Any:
    """Return a dtype in the byte order of the machine, as results of NumPy have it: other libraries take no other."""
    return dtype.newbyteorder("=") if isinstance(dtype, np.dtype) else dtype


def numpy_dtype_named(name: str) -> Any:
    """Return the dtype that NumPy knows by a name, such as "f4"; None if there is none."""
    try:
        return np.dtype(name)
    except (TypeError, ValueError, SyntaxError):  # all of which NumPy raises for what is no name
        return None
