"""Arrays in files of every format that the commands read."""

import numpy as np
import zarr
from safetensors.numpy import save_file


def saved(kind, array):
    """Save an array and return the name that the command gets."""
    if kind == "npy":
        np.save("x.npy", array)
        return "x.npy"
    if kind == "npz":
        np.savez("x.npz", some=array[:1], name=array)
        return "x.npz::name"
    if kind == "compressed":
        np.savez_compressed("x.npz", name=array)
        return "x.npz"
    if kind == "safetensors":
        save_file({"some": array[:1].copy(), "name": array}, "x.safetensors")
        return "x.safetensors::name"
    if kind == "zarr":
        zarr.create_array("x.zarr", data=array, chunks=(7, *array.shape[1:]))
        return "x.zarr"
    group = zarr.open_group("x.zarr", mode="w")
    group.create_array("some", data=array[:1])
    group.create_group("inner").create_array("name", data=array)
    return "x.zarr::inner/name"


KINDS = ["npy", "npz", "compressed", "safetensors", "zarr", "group"]


def half_written(name, values, chunks):
    """Store an array of which a job has written the first half."""
    stored = zarr.create_array(name, shape=values.shape, dtype=values.dtype, chunks=chunks)
    half = len(values) // 2
    stored[:half] = values[:half]
