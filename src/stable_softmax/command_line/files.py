"""Arrays in files, read piece by piece."""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from stable_softmax.command_line.output import UnusableError, first_line, required

_NPY, _ZIP = b"\x93NUMPY", b"PK"
_ACCEPTED = ".npy, .npz, .safetensors or a Zarr folder"
# Where the file's name stands in the header before a member of a zip archive, and how long that header is without it.
_ZIP_LENGTHS, _ZIP_HEADER = 26, 30
_SAFETENSORS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "BOOL": "bool"} | {
    f"{short}{bits}": f"{long}{bits}" for short, long in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)
}


class Stored(NamedTuple):
    """An array in a file; indexing `values` with one slice for each axis, within its bounds, reads that piece."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    values: Any
    #: How many chunks of a Zarr array are not stored: it reads as one number there.
    gaps: int

    def read(self, *pieces: slice) -> Any:
        """Return a piece as an array of NumPy's."""
        try:
            return np.asarray(self.values[pieces])
        except Exception as error:  # which one is up to the codecs of the file's format
            raise UnusableError(f"{self.name}: {first_line(error)}") from error


def opened(name: str) -> Stored:
    """Open `FILE`, or the array `NAME` of `FILE::NAME`. Nothing is unpickled."""
    try:
        file, member = _file_and_member(name)
        values = _values(Path(file), member)
        gaps = values.nchunks - values.nchunks_initialized if hasattr(values, "nchunks") else 0
        return Stored(name, tuple(values.shape), values.dtype, values, gaps)
    except UnusableError as error:
        raise UnusableError(f"{name}: {error}") from error
    except Exception as error:  # which one is up to the readers of a damaged file
        raise UnusableError(f"{name}: {first_line(error)}") from error


def _file_and_member(name: str) -> tuple[str, str | None]:
    """Return the longest part of a name, up to a "::" or the end, that is there, and the rest; both may have a "::"."""
    parts = name.split("::")
    for count in range(len(parts), 0, -1):
        file = "::".join(parts[:count])
        if Path(file).exists():
            return file, "::".join(parts[count:]) if count < len(parts) else None
    return parts[0], "::".join(parts[1:]) or None


def _values(path: Path, member: str | None) -> Any:
    """Return an object with shape, dtype and pieces."""
    if path.is_dir():
        return _zarr(path, member)
    if not path.exists():
        raise UnusableError("no such file")
    if not path.is_file():  # opening a pipe would wait for a writer
        raise UnusableError("neither a regular file nor a folder: save a pipe's content in a file first")
    with path.open("rb") as file:
        start = file.read(len(_NPY))
        file.seek(0)
        if not start:
            raise UnusableError("the file is empty")
        if start.startswith(_ZIP):
            return _npz(file, path, member)
        if path.suffix == ".safetensors":
            return _safetensors(path, member)
        if start != _NPY:
            raise UnusableError(f"not an array: {_ACCEPTED} is accepted, and nothing is unpickled")
        if member is not None:
            raise UnusableError("a .npy file holds one array, without a name")
        return _mapped(file, path, path.stat().st_size)


def _mapped(file: BinaryIO, path: Path, stop: int) -> Any:
    """Map an array into memory, whose header starts at the file's position and whose data ends by `stop`."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    header = readers.get(np.lib.format.read_magic(file))
    if header is None:
        raise UnusableError("a version of the .npy format that is not 1.0 or 2.0")
    shape, by_columns, dtype = header(file)
    if dtype.hasobject:
        raise UnusableError("holds pickled Python objects, which are never loaded: save an array of numbers")
    promised, there = math.prod(shape) * dtype.itemsize, stop - file.tell()
    if promised > there:
        raise UnusableError(f"truncated: {promised} bytes of data are announced, and {there} are there")
    return np.memmap(path, dtype, "r", file.tell(), shape, "F" if by_columns else "C")


def _npz(file: BinaryIO, path: Path, member: str | None) -> Any:
    with ZipFile(file) as archive:
        if path.suffix in (".pt", ".pth"):
            raise UnusableError("PyTorch's own files are pickled: save with numpy.save, or as safetensors")
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist() if _is_npy(info)}
        info = infos[_chosen(list(infos), member)]
        if info.compress_type != ZIP_STORED or info.flag_bits & 1:  # compressed, or encrypted, which `open` refuses
            with archive.open(info) as content:
                return np.lib.format.read_array(content, allow_pickle=False)
        file.seek(info.header_offset + _ZIP_LENGTHS)
        start = info.header_offset + _ZIP_HEADER + sum(struct.unpack("<HH", file.read(4)))
        file.seek(start)
        return _mapped(file, path, start + info.file_size)


def _is_npy(info: ZipInfo) -> bool:
    return info.filename.endswith(".npy")


def _safetensors(path: Path, member: str | None) -> Any:
    package = required("safetensors", "files", "a .safetensors file")
    content = package.safe_open(path, framework="np")
    tensor = content.get_slice(_chosen(sorted(content.keys()), member))
    dtype = tensor.get_dtype()
    if dtype == "BF16":
        required("ml_dtypes", "files", "bfloat16")  # NumPy knows the name from then on
    if dtype not in _SAFETENSORS:
        raise UnusableError(f"the dtype {dtype} is not supported")
    return _Slices(tensor, tuple(tensor.get_shape()), np.dtype(_SAFETENSORS[dtype]))


@dataclass(frozen=True)
class _Slices:
    """A tensor of safetensors, with the shape and dtype as NumPy has them."""

    tensor: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, pieces: Any) -> Any:
        if 0 in self.shape:  # of which safetensors slices nothing
            return np.empty(self.shape, self.dtype)[pieces]
        return self.tensor[pieces]


def _zarr(path: Path, member: str | None) -> Any:
    zarr = required("zarr", "files", "a Zarr array")
    try:
        node = zarr.open(path, mode="r")
    except FileNotFoundError as error:
        raise UnusableError("a folder that is neither a Zarr array nor a Zarr group") from error
    if isinstance(node, zarr.Array):
        if member is not None:
            raise UnusableError("the Zarr array has no names in it")
        return node
    names = sorted(name for name, inner in node.members(max_depth=None) if isinstance(inner, zarr.Array))
    return node[_chosen(names, member)]


def _chosen(names: list[str], member: str | None) -> str:
    """Return the name of the array that is meant."""
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    if not names:
        raise UnusableError("holds no array")
    if member is None and len(names) > 1:
        raise UnusableError(f"holds several arrays, choose one by FILE::NAME: {listed}")
    if member is not None and member not in names:
        raise UnusableError(f"holds no array {member!r}, but {listed}")
    return names[0] if member is None else member
