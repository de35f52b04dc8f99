"""What importing the package brings along."""

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


def test_public_names_are_the_functions_of_the_package():
    import stable_softmax

    for name in stable_softmax.__all__:
        assert getattr(stable_softmax, name).__module__.startswith("stable_softmax._")
    assert list(stable_softmax.__all__) == sorted(stable_softmax.__all__)
