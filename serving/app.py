"""`create_app`: pure wiring. Everything that lives longer than a request is passed in, and owned by the caller."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import openapi
from serving.answering import Answering
from serving.answers import Answers
from serving.clock import Clock, utc_now
from serving.feedback import Feedback, LabelSink
from serving.follower import Follower
from serving.lineage import LineageEndpoint
from serving.metrics import CONTENT_TYPE, Metrics
from serving.oip.document import extend
from serving.oip.routes import INFER, routes
from serving.page.routes import add_page
from serving.page.state import PageState, Process
from serving.predict import Predictor
from serving.prediction_log import PredictionSink
from serving.problems import answer_http_exception
from serving.trial_status import Challenger
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import ServingSettings, Settings
from stream_trainer.store import ModelStore

if TYPE_CHECKING:
    from serving.tracing import Tracing


class Service(FastAPI):
    """FastAPI, with a shorter way to the routes that are asked most: no middleware and no search for the route."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._direct: dict[tuple[str, str], ASGIApp] = {}

    def serve_directly(self, path: str, method: str, app: ASGIApp) -> None:
        """A route that is a plain ASGI application and answers its own failures."""
        self.router.routes.append(Route(path, app, methods=[method]))
        self.shorten(path, method, app)

    def shorten(self, path: str, method: str, app: ASGIApp, **params: str) -> None:
        """One path of a route that is there already; `params` as the route would have found them in the path."""

        async def found(scope: Scope, receive: Receive, send: Send) -> None:
            scope["path_params"] = params
            await app(scope, receive, send)

        self._direct[method, path] = found if params else app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `FastAPI.__call__`."""
        app = self._direct.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        await (app(scope, receive, send) if app is not None else super().__call__(scope, receive, send))


def create_app(
    pipeline: Pipeline,
    settings: Settings,
    *,
    log: PredictionSink,
    follower: Follower,
    metrics: Metrics,
    store: ModelStore,
    clock: Clock = utc_now,
    challenger: Callable[[], Challenger | None] = lambda: None,
    render: Callable[[], Awaitable[bytes]] | None = None,
    address: str | None = None,
    tracing: "Tracing | None" = None,
    labels: LabelSink | None = None,
    worker: Process | None = None,
) -> FastAPI:
    """The service of one pipeline.

    Args:
        pipeline: what is served.
        settings: limits, and the profile: `production` hides the OpenAPI document and its pages.
        log: keeps what was answered.
        follower: holds the model that answers; started and stopped by the caller.
        metrics: shared with the follower and the log.
        store: where the manifests are that `/lineage` tells of.
        clock: the present instant.
        challenger: the version that shadows or answers a share, if there is one.
        render: the text exposition; None tells of `metrics` alone.
        address: `module:attribute` of the pipeline, for commands that the page shows.
        tracing: makes a span of each request; closed by the caller.
        labels: where `/feedback` writes; without one, or without a `Join`, there is no such route.
        worker: which of several processes this is, for the page to say.
    """
    app = _described(pipeline, settings)
    answering = Answering(
        pipeline,
        settings.serving,
        log=log,
        follower=follower,
        metrics=metrics,
        clock=clock,
        challenger=challenger,
        tracing=tracing,
    )
    app.state.answering = answering
    answers = answering if tracing is None else tracing.answers(answering)
    _add_answers(app, pipeline, settings.serving, answers, metrics, clock, tracing)
    _add_feedback(app, pipeline, settings.serving, labels, metrics)
    app.add_route("/lineage/{version}", LineageEndpoint(store).endpoint, methods=["GET"])
    _add_watching(app, pipeline.name, settings.serving, follower, clock, render or _rendering(metrics))
    page = PageState(pipeline.name, follower, metrics, clock, worker=worker)
    add_page(app, pipeline, settings.serving, page, follower=follower, store=store, address=address)
    app.add_exception_handler(HTTPException, answer_http_exception)
    return app


def _described(pipeline: Pipeline, settings: Settings) -> Service:
    """An application without routes but those of its own description."""
    hidden = settings.serving.profile == "production"
    app = Service(
        title=pipeline.name,
        openapi_url=None if hidden else "/openapi.json",
        docs_url=None if hidden else "/docs",
        redoc_url=None,
    )
    described = extend(openapi.document(pipeline, settings.serving.max_rows), pipeline, settings.serving.max_rows)
    app.openapi = lambda: described  # type: ignore[method-assign]
    return app


def _add_answers(
    app: Service,
    pipeline: Pipeline,
    settings: ServingSettings,
    answers: Answers,
    metrics: Metrics,
    clock: Clock,
    tracing: "Tracing | None",
) -> None:
    """Predictions, by both protocols."""
    predictor = Predictor(pipeline, settings, answering=answers, metrics=metrics, clock=clock)
    app.serve_directly("/predict", "POST", predictor if tracing is None else tracing.requests(predictor, "predict"))
    inference = routes(pipeline, settings, answers, clock, metrics)
    inference = inference if tracing is None else tracing.routes(inference)
    app.router.routes.extend(inference)
    name = pipeline.name
    app.shorten(INFER.format(name=name), "POST", next(r.app for r in inference if r.path == INFER), name=name)


def _add_feedback(
    app: Service, pipeline: Pipeline, settings: ServingSettings, labels: LabelSink | None, metrics: Metrics
) -> None:
    if labels is not None and pipeline.join is not None:
        app.serve_directly("/feedback", "POST", Feedback(pipeline, settings, labels, metrics))


def _add_watching(
    app: FastAPI,
    name: str,
    settings: ServingSettings,
    follower: Follower,
    clock: Clock,
    render: Callable[[], Awaitable[bytes]],
) -> None:
    """Health, and what Prometheus reads."""

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def exposition(_: Request) -> Response:
        return Response(await render(), headers={"content-type": CONTENT_TYPE})

    app.add_route("/health/live", live, methods=["GET"])
    app.add_route("/health/ready", _readiness(name, settings, follower, clock), methods=["GET"])
    app.add_route("/metrics", exposition, methods=["GET"])


def _rendering(metrics: Metrics) -> Callable[[], Awaitable[bytes]]:
    async def render() -> bytes:
        return metrics.render()

    return render


def _readiness(
    name: str, settings: ServingSettings, follower: Follower, clock: Clock
) -> Callable[[Request], Awaitable[Response]]:
    most = settings.max_staleness_seconds

    async def ready(_: Request) -> Response:
        served = follower.served
        staleness = None if served is None else served.staleness(clock())
        body = {"model_version": None if served is None else served.number, "staleness_seconds": staleness}
        if staleness is None or (most is not None and staleness > most):
            reason = follower.reason if staleness is None else "too_stale"
            return JSONResponse({"status": "not_ready", "reason": reason, **body}, status_code=503)
        return JSONResponse({"status": "ready", "model_name": name, **body})

    return ready
