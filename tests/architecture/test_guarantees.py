"""`docs/guarantees.md` names tests: each of them exists, each promise has some, each fault has one named after it."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "guarantees.md").read_text()
IDS = sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", TEXT)))
PROMISES = re.split(r"\n(?=\*\*)", TEXT.split("## The faults", 1)[0])
FAULTS = re.findall(r"^\| ([FS]\d\d) \|.*\| ([^|]+) \|$", TEXT, re.MULTILINE)
# The faults of the catalogue that come first.
STARRED = {
    "F01",
    "F02",
    "F03",
    "F04",
    "F05",
    "F06",
    "F09",
    "F10",
    "F11",
    "F16",
    "F17",
    "F18",
    "F21",
    "F23",
    "F30",
    "F31",
    "F34",
    "F41",
}


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef) and "test" in node.name)


@pytest.mark.parametrize("test_id", IDS)
def test_a_test_that_is_listed_exists(test_id: str) -> None:
    path, name = test_id.split("::")
    assert name in names_in(path), f"docs/guarantees.md lists {test_id}, which is gone"


@pytest.mark.parametrize("number", range(1, 9))
def test_every_promise_names_tests(number: int) -> None:
    (promise,) = [part for part in PROMISES if part.startswith(f"**G{number}.")]
    assert re.search(r"^- `tests/\S+::test_\w+`", promise, re.MULTILINE), promise.splitlines()[0]


def test_every_fault_that_comes_first_is_listed() -> None:
    assert {fault for fault, _ in FAULTS} >= STARRED


@pytest.mark.parametrize(("fault", "files"), FAULTS)
def test_every_file_of_a_fault_holds_a_test_named_after_it(fault: str, files: str) -> None:
    for path in re.findall(r"`(tests/\S+\.py)`", files):
        assert any(fault.lower() in name.split("_") for name in names_in(path)), f"{path} has no test named {fault}"
