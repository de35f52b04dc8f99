"""The documents show no code that nothing runs, and have a place for every public name."""

import re
from pathlib import Path

import pytest

import stable_softmax

pytestmark = [pytest.mark.only_backends("numpy"), pytest.mark.unversioned]

DOCUMENTS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path.relative_to(DOCUMENTS) for path in DOCUMENTS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_block_of_python_has_prompts_or_is_a_cell(page):
    blocks = re.findall(r"^```(?:python|py|pycon)\n(.*?)^```", (DOCUMENTS / page).read_text(), re.DOTALL | re.MULTILINE)
    assert [block for block in blocks if not block.startswith(">>> ")] == []


def test_every_public_name_has_its_entry_in_the_reference():
    text = "\n".join(path.read_text() for path in (DOCUMENTS / "reference").glob("*.md"))
    documented = set(re.findall(r"^\.\. auto\w+:: stable_softmax\.(\w+)", text, re.MULTILINE))
    assert documented == set(stable_softmax.__all__)
