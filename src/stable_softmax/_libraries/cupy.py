"""CuPy, whose arrays are on a GPU."""

from typing import Any

import array_api_compat.cupy as xp

from stable_softmax._libraries.standard import Library


class CuPy(Library):
    """CuPy, whose kernels add as a tree."""

    def tree_sum(self, terms: Any, axes: tuple[int, ...]) -> Any:
        return self.xp.sum(terms, axis=axes, keepdims=True)


LIBRARY = CuPy(xp)
