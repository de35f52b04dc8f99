"""Dask, whose arrays consist of chunks that are computed later, by the library of the chunks."""

from typing import Any

import array_api_compat.dask.array as xp
from dask.array import blockwise, reduction

from stable_softmax._libraries import library_of
from stable_softmax._libraries.standard import Library


class Dask(Library):
    """Dask, whose operations are those of the chunks."""

    has_chunks = True
    takes_numpy = True
    adds_as_tree = True

    def prepared(self, array: Any) -> Any:
        """Return an array without chunks of length 0, which Dask cannot reshape or take the maximum of."""
        if all(0 not in sizes for sizes in array.chunks):
            return array
        if 0 in array.shape:  # Dask may keep several empty chunks
            return self.xp.zeros_like(array, chunks=array.shape)
        return array.rechunk(tuple(tuple(filter(None, sizes)) for sizes in array.chunks))

    def convert(self, values: Any, dtype: Any) -> Any:
        """Return the values in a dtype, without the warnings of NumPy when the chunks are computed."""
        if values.dtype == dtype:
            return values
        return values.map_blocks(lambda chunk: library_of(chunk).convert(chunk, dtype), dtype=dtype)

    def contract(
        self, first: Any, second: Any, axes: tuple[int, int], dtype: Any, like: Any = None, total: Any = None
    ) -> Any:
        """Return the product as Dask computes it, but without the warnings of NumPy."""
        del like

        def product(first: Any, second: Any) -> Any:
            return library_of(first, second).contract(first, second, axes, dtype)[..., None]

        def summed(chunk: Any, axis: Any, keepdims: bool) -> Any:
            library = library_of(chunk)
            return library.in_silence(library.xp.sum, chunk, axis=axis, keepdims=keepdims)

        indices = ("ik" if axes[0] else "ki"), ("jk" if axes[1] else "kj")
        parts = blockwise(product, "ijk", first, indices[0], second, indices[1], adjust_chunks={"k": 1}, dtype=dtype)
        return self.add_to(total, reduction(parts, summed, summed, axis=2, dtype=dtype))


LIBRARY = Dask(xp)
