"""What the times were measured on, and how many threads each side had."""

import contextlib
import importlib
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

PACKAGES = ("numpy", "array-api-compat", "jax", "optax", "torch", "scipy", "scikit-learn")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep NumPy, SciPy, scikit-learn and PyTorch to one thread."""
    # Only the thread pools of what is imported by now can be limited.
    for name in ("scipy.special", "sklearn._loss.loss"):
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    with threadpool_limits(1):
        yield


def machine() -> dict[str, str]:
    """Return the facts by name."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "threads": f"{_threads()}; JAX takes all cores, for both sides",
        "Python": platform.python_version(),
        "packages": ", ".join(f"{package} {version(package)}" for package in PACKAGES),
        "NumPy's vectors": numpy_vectors(),
        "OPENBLAS_CORETYPE": os.environ.get("OPENBLAS_CORETYPE", "not set"),
    }


def numpy_vectors() -> str:
    """Return the widest vector instructions that NumPy found."""
    extensions = np.show_config(mode="dicts")["SIMD Extensions"]
    return (extensions.get("found") or extensions["baseline"])[-1]


def _threads() -> str:
    pools = sorted({f"{pool['internal_api']} {pool['num_threads']}" for pool in threadpool_info()})
    return ", ".join([*pools, f"PyTorch {importlib.import_module('torch').get_num_threads()}"])


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
