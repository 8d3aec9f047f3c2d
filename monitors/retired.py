"""Open alerts that nothing will speak for any more, because the pipeline or the names of alerts have changed. Pure."""

from monitors.alerts import Alert, key_of
from monitors.findings import VERSION
from stream_trainer.pipeline import Pipeline
from stream_trainer.reference import OUTPUT

_OF_FEATURES = ("drift", "quality")


def why_retired(alert: Alert, pipeline: Pipeline) -> str:
    """Why an open alert has to be ended, "" when it may go on."""
    if alert.alert_key != key_of(alert):
        return "it would be told under another key now"
    if alert.kind in _OF_FEATURES and not alert.feature.startswith(OUTPUT):
        if alert.feature not in {feature.name for feature in pipeline.contract.features}:
            return "it is no feature of the pipeline any more"
        if alert.feature in pipeline.monitoring.unwatched:
            return "it is no longer watched"
    segment = alert.segment.partition("=")[0]
    if segment and not alert.segment.startswith(VERSION) and segment not in pipeline.contract.segments:
        return "it is no segment of the pipeline any more"
    return ""
