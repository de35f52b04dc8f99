"""The library that all arrays of a call share, and the arrays converted to it."""

from typing import Any

import numpy as np

from stable_softmax._libraries import library_of
from stable_softmax._libraries.refusals import check_is_array, type_name_of
from stable_softmax._libraries.remedies import remedy_for_mixture
from stable_softmax._libraries.standard import Library

_NUMPY = (np.ndarray, np.generic)
#: Other types than NumPy's whose arrays are taken as they are, if all arrays of a call have the same one.
_PLAIN: set[type] = set()


def common_library(given: dict[str, Any]) -> tuple[Library, dict[str, Any]]:
    """Return the library that arrays share, and the arrays by name, converted to it where that is needed.

    NumPy arrays may be mixed with those of a library whose own functions accept NumPy arrays.
    """
    for array in given.values():
        if type(array) is not np.ndarray:
            kinds = {*map(type, given.values())}
            return (library_of(array), given) if len(kinds) == 1 and kinds <= _PLAIN else _converted(given)
    return library_of(array), given  # the most frequent case


def _converted(given: dict[str, Any]) -> tuple[Library, dict[str, Any]]:
    for name, array in given.items():
        if type(array) is not np.ndarray:
            check_is_array(name, array, given)
    lib = _library_of(given)
    if lib.prepares_nothing:
        _PLAIN.update(type(array) for array in given.values() if not is_of_numpy(array))
    for name, array in given.items():
        _check_known_shape(name, array)
    return lib, lib.on_one_mesh({name: _own(lib, array) for name, array in given.items()})


def _check_known_shape(name: str, array: Any) -> None:
    if any(length != length for length in array.shape):  # NaN in Dask
        raise ValueError(f"{name} must have a known shape, not {tuple(array.shape)}: call compute_chunk_sizes() first")


def _library_of(given: dict[str, Any]) -> Library:
    others = [array for array in given.values() if not is_of_numpy(array)]
    try:
        lib = library_of(*(others or given.values()))
    except TypeError as error:
        raise TypeError(_mixed(given)) from error
    if 0 < len(others) < len(given) and not lib.takes_numpy:
        raise TypeError(_mixed(given))
    return lib


def _mixed(given: dict[str, Any]) -> str:
    came = ", ".join(f"{name} is {type_name_of(array)}" for name, array in given.items())
    of_numpy = [name for name, array in given.items() if is_of_numpy(array)]
    return f"all arrays must come from one array library, but {came}{remedy_for_mixture(given, of_numpy)}"


def _own(lib: Library, array: Any) -> Any:
    """Return an array in the form that the computation needs; a NumPy array becomes one of the library."""
    return lib.from_numpy(array) if is_of_numpy(array) and lib.takes_numpy else lib.prepared(array)


def is_of_numpy(array: object) -> bool:
    return isinstance(array, _NUMPY)
