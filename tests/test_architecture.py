"""The floors of the package: imports point down, and one floor alone knows array libraries."""

import ast
from pathlib import Path

import pytest

import stable_softmax
from stable_softmax._core.criterion import DIFFERENTIABLE, Criterion

ROOT = Path(stable_softmax.__file__).parent
FLOORS = ["_core", "_libraries", "_maths", "_execution", "_arguments"]  # and above them the root
LIBRARIES = {"array_api_compat", "array_api_strict", "cupy", "dask", "jax", "torch"}
#: How libraries are told apart, beside importing them.
QUESTIONS = {"__name__", "__module__", "is_cuda", "placements", "sharding", "ndarray", "generic"}
#: The notebook's formulas, which show how a namespace is fetched; the chunks of the one library that has some; numbers
#: that NumPy wraps in arrays.
ALLOWED = {"textbook.py": {"array_api_compat"}, "chunks.py": {"dask"}, "options.py": {"ndarray"}}


def nodes_of(path):
    return ast.walk(ast.parse(path.read_text()))


def modules_in(node):
    """Return the modules that a statement imports from."""
    if isinstance(node, ast.ImportFrom):
        return [node.module]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_point_down(floor):
    paths = list((ROOT / floor).glob("*.py"))
    for path, node in [(file, node) for file in paths for node in nodes_of(file)]:
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "stable_softmax":
            for name in [f"{node.module}.{alias.name}".split(".")[1] for alias in node.names]:
                assert FLOORS.index(name) <= FLOORS.index(floor), path
        assert not isinstance(node, ast.Import) or all("stable_softmax" not in alias.name for alias in node.names), path
    assert paths


def test_one_floor_alone_asks_which_library_an_array_is_of():
    above = [*ROOT.glob("*.py"), *(path for floor in FLOORS for path in (ROOT / floor).glob("*.py"))]
    for path in [path for path in above if path.parent.name != "_libraries"]:
        found = {module.partition(".")[0] for node in nodes_of(path) for module in modules_in(node)} & LIBRARIES
        found |= {node.attr for node in nodes_of(path) if isinstance(node, ast.Attribute)} & QUESTIONS
        assert found <= ALLOWED.get(path.name, set()), path
        own = {module for node in nodes_of(path) for module in modules_in(node) if "_libraries." in module}
        assert {module.rpartition(".")[2] for module in own} <= {
            "common",
            "differentiable",
            "refusals",
            "remedies",
            "standard",
        }


def test_each_field_of_the_criterion_has_derivatives_or_cannot_have_any():
    """One that is missing would have derivative 0 in the loss of projected features."""
    without = {"class_ids", "where", "divisor", "ignored_id", "are_valid", "is_label"}
    assert {*DIFFERENTIABLE} | without == {*Criterion._fields}
    assert not {*DIFFERENTIABLE} & without


def test_private_names_of_libraries_stand_in_one_file():
    for path in (ROOT / "_libraries").glob("*.py"):
        if path.name != "torch_internals.py":
            for node in nodes_of(path):
                for module in modules_in(node):
                    private = [name for name in module.split(".")[1:] if name.startswith("_")]
                    assert not private or module.startswith("stable_softmax."), path
                if isinstance(node, ast.Attribute) and ast.unparse(node).split(".")[0] in LIBRARIES:
                    assert not node.attr.startswith("_"), path


def test_a_drop_in_knows_its_own_library_alone_and_calls_public_functions():
    own = {"__init__": set(), "torch": {"torch"}, "optax": {"jax"}, "jax_nn": {"jax"}, "scipy_special": set()}
    for path in (ROOT / "dropin").glob("*.py"):
        modules = {module for node in nodes_of(path) for module in modules_in(node)}
        assert {module.partition(".")[0] for module in modules} & {*LIBRARIES, "optax", "scipy"} == own.pop(path.stem)
        assert not any(module.startswith("stable_softmax.") for module in modules), path
        private = [node.attr for node in nodes_of(path) if isinstance(node, ast.Attribute) and node.attr[0] == "_"]
        assert private == [], path
    assert not own


def test_nothing_else_imports_a_drop_in():
    for path in ROOT.rglob("*.py"):
        for module in [module for node in nodes_of(path) for module in modules_in(node)]:
            assert not module.startswith("stable_softmax.dropin"), path
