"""Whether there are traces. Without `serving.otlp_endpoint` OpenTelemetry's SDK and exporter are not imported."""

from typing import TYPE_CHECKING

from serving.metrics import Metrics
from stream_trainer.errors import UsageError
from stream_trainer.settings import ServingSettings

if TYPE_CHECKING:
    from serving.tracing import Tracing


def open_tracing(settings: ServingSettings, pipeline: str, metrics: Metrics) -> "Tracing | None":
    """The tracing that the settings ask for; the caller closes it.

    Raises:
        UsageError: an endpoint is set, but the extra `tracing` is not installed.
    """
    if settings.otlp_endpoint is None:
        return None
    try:
        from serving.tracing import Tracing, exporter  # noqa: PLC0415
    except ImportError as error:
        raise UsageError("serving.otlp_endpoint is set, which needs: pip install 'stream-trainer[tracing]'") from error
    return Tracing(pipeline, metrics, exporter(settings.otlp_endpoint), ratio=settings.trace_ratio)
