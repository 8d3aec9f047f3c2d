"""Open alerts end where nothing speaks for them any more: the pipeline or the names of alerts have changed."""

from dataclasses import replace

import pytest

from monitors.alerts import Alert, key_of
from monitors.retired import why_retired
from stream_trainer.pipeline import Pipeline

from .worlds import CONTRACT, MONITORING, alert

PIPELINE = Pipeline(name="flights", contract=CONTRACT, monitoring=replace(MONITORING, unwatched=("dep_hour",)))


def named(**fields: object) -> Alert:
    found = alert(**{"feature": "distance", **fields})
    return alert(**{"alert_key": key_of(found), "feature": "distance", **fields})


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"feature": "dep_hour"}, "it is no longer watched"),
        ({"kind": "quality", "feature": "dep_hour"}, "it is no longer watched"),
        ({"feature": "gone"}, "it is no feature"),
        ({"segment": "weather=rain"}, "it is no segment"),
        ({"kind": "loss", "feature": "", "segment": "weather=rain"}, "it is no segment"),
        ({"kind": "quality", "alert_key": "quality/distance"}, "under another key"),
        ({"alert_key": "drift/distance"}, "under another key"),
    ],
)
def test_what_nothing_speaks_for_is_ended_with_its_reason(fields: dict[str, object], why: str) -> None:
    assert why in why_retired(named(**fields), PIPELINE)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"kind": "quality", "against": "baseline"},
        {"kind": "quality", "feature": "_output/probability"},
        {"kind": "prediction", "feature": "_output"},
        {"kind": "label", "feature": "_label", "segment": "origin=JFK"},
        {"kind": "multivariate", "feature": ""},
        {"kind": "schema", "feature": "invalid_json", "against": "limit"},
        {"kind": "loss", "feature": ""},
        {"segment": "_version=3"},
        {"segment": "carrier=a=b/c"},
    ],
)
def test_what_is_still_watched_goes_on(fields: dict[str, object]) -> None:
    assert why_retired(named(**fields), PIPELINE) == ""
