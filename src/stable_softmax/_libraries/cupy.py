"""CuPy, whose arrays are on a GPU."""

import array_api_compat.cupy as xp

from stable_softmax._libraries.standard import Library


class CuPy(Library):
    """CuPy, whose kernels add as a tree."""

    adds_as_tree = True


LIBRARY = CuPy(xp)
