"""Columns that go missing in the same rows are one change; those that go missing as often, in other rows, are not."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from monitors.companions import companions
from monitors.deciding import Question
from monitors.findings import Against, Finding
from monitors.missing import both_missing

NAMES = ("temp", "dewp", "wind", "visib")
ROWS, BEFORE = 1_000, 5_000


def missing(**rows: range) -> bytes:
    columns = {
        name: pa.array([None if i in rows.get(name, range(0)) else 1.0 for i in range(ROWS)], pa.float64())
        for name in NAMES
    }
    return both_missing(NAMES, columns)


def question(
    feature: str, now: int, before: int = 0, *, segment: str = "", against: Against = "learned", above: int = 0
) -> Question:
    return Question(
        kind="drift",
        feature=feature,
        segment=segment,
        against=against,
        window=np.array([ROWS - now - above, above, now]),
        reference=np.array([BEFORE - before, 0, before]),
        names=("any", "above", "missing"),
        quality=(1, 2),
    )


def told(questions: Sequence[Question], both: bytes) -> list[tuple[str, ...]]:
    findings = [
        Finding(kind="quality", feature=q.feature, segment=q.segment, against=q.against, state="drift")
        for q in questions
    ]
    return [finding.together for finding in companions(questions, findings, both, NAMES)]


def test_columns_of_the_same_rows_name_each_other_in_the_order_of_the_contract() -> None:
    both = missing(temp=range(100), dewp=range(100), wind=range(500, 600))
    found = told([question("dewp", 100), question("wind", 100), question("temp", 100)], both)
    assert found == [("temp", "dewp"), (), ("temp", "dewp")]


def test_as_often_in_other_rows_is_another_change() -> None:
    both = missing(temp=range(100), dewp=range(100, 200), wind=range(50, 150))
    assert told([question(name, 100) for name in NAMES[:3]], both) == [(), (), ()]


def test_a_few_rows_of_their_own_part_no_columns_and_many_do() -> None:
    both = missing(temp=range(100), dewp=range(105), wind=range(300))
    found = told([question("temp", 100), question("dewp", 105), question("wind", 300)], both)
    assert found == [("temp", "dewp"), ("temp", "dewp"), ()]


def test_a_segment_goes_by_its_own_rows_where_the_rarer_column_is_never_missing_alone() -> None:
    both = missing(temp=range(100), dewp=range(100), wind=range(400))
    here = [question("temp", 60, segment="s=a"), question("wind", 60, segment="s=a")]
    there = [question("temp", 40, segment="s=b"), question("wind", 340, segment="s=b")]
    assert told(here + there, both) == [("temp", "wind"), ("temp", "wind"), (), ()]


def test_what_is_missing_no_more_went_together_where_it_was_missing_equally_often() -> None:
    found = told([question("temp", 0, 123), question("dewp", 0, 123), question("wind", 0, 124)], b"")
    assert found == [("temp", "dewp"), ("temp", "dewp"), ()]


def test_references_and_directions_are_looked_at_apart() -> None:
    both = missing(temp=range(100), dewp=range(100))
    asked = [question("temp", 100), question("dewp", 100, against="baseline"), question("dewp", 100, 2_000)]
    assert told(asked, both) == [(), (), ()]


@pytest.mark.parametrize(
    ("kind", "state", "above"), [("drift", "drift", 0), ("quality", "quiet", 0), ("quality", "drift", 300)]
)
def test_only_what_is_missing_surely_more_often_is_put_together(kind: str, state: str, above: int) -> None:
    both = missing(temp=range(100), dewp=range(100))
    asked = [question("temp", 100), question("dewp", 100, above=above)]
    findings = [
        Finding(kind="quality", feature="temp", against="learned", state="drift"),
        Finding(kind=kind, feature="dewp", against="learned", state=state),  # type: ignore[arg-type]
    ]
    assert [finding.together for finding in companions(asked, findings, both, NAMES)] == [(), ()]
    assert companions([], findings, both, NAMES) == findings
