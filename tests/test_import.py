"""What importing the package brings along."""

import importlib.metadata
import inspect
import re
import subprocess
import sys
import typing

import pytest

pytestmark = [pytest.mark.covering_on("numpy"), pytest.mark.installed]

OPTIONAL = {
    "stable_softmax": [
        *("jax", "torch", "dask", "scipy", "flint", "rich", "typer", "array_api_compat.numpy", "stable_softmax.dropin"),
    ],
    "stable_softmax.dropin": ["jax", "torch", "scipy", "optax"],
    "stable_softmax.dropin.scipy_special": ["jax", "torch", "scipy", "optax"],
    "stable_softmax._commands": ["matplotlib", "zarr", "safetensors", "ml_dtypes"],
}


@pytest.mark.only_backends("numpy", "jax", "torch")
@pytest.mark.parametrize("module", OPTIONAL)
def test_import_brings_nothing_that_is_not_needed_yet(module):
    code = f"import sys, {module}; print(*sorted(set({OPTIONAL[module]}) & sys.modules.keys()))"
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


@pytest.mark.only_backends("numpy")
def test_the_description_links_to_nothing_that_a_package_index_does_not_have():
    text = importlib.metadata.metadata("stable-softmax").get_payload()
    assert "](https://" in text
    assert re.findall(r"\]\((?!https?://)", text) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("softmax_cross_entropy_with_logits", "softmax_crossentropy_with_logits"),
        ("grad_softmax_cross_entropy_with_logits", "grad_softmax_crossentropy_with_logits"),
        ("cross_entropy", "softmax_crossentropy_with_logits"),
        ("kl_div", "softmax_kl_divergence"),
        ("log_sum_exp", "logsumexp"),
        ("LogSoftmax", "log_softmax"),
    ],
)
def test_names_of_other_libraries_lead_to_those_of_this_one(name, meant):
    import stable_softmax

    with pytest.raises(
        AttributeError, match=f"^module 'stable_softmax' has no attribute '{name}'; did you mean '{meant}'"
    ):
        getattr(stable_softmax, name)
    assert not hasattr(stable_softmax, name)
    with pytest.raises(ImportError, match=f"^cannot import name '{name}' from 'stable_softmax'"):
        exec(f"from stable_softmax import {name}")


def test_names_that_are_advised_exist():
    import stable_softmax
    from stable_softmax import _spellings

    assert {*_spellings._NAMES.values()} <= {*stable_softmax.__all__}
    assert not {*_spellings._NAMES} & {*dir(stable_softmax)}


def test_unknown_names_have_the_usual_error():
    import stable_softmax

    with pytest.raises(AttributeError, match=r"^module 'stable_softmax' has no attribute 'gelu'$"):
        _ = stable_softmax.gelu


def test_signatures_show_names_and_no_private_paths():
    import stable_softmax

    statistics = stable_softmax.SoftmaxStatistics
    public = [getattr(stable_softmax, name) for name in stable_softmax.__all__]
    public += [getattr(statistics, name) for name in vars(statistics) if not name.startswith("_")]
    functions = [function for function in public if inspect.isfunction(function)]
    for function in (*functions, statistics):
        signature = str(inspect.signature(function))
        assert "stable_softmax" not in signature
        assert "ForwardRef" not in signature
        assert typing.get_type_hints(function).keys() <= {*inspect.signature(function).parameters, "return"}
    assert {stable_softmax.softmax, statistics.merge} < {*functions}


def test_version_is_that_of_the_distribution():
    import stable_softmax

    assert stable_softmax.__version__ == importlib.metadata.version("stable-softmax")
