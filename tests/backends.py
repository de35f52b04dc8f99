"""The array libraries that the tests run on, behind one small interface: NumPy arrays in, NumPy arrays out."""

import importlib.metadata
from contextlib import contextmanager
from functools import cache, cached_property, partial

import numpy as np
from array_api_compat import array_namespace


def read_only(array):
    """Return a view that nothing can be written to: a function that works in place on a caller's array fails."""
    view = array.view()
    if isinstance(view, np.ndarray):  # and not a scalar
        view.flags.writeable = False
    return view


def converted_by_the_library(backend, values, dtype):
    """Convert to `dtype`, which NumPy may lack."""
    return backend.xp.astype(backend.array(np.asarray(values, np.float64)), backend.dtype(dtype))


class Backend:
    """NumPy itself, and the base of the others."""

    name = "numpy"
    package = "numpy"
    dtypes = ("float16", "float32", "float64")
    #: Whether a bad class id raises; otherwise it gives NaN.
    reads_values = True

    def keep_compiled(self, folder):
        """Let later runs use what is compiled."""

    def __str__(self):
        return self.name

    def runs(self):
        """Yield modes of calling, each with the dtypes to test it with: the usual ones, and those of thorough runs."""
        yield self, self.dtypes, ()

    @property
    def compiled(self):
        """The mode that compiles what it calls, if there is one."""
        return self

    @property
    def version(self):
        return f"{self.name} {importlib.metadata.version(self.package)}"

    @property
    def xp(self):
        return array_namespace(self.array(np.zeros(1)))

    def array(self, values):
        """Convert NumPy's array, of which the result may be a view."""
        return read_only(values)

    def dtype(self, name):
        return getattr(self.xp, name)

    def logits(self, values, dtype):
        return self.array(np.asarray(values, dtype))

    def numpy(self, array):
        return np.asarray(array)

    def odd_arrays(self):
        """Return arrays that only this library has, and that are hardly ever meant."""
        return [np.ma.masked_array(np.ones((2, 3)), mask=np.eye(2, 3)), np.bool_(True), np.zeros((2, 3), "g")]

    def call(self, function, *arrays, **options):
        """Call a function on arrays of the backend; its results come back as NumPy arrays."""
        return self._as_numpy(self.bound(function, **options)(*arrays))

    def _as_numpy(self, results):
        """Return NumPy arrays for arrays, nested tuples and dicts of them, and None among these."""
        if isinstance(results, dict):
            results = tuple(results.values())
        if isinstance(results, tuple):
            return tuple(map(self._as_numpy, results))
        return None if results is None else self.numpy(results)

    def bound(self, function, **options):
        return partial(function, **options)


class ArrayApiStrict(Backend):
    name = package = "array-api-strict"
    dtypes = ("float32", "float64")

    def __init__(self):
        import array_api_strict

        # Whatever the standard leaves optional is off.
        array_api_strict.set_array_api_strict_flags(
            boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
        )
        self._array = array_api_strict.asarray

    def odd_arrays(self):
        return [self._array(0.5), self._array(True)]

    def array(self, values):
        return self._array(read_only(values))


class Torch(Backend):
    name = package = "torch"
    dtypes = ("float16", "bfloat16", "float32", "float64")
    logits = converted_by_the_library

    def __init__(self):
        import torch

        self._torch = torch
        #: Has `grad`, `jvp` and the like, with the same names and arguments as JAX.
        self.transformations = torch.func
        torch.set_num_threads(2)

    def array(self, values):
        # PyTorch warns of read-only memory, and takes no negative strides.
        return self._torch.asarray(np.array(values))

    def odd_arrays(self):
        torch, ones = self._torch, self._torch.ones(2, 3)
        sparse = [ones.to_sparse(), torch.nested.nested_tensor([ones[0]], layout=torch.jagged)]
        narrow = [ones.to(dtype) for dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16)]
        return [*sparse, *narrow, torch.tensor(0.5), torch.tensor(True), torch.nn.Parameter(ones)]

    def numpy(self, array):
        return (array.float() if array.dtype == self._torch.bfloat16 else array).numpy()


class Dask(Backend):
    name = package = "dask"
    reads_values = False

    def __init__(self):
        import dask.array

        self._from_array = dask.array.from_array

    def runs(self):
        # Its chunks are NumPy's arrays.
        yield self, ("float32",), ("float16", "float64")

    def dtype(self, name):
        return np.dtype(name)

    def odd_arrays(self):
        masked = self.array(np.ones((2, 3))).map_blocks(lambda chunk: np.ma.masked_array(chunk, mask=chunk > 0))
        return [masked, self.array(np.ones(())), self.array(np.ones((2, 3)))[:, self.array(np.arange(3)) > 0]]

    def array(self, values):
        values = np.asarray(values)
        return self._from_array(values, chunks=tuple(max(1, -(-length // 2)) for length in values.shape))


class Jax(Backend):
    name = package = "jax"
    dtypes = ("float16", "bfloat16", "float32", "float64")
    reads_values = False
    logits = converted_by_the_library

    def __init__(self):
        import jax

        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_num_cpu_devices", 4)
        self.jax = self.transformations = jax

    @cached_property
    def compiled(self):
        return JaxJit()

    def runs(self):
        # Outside of jit, the same code is compiled in more pieces, and inside anew for each dtype.
        yield self.compiled, ("float32",), ("bfloat16", "float16", "float64")
        yield self, (), ("float32",)

    def keep_compiled(self, folder):
        """Let later runs, and the other processes of this one, use what is compiled."""
        for name, value in {
            "compilation_cache_dir": str(folder),
            "persistent_cache_min_compile_time_secs": 0,
            "persistent_cache_min_entry_size_bytes": 0,
        }.items():
            self.jax.config.update(f"jax_{name}", value)

    @contextmanager
    def in_32_bits(self):
        self.jax.config.update("jax_enable_x64", False)
        try:
            yield
        finally:
            self.jax.config.update("jax_enable_x64", True)

    def array(self, values):
        return self.jax.numpy.asarray(values)

    def odd_arrays(self):
        keys = self.jax.random.split(self.jax.random.key(0), 2)
        narrow = [self.jax.numpy.ones((2, 3), name) for name in ("float8_e4m3fn", "float8_e5m2", "int4", "uint4")]
        return [keys, keys[0], *narrow, np.asarray(self.jax.numpy.ones((2, 3), "bfloat16")), self.array(0.5)]

    def numpy(self, array):
        return np.asarray(array.astype("float32") if array.dtype == self.jax.numpy.bfloat16 else array)


class JaxJit(Jax):
    def __str__(self):
        return "jax-jit"

    @cache  # noqa: B019 - there is one
    def bound(self, function, **options):
        return self.jax.jit(partial(function, **options))


BACKENDS = {backend.name: backend for backend in (Backend, Jax, ArrayApiStrict, Torch, Dask)}
