"""OpenTelemetry traces: the only module that knows it, and imported only when `serving.otlp_endpoint` is set.

A request's span continues the caller's trace (W3C `traceparent`). Below it a span says how long it waited for its
batch. A batch serves several requests, so its inference span is a child of the first traced one and linked with all of
them. Spans wait in a bounded queue and leave in a thread of their own: a collector that is slow, broken or gone costs
spans, which are counted, and never an answer.
"""

import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch import Tensor

from serving.answers import ANY, Answers, Outcome, Wish
from serving.batching import Predict
from serving.metrics import Metrics
from serving.model import Served
from serving.problems import Problem
from serving.rows import Rows

EXPORT_SECONDS = 5.0
QUEUE_SPANS = 2_048
_PREFIX = "stream_trainer"
_CARRIED = (b"traceparent", b"tracestate")

Outputs = Callable[[Served, Rows], Coroutine[Any, Any, list[Any]]]


@dataclass(slots=True, eq=False)
class _Waiting:
    request: Span
    queue: Span
    rows: int


class Tracing:
    """One tracer for one service; owned by whoever starts the service, who closes it."""

    def __init__(self, pipeline: str, metrics: Metrics, exporter: SpanExporter, *, ratio: float) -> None:
        resource = Resource.create({"service.name": "stream-trainer-serving", f"{_PREFIX}.pipeline": pipeline})
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)), resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(_Counting(metrics))
        counted = _CountingExporter(exporter, metrics)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                counted, max_queue_size=QUEUE_SPANS, max_export_batch_size=512, schedule_delay_millis=1_000
            )
        )
        self._tracer = self._provider.get_tracer("stream_trainer.serving")
        self._propagator = TraceContextTextMapPropagator()
        self._waiting: dict[int, _Waiting] = {}

    def flush(self) -> bool:
        """Hand everything over to the collector; whether that went well. Blocks: not for the event loop."""
        return self._provider.force_flush()

    def close(self, seconds: float = 3.0) -> None:
        """Send what waits, for at most so long. The SDK's own end takes as long as the collector lets it."""
        ending = threading.Thread(target=self._provider.shutdown, name="tracing-end", daemon=True)
        ending.start()
        ending.join(seconds)

    def requests(self, app: ASGIApp, name: str) -> ASGIApp:
        """An ASGI application whose every request is a span of this name."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            parent = self._parent(scope)
            with self._tracer.start_as_current_span(
                name, parent, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
            ) as span:
                if span.is_recording():
                    await app(scope, receive, _Watched(send, span).finish_when_sent)
                else:
                    await app(scope, receive, send)

        return traced

    def routes(self, routes: Iterable[Route]) -> list[Route]:
        """The Open Inference Protocol's routes; those of inference are traced."""
        found = list(routes)
        for route in found:
            if route.path.endswith("/infer"):
                route.app = self.requests(route.app, "infer")
        return found

    def answers(self, inner: Answers) -> "TracedAnswers":
        """Somebody who answers and notes on the request's span what was answered."""
        return TracedAnswers(inner)

    def queue(self, outputs: Outputs) -> Outputs:
        """The queue in front of the model, with a span for each request that is traced."""

        async def traced(served: Served, rows: Rows) -> list[Any]:
            request = trace.get_current_span()
            if not request.is_recording():
                return await outputs(served, rows)
            waiting = _Waiting(request, self._tracer.start_span("queue"), len(rows))
            self._waiting[id(rows)] = waiting  # a part of the batch that it waits with
            try:
                return await outputs(served, rows)
            finally:
                del self._waiting[id(rows)]
                _end(waiting.queue)

        return traced

    def inference(self, predict: Predict) -> Predict:
        """The model, with a span for each batch that holds a request which is traced."""

        def traced(served: Served, rows: Rows) -> Tensor:
            batch = self._of(rows)
            if not batch:
                return predict(served, rows)
            links = [Link(one.request.get_span_context()) for one in batch]
            parent = trace.set_span_in_context(batch[0].request, Context())
            attributes = {f"{_PREFIX}.rows": len(rows), f"{_PREFIX}.model_version": served.number}
            with self._tracer.start_as_current_span("inference", parent, links=links, attributes=attributes) as span:
                for one in batch:
                    one.queue.add_link(span.get_span_context())
                    _end(one.queue)
                return predict(served, rows)

        return traced

    def swapped(self, served: Served, seconds: float) -> None:
        """A version began to serve just now, so many seconds after reading it had begun."""
        now = time.time_ns()
        span = self._tracer.start_span("swap", Context(), start_time=now - int(seconds * 1e9))
        span.set_attributes({f"{_PREFIX}.model_version": served.number, f"{_PREFIX}.manifest_sha256": served.sha256})
        span.end(now)

    def _parent(self, scope: Scope) -> Context:
        carrier: dict[str, str] = {}
        for name, value in scope["headers"]:
            if name in _CARRIED:
                carrier.setdefault(name.decode("latin-1"), value.decode("latin-1"))
        return self._propagator.extract(carrier, Context())

    def _of(self, rows: Rows) -> list[_Waiting]:
        return [one for part in rows.parts if (one := self._waiting.get(id(part))) is not None]


class TracedAnswers:
    """Notes on the request's span which version answered, how many rows, and the first prediction's id."""

    def __init__(self, inner: Answers) -> None:
        self._inner = inner

    @property
    def busy(self) -> bool:
        """See `Answers.busy`."""
        return self._inner.busy

    def versions(self) -> list[Served]:
        """See `Answers.versions`."""
        return self._inner.versions()

    async def answer(self, rows: Rows, requested_at: datetime, wish: Wish = ANY) -> Outcome:
        """See `Answers.answer`."""
        span = trace.get_current_span()
        if not span.is_recording():
            return await self._inner.answer(rows, requested_at, wish)
        span.set_attribute(f"{_PREFIX}.rows", len(rows))
        try:
            outcome = await self._inner.answer(rows, requested_at, wish)
        except Problem as problem:
            if ids := problem.more.get("prediction_ids"):
                span.set_attribute(f"{_PREFIX}.prediction_id", ids[0])
            raise
        span.set_attribute(f"{_PREFIX}.model_version", outcome.served.number)
        span.set_attribute(f"{_PREFIX}.prediction_id", outcome.ids[0])
        return outcome


class _Watched:
    """Reads the outcome off the response: the status, and the reason that a problem's body gives."""

    def __init__(self, send: Send, span: Span) -> None:
        self._send = send
        self._span = span
        self._status = 0
        span.set_attribute(f"{_PREFIX}.outcome", "disconnected")  # until something is sent

    async def finish_when_sent(self, message: Message) -> None:
        """ASGI's send."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._span.set_attribute("http.response.status_code", self._status)
        elif message["type"] == "http.response.body":
            failed = self._status >= 400
            self._span.set_attribute(
                f"{_PREFIX}.outcome", self._reason(message.get("body", b"")) if failed else "answered"
            )
            if self._status >= 500:
                self._span.set_status(Status(StatusCode.ERROR))
        await self._send(message)

    def _reason(self, body: bytes) -> str:
        try:
            return str(msgspec.json.decode(body)["reason"])
        except (msgspec.DecodeError, KeyError, TypeError):
            return f"status_{self._status}"


class _Counting(SpanProcessor):
    """Counts what ended: more than is sent and failed is what the bounded queue had no room for, or what waits."""

    def __init__(self, metrics: Metrics) -> None:
        self._recorded = metrics.trace_spans.labels("recorded")

    def on_end(self, span: ReadableSpan) -> None:  # noqa: ARG002 - the SDK's shape
        self._recorded.inc()


class _CountingExporter(SpanExporter):
    """Counts what the collector took and what it did not."""

    def __init__(self, inner: SpanExporter, metrics: Metrics) -> None:
        self._inner = inner
        self._sent = metrics.trace_spans.labels("sent")
        self._failed = metrics.trace_spans.labels("failed")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See `SpanExporter.export`; what it raises is a failure like another."""
        try:
            result = self._inner.export(spans)
        except Exception:  # noqa: BLE001 - whatever it is, it must not end the exporting thread
            result = SpanExportResult.FAILURE
        (self._sent if result is SpanExportResult.SUCCESS else self._failed).inc(len(spans))
        return result

    def shutdown(self) -> None:
        """See `SpanExporter.shutdown`."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See `SpanExporter.force_flush`."""
        return self._inner.force_flush(timeout_millis)


def exporter(endpoint: str) -> SpanExporter:
    """OTLP over HTTP with protobuf to a collector's address; `/v1/traces` is added to one without a path."""
    _, _, rest = endpoint.partition("://")
    whole = endpoint if rest.rstrip("/").count("/") else f"{endpoint.rstrip('/')}/v1/traces"
    return OTLPSpanExporter(endpoint=whole, timeout=EXPORT_SECONDS)


def _end(span: Span) -> None:
    if span.is_recording():
        span.end()
