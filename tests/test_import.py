"""What importing the package brings along."""

import importlib.metadata
import subprocess
import sys

import pytest


@pytest.mark.only_backends("numpy", "jax", "torch")
def test_import_brings_no_array_library_but_numpy():
    code = (
        "import sys, stable_softmax; "
        "print(*sorted({'jax', 'torch', 'dask', 'scipy', 'flint', 'rich', 'typer'} & sys.modules.keys()))"
    )
    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert process.stdout.split() == []
    assert process.stderr == ""


def test_public_names_are_what_the_package_shows():
    import stable_softmax

    functions = {name for name in dir(stable_softmax) if callable(getattr(stable_softmax, name))}
    assert {getattr(stable_softmax, name).__name__ for name in functions} == functions
    assert set(dir(stable_softmax)) - functions == {"__version__", "textbook"}
    assert set(dir(stable_softmax)) == {*stable_softmax.__all__, "__version__"}
    assert list(stable_softmax.__all__) == sorted(stable_softmax.__all__)


def test_version_is_that_of_the_distribution():
    import stable_softmax

    assert stable_softmax.__version__ == importlib.metadata.version("stable-softmax")
