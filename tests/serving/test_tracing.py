"""The real SDK: spans in memory, and spans as a collector receives them over HTTP."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serving.answering import predictor
from serving.app import create_app
from serving.batching import Batches, BatchLimits
from serving.telemetry import open_tracing
from serving.tracing import QUEUE_SPANS, Tracing, exporter
from stream_trainer.settings import ServingSettings
from tests.serving.fixtures import PIPELINE, ROWS, Harness, commit_version, learned_state, requested, serving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
INFER = {
    "inputs": [
        {"name": "distance", "shape": [1], "datatype": "FP64", "data": [1.0]},
        {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["AA"]},
    ]
}


def app_of(harness: Harness, tracing: Tracing | None) -> FastAPI:
    return create_app(
        harness.pipeline,
        harness.settings,
        log=harness.log,
        follower=harness.follower,
        metrics=harness.metrics,
        store=harness.store,
        clock=harness.clock,
        tracing=tracing,
    )


class Traced:
    """A service that is traced, and the spans it ended."""

    def __init__(self, harness: Harness, exporter: SpanExporter | None = None, ratio: float = 0.0) -> None:
        self.memory = InMemorySpanExporter()
        self.tracing = Tracing(PIPELINE.name, harness.metrics, exporter or self.memory, ratio=ratio)
        self.app = app_of(harness, self.tracing)

    def spans(self) -> dict[str, list[ReadableSpan]]:
        self.tracing.flush()
        found: dict[str, list[ReadableSpan]] = {}
        for span in self.memory.get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found


@pytest.fixture
def traced(harness: Harness) -> Iterator[Traced]:
    commit_version(harness.store, PIPELINE, learned_state())
    harness.follower.look()
    traced = Traced(harness)
    yield traced
    traced.tracing.close()


def context(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def parent(span: ReadableSpan) -> str:
    assert span.parent is not None
    return f"{span.parent.span_id:016x}"


def of(span: ReadableSpan) -> dict[str, Any]:
    return {name.removeprefix("stream_trainer."): value for name, value in (span.attributes or {}).items()}


def test_a_request_continues_the_callers_trace_and_says_what_answered(traced: Traced) -> None:
    with serving(traced.app) as client:
        answer = client.post("/predict", json={"instances": ROWS[:3]}, headers=SAMPLED).json()
    spans = traced.spans()
    (request,), (queue,), (inference,) = spans["predict"], spans["queue"], spans["inference"]
    assert {context(span)[0] for span in (request, queue, inference)} == {TRACE}
    assert parent(request) == PARENT
    assert parent(queue) == parent(inference) == context(request)[1]
    assert of(request) == {
        "outcome": "answered",
        "rows": 3,
        "model_version": 1,
        "prediction_id": answer["predictions"][0]["prediction_id"],
        "http.response.status_code": 200,
    }
    assert [f"{link.context.span_id:016x}" for link in inference.links] == [context(request)[1]]
    assert [f"{link.context.span_id:016x}" for link in queue.links] == [context(inference)[1]]
    assert inference.start_time is not None
    assert queue.end_time is not None
    assert queue.end_time >= inference.start_time >= (queue.start_time or 0)


@pytest.mark.parametrize(
    ("path", "body", "outcome"),
    [("/predict", b"{", "invalid_json"), ("/v2/models/flights/infer", b"{", "invalid_json")],
)
def test_a_refused_request_says_why(traced: Traced, path: str, body: bytes, outcome: str) -> None:
    with serving(traced.app) as client:
        status = client.post(path, content=body, headers=SAMPLED).status_code
    (request,) = [span for spans in traced.spans().values() for span in spans]
    assert of(request) == {"outcome": outcome, "http.response.status_code": status}


def test_without_a_version_the_logged_prediction_is_named(harness: Harness) -> None:
    traced = Traced(harness)
    with serving(traced.app) as client:
        problem = client.post("/predict", json={"instances": ROWS[:1]}, headers=SAMPLED).json()
    (request,) = traced.spans()["predict"]
    assert of(request)["prediction_id"] == problem["prediction_ids"][0]
    assert not request.status.is_ok
    traced.tracing.close()


def test_the_open_inference_protocol_is_traced_too(traced: Traced) -> None:
    with serving(traced.app) as client:
        assert client.post("/v2/models/flights/infer", json=INFER, headers=SAMPLED).status_code == 200
    spans = traced.spans()
    assert of(spans["infer"][0])["model_version"] == 1
    assert len(spans["queue"]) == len(spans["inference"]) == 1


@pytest.mark.parametrize(
    "value", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00", "00-" * 5_000]
)
def test_nothing_is_traced_that_nobody_asked_for(traced: Traced, value: str) -> None:
    with serving(traced.app) as client:
        assert client.post("/predict", json={"instances": ROWS}, headers={"traceparent": value}).status_code == 200
    assert traced.spans() == {}


def test_requests_that_share_a_batch_are_linked_with_it(traced: Traced, harness: Harness) -> None:
    """Three requests share a forward pass; the second is not traced."""
    served = harness.follower.served
    assert served is not None
    batches = Batches(traced.tracing.inference(predictor(PIPELINE)), harness.metrics, BatchLimits())
    outputs = traced.tracing.queue(batches.outputs)
    rows = iter([requested(PIPELINE, ROWS[i : i + 2]) for i in (0, 2, 4)])

    async def ask(*_: Any) -> None:
        assert len(await outputs(served, next(rows))) == 2

    app = traced.tracing.requests(ask, "predict")
    callers = [SAMPLED["traceparent"], "", f"00-{TRACE[::-1]}-{PARENT}-01"]
    scopes = [{"type": "http", "headers": [(b"traceparent", caller.encode())]} for caller in callers]

    async def together() -> None:
        await asyncio.gather(*(app(scope, nothing, nothing) for scope in scopes))  # type: ignore[arg-type]

    asyncio.run(together())
    batches.close()
    spans = traced.spans()
    (inference,) = spans["inference"]
    requests = {context(span) for span in spans["predict"]}
    assert {(f"{one.context.trace_id:032x}", f"{one.context.span_id:016x}") for one in inference.links} == requests
    assert of(inference)["rows"] == 6
    assert len(requests) == len(spans["queue"]) == 2
    assert {link.context.span_id for span in spans["queue"] for link in span.links} == {inference.context.span_id}


async def nothing(*_: Any) -> None:
    pass


class Refusing(SpanExporter):
    """A collector that refuses, raises, or does not answer until it is let."""

    def __init__(self, raises: bool) -> None:
        self.raises = raises

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.raises:
            raise OSError("the collector is gone")
        return SpanExportResult.FAILURE


@pytest.mark.parametrize("raises", [True, False])
def test_spans_that_the_collector_does_not_take_are_counted_and_answers_are_as_ever(
    harness: Harness, raises: bool
) -> None:
    commit_version(harness.store, PIPELINE, learned_state())
    harness.follower.look()
    traced = Traced(harness, Refusing(raises))
    with serving(traced.app) as client:
        assert client.post("/predict", json={"instances": ROWS}, headers=SAMPLED).status_code == 200
    traced.tracing.flush()
    assert harness.metric("trace_spans_total", result="failed") == 3
    assert harness.metric("trace_spans_total", result="sent") == 0
    traced.tracing.close()


class Hanging(SpanExporter):
    def __init__(self) -> None:
        self.let = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.let.wait()
        return SpanExportResult.SUCCESS


def test_a_collector_that_hangs_holds_up_nobody_and_what_waits_for_it_is_bounded(harness: Harness) -> None:
    commit_version(harness.store, PIPELINE, learned_state())
    harness.follower.look()
    hanging = Hanging()
    traced = Traced(harness, hanging)
    served = harness.follower.served
    assert served is not None
    tracer = traced.tracing._tracer
    parent = traced.tracing._parent({"headers": [(b"traceparent", SAMPLED["traceparent"].encode())]})
    for _ in range(2 * QUEUE_SPANS + 1_000):
        tracer.start_span("swap", parent).end()
    with serving(traced.app) as client:
        assert client.post("/predict", json={"instances": ROWS}, headers=SAMPLED).status_code == 200
    hanging.let.set()
    traced.tracing.close()
    recorded, sent = (harness.metric("trace_spans_total", result=result) for result in ("recorded", "sent"))
    assert recorded == 2 * QUEUE_SPANS + 1_003
    assert QUEUE_SPANS <= sent < recorded


def test_a_collector_that_hangs_does_not_hold_up_the_end(harness: Harness) -> None:
    hanging = Hanging()
    traced = Traced(harness, hanging, ratio=1.0)
    traced.tracing._tracer.start_span("swap").end()
    closing = threading.Thread(target=traced.tracing.close, args=(0.01,), daemon=True)
    closing.start()
    closing.join(20)
    try:
        assert not closing.is_alive()
        assert harness.metric("trace_spans_total", result="sent") == 0
    finally:
        hanging.let.set()
    for thread in threading.enumerate():
        if thread.name == "tracing-end":
            thread.join(20)
    assert harness.metric("trace_spans_total", result="sent") == 1


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, ExportTraceServiceRequest]]]]:
    """An OTLP collector on loopback that keeps what it is sent."""
    received: list[tuple[str, ExportTraceServiceRequest]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its parent's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()
            thread.join()


def test_a_collector_receives_otlp_over_http(harness: Harness) -> None:
    commit_version(harness.store, PIPELINE, learned_state())
    harness.follower.look()
    with collector() as (url, received):
        settings = ServingSettings(otlp_endpoint=url, trace_ratio=1.0)
        tracing = open_tracing(settings, PIPELINE.name, harness.metrics)
        assert tracing is not None
        with serving(app_of(harness, tracing)) as client:
            client.post("/predict", json={"instances": ROWS[:1]})
        served = harness.follower.served
        assert served is not None
        tracing.swapped(served, 1.5)
        tracing.close()
    assert {path for path, _ in received} == {"/v1/traces"}
    resources = [resource for _, request in received for resource in request.resource_spans]
    spans = {span.name: span for resource in resources for scope in resource.scope_spans for span in scope.spans}
    assert set(spans) == {"predict", "queue", "inference", "swap"}
    assert spans["queue"].parent_span_id == spans["inference"].parent_span_id == spans["predict"].span_id
    assert spans["swap"].end_time_unix_nano - spans["swap"].start_time_unix_nano == 1_500_000_000
    told = {one.key: one.value.string_value for one in resources[0].resource.attributes}
    assert (told["service.name"], told["stream_trainer.pipeline"]) == ("stream-trainer-serving", PIPELINE.name)
    assert harness.metric("trace_spans_total", result="sent") == 4


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("https://c/tenant/v1/traces", "https://c/tenant/v1/traces"),
    ],
)
def test_an_endpoint_without_a_path_gets_the_usual_one(endpoint: str, expected: str) -> None:
    made = exporter(endpoint)
    assert getattr(made, "_endpoint") == expected  # noqa: B009 - not part of its public face
    made.shutdown()


def test_without_an_endpoint_nothing_of_it_is_imported(harness: Harness) -> None:
    assert open_tracing(ServingSettings(), PIPELINE.name, harness.metrics) is None
    code = "import sys, serving.server, serving.telemetry; print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
