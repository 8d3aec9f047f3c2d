"""`docs/threat-model.md` names tests, and every item of both lists: each test exists, no item is left out."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "threat-model.md").read_text()
IDS = sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", TEXT)))


@pytest.mark.parametrize("test_id", IDS)
def test_a_test_that_is_listed_exists(test_id: str) -> None:
    path, name = test_id.split("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("item", [*(f"API{n}" for n in range(1, 11)), *(f"ML{n:02}" for n in range(1, 11))])
def test_every_item_is_there_and_those_of_the_api_name_tests(item: str) -> None:
    (row,) = (
        line for line in TEXT.splitlines() if line.startswith("| ") and re.search(rf"\b{item}\b", line.split("|")[1])
    )
    if item.startswith("API"):
        assert re.search(r"`tests/\S+::test_\w+`", row)
