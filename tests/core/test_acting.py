"""What a pipeline may say of actions, and what a record of `P.actions` may be."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors import findings
from stream_trainer.acting import (
    KINDS,
    MAX_BYTES,
    Action,
    HoldPromotion,
    RaiseLearningRate,
    ReleasePromotion,
    RollBack,
    WarmRetrain,
    When,
    action_of,
    id_of_alert,
    id_of_person,
    parse,
)
from stream_trainer.errors import UsageError
from stream_trainer.monitoring import Monitoring
from tests.core.test_schemas import FOLDER
from tests.core.worlds import asked

AT = datetime(2026, 1, 1, tzinfo=UTC)
SCHEMA: Any = jsonschema.Draft202012Validator(json.loads((FOLDER / "action.json").read_text()))
ACTIONS: Any = st.one_of(
    st.builds(
        RaiseLearningRate,
        factor=st.floats(1.0, 100.0, exclude_min=True),
        rows=st.integers(1, 10_000_000),
    ),
    st.builds(HoldPromotion),
    st.builds(RollBack),
    st.builds(WarmRetrain, records=st.integers(1, 1_000_000)),
    st.builds(ReleasePromotion, hold=st.text("0123456789abcdef", min_size=32, max_size=32)),
)
INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def test_the_kinds_are_those_of_the_monitor() -> None:
    assert get_args(findings.Kind) == KINDS


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RaiseLearningRate(factor=1), "factor is 1"),
        (lambda: RaiseLearningRate(factor=float("nan")), "factor is nan"),
        (lambda: RaiseLearningRate(factor=True), "factor is True"),
        (lambda: RaiseLearningRate(factor=101), "at most 100"),
        (lambda: RaiseLearningRate(rows=0), "rows is 0"),
        (lambda: RaiseLearningRate(rows=1.5), "rows is 1.5"),  # type: ignore[arg-type]
        (lambda: WarmRetrain(records=10**7), "records is 10000000"),
        (lambda: When(kind="rain", do=RollBack()), "no kind of alert 'rain'"),  # type: ignore[arg-type]
        (lambda: When(kind="drift", severity="high", do=RollBack()), "severity is 'high'"),  # type: ignore[arg-type]
        (lambda: When(kind="drift", feature="", do=RollBack()), "feature is the name"),
        (lambda: When(kind="drift", against="limit", do=RollBack()), "against is 'limit'"),  # type: ignore[arg-type]
        (lambda: When(kind="loss", against="baseline", do=RollBack()), "no alert of kind loss is against"),
        (lambda: When(kind="concept", feature="x", do=RollBack()), "about no single feature"),
        (lambda: When(kind="drift", do=RollBack), r"RollBack.*such as HoldPromotion\(\)"),  # type: ignore[arg-type]
        (lambda: When(kind="drift", do=ReleasePromotion(hold="0" * 32)), "give one of"),  # type: ignore[arg-type]
        (lambda: Monitoring(actions=(RollBack(),)), "tuple of When"),  # type: ignore[arg-type]
        (lambda: Monitoring(action_cooldown=timedelta(-1)), "action_cooldown"),
        (lambda: Monitoring(hold_at_most=timedelta(0)), "hold_at_most"),
        (lambda: action_of({"kind": "explode"}), "explode"),
        (lambda: action_of({"kind": "roll_back", "to": 3}), "roll_back"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(make: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


def test_a_rule_is_met_by_its_kind_its_feature_and_what_is_at_least_so_severe() -> None:
    rule = When(kind="drift", severity="warning", feature="x", do=HoldPromotion())
    assert [rule.is_met("drift", "x", severity, "learned") for severity in ("info", "warning", "critical", "?")] == [
        False,
        True,
        True,
        False,
    ]
    assert not rule.is_met("loss", "x", "critical", "learned")
    assert not rule.is_met("drift", "y", "critical", "learned")
    assert When(kind="drift", do=HoldPromotion()).is_met("drift", "y", "warning", "learned")


def test_a_rule_hears_of_what_the_model_has_not_followed_unless_it_says_otherwise() -> None:
    def heard(**fields: Any) -> list[str]:
        rule = When(do=HoldPromotion(), **fields)
        return [against for against in ("learned", "baseline") if rule.is_met(rule.kind, "", "critical", against)]

    for kind in ("drift", "quality", "label", "multivariate"):
        assert heard(kind=kind) == ["learned"]
        assert heard(kind=kind, against="baseline") == ["baseline"]
        assert heard(kind=kind, against="any") == ["learned", "baseline"]
    assert When(kind="concept", do=HoldPromotion()).is_met("concept", "", "critical", "limit")


@given(ACTIONS, ACTIONS, st.text(max_size=20), st.text(max_size=20), INSTANTS, INSTANTS)
def test_an_id_says_which_alert_and_what_and_nothing_else(
    one: Action, other: Action, key: str, another: str, at: datetime, later: datetime
) -> None:
    same = (key, at, one) == (another, later, other)
    assert (id_of_alert(key, at, one) == id_of_alert(another, later, other)) is same
    assert id_of_alert(key, at.astimezone(), one) == id_of_alert(key, at, one)
    assert id_of_alert(key, at, one) != id_of_person(key, at, one)
    assert RaiseLearningRate(factor=3) == RaiseLearningRate(factor=3.0)


@given(ACTIONS, INSTANTS)
def test_a_request_is_read_as_it_was_written_and_fits_the_schema(action: Action, at: datetime) -> None:
    request = asked(action, at=at)
    data = msgspec.json.encode(request)
    assert parse(request.action_id.encode(), data) == request
    SCHEMA.validate(json.loads(data))


GOOD = json.loads(msgspec.json.encode(asked(RaiseLearningRate())))


@pytest.mark.parametrize(
    "change",
    [
        {"action": {"kind": "explode"}},
        {"action": {"kind": "raise_learning_rate", "factor": 1000}},
        {"action": {"kind": "raise_learning_rate", "rows": -1}},
        {"action": {"kind": "raise_learning_rate", "more": 1}},
        {"action": {"kind": "release_promotion", "hold": "../x"}},
        {"action_id": "x"},
        {"asked_at": "2026-01-01T00:00:00"},
        {"by": "a\nb"},
        {"reason": "\u001b[31m"},
        {"reason": "x" * 501},
        {"alert": {"alert_key": "x"}},
        {"more": 1},
    ],
    ids=str,
)
def test_what_is_no_request_is_none_and_does_not_fit_the_schema(change: dict[str, Any]) -> None:
    broken = GOOD | change
    assert parse(str(broken["action_id"]).encode(), json.dumps(broken).encode()) is None
    assert not SCHEMA.is_valid(broken)


@given(st.binary(max_size=200))
def test_no_bytes_are_taken_for_more_than_they_are(data: bytes) -> None:
    assert parse(b"0" * 32, data) is None


def test_a_tombstone_another_key_and_too_much_are_none() -> None:
    data = json.dumps(GOOD).encode()
    key = GOOD["action_id"].encode()
    assert parse(key, data) is not None
    assert [parse(key, None), parse(None, data), parse(b"0" * 32, data)] == [None] * 3
    assert parse(key, data + b" " * MAX_BYTES) is None
    assert parse(key, b"[" * 10_000) is None
