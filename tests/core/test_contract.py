from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from stream_trainer.contract import BinaryLabel, Categorical, ClassLabel, Contract, Numeric, NumericLabel, Vector
from stream_trainer.errors import UsageError
from tests.core.worlds import CONTRACT


def contract(**fields: Any) -> Contract:
    given: dict[str, Any] = {
        "features": [Numeric("x")],
        "label": BinaryLabel("y"),
        "key": "id",
        "event_time": "at",
    }
    return Contract(**(given | fields))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Numeric("x", low=1, high=1), "below high"),
        (lambda: Numeric("x", low=2, high=1), "below high"),
        (lambda: Numeric("x", low=float("nan")), "below high"),
        (lambda: Categorical("c"), "either a vocabulary or"),
        (lambda: Categorical("c", vocabulary=["a"], buckets=4), "either a vocabulary or"),
        (lambda: Categorical("c", vocabulary=[]), "empty or repeats"),
        (lambda: Categorical("c", vocabulary=["a", "a"]), "empty or repeats"),
        (lambda: Categorical("c", buckets=1), "at least 2 buckets"),
        (lambda: Vector("v", 0), "at least 1"),
        (lambda: ClassLabel("y", ["a"]), "2 different classes"),
        (lambda: ClassLabel("y", ["a", "a"]), "2 different classes"),
        (lambda: contract(features=[]), "at least one feature"),
        (lambda: contract(key="x"), "named twice"),
        (lambda: contract(label=BinaryLabel("x")), "named twice"),
        (lambda: contract(event_time="id"), "named twice"),
        (lambda: contract(features=[Numeric("x"), Vector("x", 2)]), "named twice"),
        (lambda: contract(key=""), "not empty"),
        (lambda: contract(key="_example_id"), "reserved"),
        (lambda: contract(segments=["_private"]), "reserved"),
        (lambda: contract(segments=["s", "s"]), "twice"),
        (lambda: contract(segments=["x"]), "not text"),
        (lambda: contract(features=[Vector("v", 2)], segments=["v"]), "not text"),
        (lambda: contract(segments=["y"]), "named twice"),
        (lambda: contract(segments=["id"]), "named twice"),
    ],
)
def test_what_cannot_work_is_refused_by_name(build: Callable[[], object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        build()


def test_a_categorical_feature_may_be_a_segment_and_is_not_a_second_field() -> None:
    made = contract(features=[Categorical("c", buckets=4)], segments=["c", "s"])
    assert made.extra_segments == ("s",)


def test_fingerprint_is_what_it_was_when_versions_were_committed() -> None:
    assert CONTRACT.fingerprint == "4eb90b46e68007242c5037a3b70fa141c0498d40a46a3f6122875c84b566bbe9"


def test_fingerprint_does_not_depend_on_lists_or_tuples() -> None:
    assert contract(features=(Numeric("x"),)).fingerprint == contract(features=[Numeric("x")]).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        contract(features=[Numeric("z")]),
        contract(features=[Numeric("x", low=0)]),
        contract(features=[Numeric("x", high=1)]),
        contract(features=[Numeric("x", optional=True)]),
        contract(features=[Vector("x", 2)]),
        contract(features=[Vector("x", 3)]),
        contract(features=[Categorical("x", buckets=2)]),
        contract(features=[Categorical("x", buckets=3)]),
        contract(features=[Categorical("x", vocabulary=["a", "b"])]),
        contract(features=[Categorical("x", vocabulary=["b", "a"])]),
        contract(features=[Numeric("x"), Numeric("z")]),
        contract(features=[Numeric("z"), Numeric("x")]),
        contract(label=NumericLabel("y")),
        contract(label=ClassLabel("y", ["a", "b"])),
        contract(label=ClassLabel("y", ["b", "a"])),
        contract(label=BinaryLabel("z")),
        contract(key="key"),
        contract(event_time="time"),
        contract(segments=["s"]),
    ],
)
def test_any_difference_gives_another_fingerprint(other: Contract) -> None:
    assert other.fingerprint != contract().fingerprint


def test_all_fingerprints_of_one_field_changed_differ() -> None:
    made = [replace(CONTRACT, key=f"key{i}").fingerprint for i in range(20)]
    assert len(set(made)) == 20


@pytest.mark.parametrize(
    ("label", "task", "outputs"),
    [
        (BinaryLabel("y"), "binary", 1),
        (ClassLabel("y", ["a", "b", "c"]), "multiclass", 3),
        (NumericLabel("y"), "regression", 1),
    ],
)
def test_a_label_says_how_it_is_learned(label: Any, task: str, outputs: int) -> None:
    assert (label.task, label.outputs) == (task, outputs)
