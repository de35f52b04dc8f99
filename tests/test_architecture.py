"""The floors of the package: imports point down."""

import re
from pathlib import Path

import stable_softmax

FLOORS = ["_libraries", "_maths", "_execution", "_arguments"]  # and above them the root


def test_imports_point_down():
    root = Path(stable_softmax.__file__).parent
    for level, floor in enumerate(FLOORS):
        for path in (root / floor).glob("*.py"):
            imported = re.findall(r"(?m)^ *(?:from|import) stable_softmax(?:\.| import )(\w+)", path.read_text())
            assert set(imported) <= set(FLOORS[: level + 1]), path
