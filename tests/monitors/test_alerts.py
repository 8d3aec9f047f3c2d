"""The records of `P.alerts`: their keys, their schema, and the open ones found again."""

import json
from datetime import timedelta
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from jsonschema import Draft202012Validator

from monitors.alerts import Alert, key_of, restore, with_report
from monitors.findings import Against, Effect, Finding, Kind, Severity
from stream_trainer.topic_reading import Message

from .worlds import alert

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "alert.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)


def wire(one: Alert) -> object:
    return json.loads(msgspec.json.encode(one))


def message(key: str, value: object) -> Message:
    return Message(key, value, 0, 0.0)


@pytest.mark.parametrize(
    ("finding", "key"),
    [
        (Finding(kind="drift", feature="x", against="learned", state="drift"), "drift/learned/x"),
        (
            Finding(kind="drift", feature="x", segment="at=JFK", against="baseline", state="drift"),
            "drift/baseline/x/at=JFK",
        ),
        (
            Finding(kind="drift", feature="x", segment="_version=7", against="learned", state="drift"),
            "drift/learned/x/_version",
        ),
        (Finding(kind="quality", feature="x", against="learned", state="drift"), "quality/learned/x"),
        (Finding(kind="quality", feature="x", against="baseline", state="drift"), "quality/baseline/x"),
        (Finding(kind="multivariate", feature="", against="baseline", state="drift"), "multivariate/baseline"),
        (Finding(kind="prediction", feature="_output", against="learned", state="drift"), "prediction/_output"),
        (Finding(kind="silence", feature="", against="limit", state="drift"), "silence"),
        (Finding(kind="loss", feature="", segment="at=JFK", against="limit", state="drift"), "loss/at=JFK"),
    ],
)
def test_a_key_says_what_it_is_about(finding: Finding, key: str) -> None:
    assert key_of(finding) == key
    VALIDATOR.validate(wire(alert(alert_key=key, kind=finding.kind, feature=finding.feature)))


def test_the_schema_knows_every_field_and_every_word() -> None:
    monitor = SCHEMA["$defs"]["monitor"]
    words = {name: set(monitor["properties"][name]["enum"]) for name in ("kind", "against", "severity")}

    assert set(monitor["required"]) == set(monitor["properties"]) == set(Alert.__struct_fields__)
    assert words == {
        "kind": set(get_args(Kind)),
        "against": set(get_args(Against)),
        "severity": set(get_args(Severity)),
    }
    assert set(monitor["properties"]["effect"]["required"]) == set(Effect.__struct_fields__)


@pytest.mark.parametrize("wrong", [{"p_value": 1.5}, {"severity": "fatal"}, {"alert_key": "gate/x"}, {"windows": 0}])
def test_the_schema_refuses_what_is_no_alert(wrong: dict[str, object]) -> None:
    VALIDATOR.validate(wire(alert()))
    assert list(VALIDATOR.iter_errors(wire(alert(**wrong))))


def test_open_alerts_are_restored_from_the_newest_record_of_each_key() -> None:
    x, y = alert(), alert(alert_key="quality/learned/y", kind="quality", feature="y")
    newer = msgspec.structs.replace(x, status="updated", severity="critical")
    log = [x, y, newer, msgspec.structs.replace(y, status="resolved")]
    messages = [message(one.alert_key, wire(one)) for one in log]
    messages += [message("gate/loss_jump", {"kind": "gate"}), message("drift/learned/z", {"status": "opened"})]
    messages += [message("drift/learned/gone", None)]

    assert restore(messages)[0] == {"drift/learned/x": newer}


def test_an_open_alert_that_cannot_be_read_is_ended_once() -> None:
    old = message("drift/x", {"status": "opened", "pipeline": "flights", "p": 1})
    gone = [message("drift/y", {"status": "opened"}), message("drift/y", {"status": "resolved"})]
    known, ends = restore([old, *gone, message("loss", None), message("gate/x", {"status": "opened"})])

    assert known == {}
    assert [(end.alert_key, end.kind, end.pipeline, end.status) for end in ends] == [
        ("drift/x", "drift", "flights", "resolved")
    ]
    VALIDATOR.validate(wire(ends[0]))
    assert restore([old, message("drift/x", wire(ends[0]))]) == ({}, [])


def test_a_report_is_added_only_to_the_alert_it_was_made_for() -> None:
    opened = alert()
    held = {opened.alert_key: opened}

    updated = with_report(held, opened.alert_key, opened.opened_at, "report.html")
    assert updated is not None
    assert (updated.status, updated.report) == ("updated", "report.html")
    assert with_report(held, opened.alert_key, opened.opened_at + timedelta(1), "report.html") is None
    assert with_report({}, opened.alert_key, opened.opened_at, "report.html") is None
