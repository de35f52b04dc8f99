"""Runs a module of the benchmarks in a fresh interpreter."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# For NumPy's BLAS and scikit-learn's OpenMP, and so that each run hashes alike.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


def run(module: str, *arguments: str, under: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Return what `python -m module arguments` prints, run under another command if one is given."""
    command = [*under, sys.executable, "-m", module, *arguments]
    try:
        return subprocess.run(
            command, cwd=ROOT, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=True
        )
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise
