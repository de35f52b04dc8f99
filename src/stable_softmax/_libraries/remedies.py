"""What to pass instead of a value that is not an array of the library of the other arrays: code for the caller."""

from typing import Any, NamedTuple

import numpy as np

from stable_softmax._libraries import is_array, library_of

# Types that every library converts to arrays.
_CONVERTIBLE = (list, tuple, float, int, np.matrix)
_BY_NUMPY = "numpy.asarray({})"
#: Code that converts another library's array to one of NumPy.
_CONVERSIONS = dict.fromkeys(("tensorflow", "polars", "xarray", "pyarrow", "h5py"), _BY_NUMPY) | {
    "zarr": "{}[...]",
    "blosc2": "{}[...]",
    "scipy": "{}.toarray()",
    "pint": "{}.magnitude",
    "paddle": "{}.numpy()",
    "tinygrad": "{}.numpy()",
}
#: Libraries that have the namespace of the standard, but not its functions.
REFUSED = ("blosc2",)
_FLOAT64 = 'numpy.asarray({}, dtype="float64")'


class _Others(NamedTuple):
    """The library of the arrays beside a value: how it makes an array, and whether it takes NumPy arrays as well."""

    name: str = "numpy"
    asarray: str = _BY_NUMPY
    takes_numpy: bool = True
    has_chunks: bool = True  # arrays of NumPy go with those of Dask


def remedy_for_value(name: str, value: Any, given: dict[str, Any]) -> str:
    """Return code that makes an array of a value; nothing if there is none."""
    others = _others({other: array for other, array in given.items() if array is not value})
    if isinstance(value, _CONVERTIBLE):
        return _passed(_of_convertible(name, value, others))
    if root_of(value) == "zarr" and others.has_chunks:  # Dask reads a part at a time
        return _passed(f"dask.array.from_zarr({name})")
    is_of_pandas = root_of(value) == "pandas"
    code = _of_pandas(name, value) if is_of_pandas else _CONVERSIONS.get(root_of(value), "").format(name)
    return _passed(code if others.takes_numpy else others.asarray.format(code)) if code else ""


def remedy_for_mixture(given: dict[str, Any], of_numpy: list[str]) -> str:
    """Return code that makes arrays of one library of those that are NumPy's."""
    found = [_others({name: array}) for name, array in given.items() if name not in of_numpy]
    if not of_numpy or len({others.name for others in found}) > 1:
        return ": convert them to one"
    return f": pass {' and '.join(map(found[0].asarray.format, of_numpy))}"


def holds_objects(dtype: Any) -> bool:
    """Whether a dtype is one of NumPy's for strings or objects, which may stand for numbers."""
    return isinstance(dtype, np.dtype) and dtype.kind in "OSTU"


def remedy_for_labels(namespace: str, dtype: Any) -> str:
    """Return code that makes class ids of labels that are strings or objects; nothing for other dtypes."""
    if not holds_objects(dtype):
        return ""
    code = _of_names(f"{namespace}.asarray({{}})")
    return _passed(f'reference_answers.astype("int64"), or for names {code}' if dtype.kind == "O" else code)


def root_of(value: object) -> str:
    """Return the name of the package of a value's type."""
    return type(value).__module__.partition(".")[0]


def _passed(code: str) -> str:
    meaning = ", where classes has the names in the order of the logits" if "classes" in code else ""
    return f": pass {code}{meaning}"


def _others(given: dict[str, Any]) -> _Others:
    for name, array in given.items():
        if is_array(array) and root_of(array) not in REFUSED:
            library = library_of(array)
            if library.name != "numpy":
                device = f", device={name}.device" if _is_elsewhere(array) else ""
                return _Others(
                    library.name, f"{library.name}.asarray({{}}{device})", library.takes_numpy, library.has_chunks
                )
    return _Others()


def _is_elsewhere(array: Any) -> bool:
    """Whether the library would put a new array on another device than that of this one."""
    return root_of(array) == "torch" and array.device.type != "cpu"


def _of_convertible(name: str, value: Any, others: _Others) -> str:
    first = value
    while isinstance(first, list | tuple) and first:
        first = first[0]
    if isinstance(first, str | bytes) and name == "reference_answers":
        return _of_names(others.asarray)
    if isinstance(first, str | bytes):
        code = _FLOAT64.format(name)
        return code if others.takes_numpy else others.asarray.format(code)
    if first is not value and is_array(first) and first.ndim:
        return f"{library_of(first).name}.stack({name})"
    return others.asarray.format(name)


def _of_names(asarray: str) -> str:
    return asarray.format("[classes.index(name) for name in reference_answers]")


def _of_pandas(name: str, value: Any) -> str:
    """Return code for a table, a column or an index: NumPy may take the dtypes of pandas for objects."""
    dtypes = [*value.dtypes] if value.ndim == 2 else [value.dtype]
    kinds = {dtype.kind for dtype in dtypes}
    if "O" in kinds and value.ndim == 1 and name == "reference_answers":
        return f"pandas.Index(classes).get_indexer({name})"
    if "O" not in kinds and all(isinstance(dtype, np.dtype) for dtype in dtypes):
        return _BY_NUMPY.format(name)
    wanted = "bool" if kinds == {"b"} else "int64" if kinds <= {*"iu"} else "float64"
    return f'{name}.to_numpy(dtype="{wanted}")'
