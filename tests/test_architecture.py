"""The floors of the package: imports point down."""

import ast
from pathlib import Path

import pytest

import stable_softmax

FLOORS = ["_core", "_libraries", "_maths", "_execution", "_arguments"]  # and above them the root


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_point_down(floor):
    paths = list((Path(stable_softmax.__file__).parent / floor).glob("*.py"))
    nodes = [(path, node) for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    for path, node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "stable_softmax":
            for name in [f"{node.module}.{alias.name}".split(".")[1] for alias in node.names]:
                assert FLOORS.index(name) <= FLOORS.index(floor), path
        assert not isinstance(node, ast.Import) or all("stable_softmax" not in alias.name for alias in node.names), path
    assert paths
