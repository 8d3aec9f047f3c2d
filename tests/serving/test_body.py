"""Bodies into rows: how many there may be, and when that is found out."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.body import RowParser
from serving.problems import Problem
from stream_trainer.contract import BinaryLabel, Contract, Numeric

CONTRACT = Contract(
    features=[Numeric("x", optional=True)], label=BinaryLabel("y"), key="k", event_time="at", segments=["s"]
)
MOST = 4
PARSER = RowParser(CONTRACT, MOST)
BRACES = st.sampled_from([{}, {"q": {}}, {"q": [{}, {}]}, {"s": "{{{"}, {"x": 1.5, "q": {"q": {}}}, {"s": '"{"'}])


def body(*rows: Any) -> bytes:
    return json.dumps({"instances": rows}).encode()


@given(st.lists(BRACES, min_size=1, max_size=2 * MOST))
def test_rows_are_counted_whatever_braces_they_hold(rows: list[Any]) -> None:
    if len(rows) <= MOST:
        assert len(PARSER.parse(body(*rows))) == len(rows)
        return
    with pytest.raises(Problem) as raised:
        PARSER.parse(body(*rows))
    problem = raised.value
    assert (problem.status, problem.reason, problem.more) == (413, "too_many_rows", {"where": "$.instances"})


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{}] * (MOST + 1) + ["never looked at"], "too_many_rows"),
        ([{}] * MOST + ["looked at"] + [{}] * MOST, "invalid_value"),
        (["looked at"] + [{}] * (2 * MOST), "invalid_value"),
    ],
)
def test_reading_ends_at_the_first_row_that_is_too_many(rows: list[Any], reason: str) -> None:
    with pytest.raises(Problem) as raised:
        PARSER.parse(body(*rows))
    assert raised.value.reason == reason


def test_many_lists_of_few_rows_are_many_rows() -> None:
    lists = b",".join([b'"instances":[{},{},{}]'] * 3)
    with pytest.raises(Problem) as raised:
        PARSER.parse(b"{" + lists + b"}")
    assert raised.value.reason == "too_many_rows"


def test_a_refusal_leaves_nothing_behind_for_the_next_body() -> None:
    for _ in range(2):
        with pytest.raises(Problem):
            PARSER.parse(body(*[{}] * (MOST + 1)))
        assert len(PARSER.parse(body(*[{"q": {}}] * MOST))) == MOST
