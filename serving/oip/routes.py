"""The routes under `/v2`: names and versions, health, metadata and inference.

A name is compared with the pipeline's and a version with those that can be asked for; neither ever reaches a path.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from serving import consistency, openapi
from serving.answers import Answers
from serving.body import read_body, refuse_encoded
from serving.clock import Clock
from serving.counting import Counting
from serving.disconnect import unless_gone
from serving.metrics import Metrics
from serving.oip.metadata import model_metadata
from serving.oip.request import HEADER_LENGTH, RequestParser
from serving.oip.response import answer, refusal
from serving.problems import Problem
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import ServingSettings

logger = logging.getLogger(__name__)

INLINE_BYTES = 32 * 1024
EXTENSIONS = ["binary_tensor_data"]

_VERSION = re.compile(r"[1-9][0-9]{0,18}")
_Handler = Callable[[Request], Awaitable[Response]]


def routes(
    pipeline: Pipeline, settings: ServingSettings, answers: Answers, clock: Clock, metrics: Metrics
) -> list[Route]:
    """The protocol's routes for one pipeline.

    Args:
        pipeline: what is served.
        settings: limits of bodies and rows.
        answers: predicts, and knows the versions.
        clock: the present instant.
        metrics: counts inferences beside those of `/predict`.
    """
    served = OpenInference(pipeline, settings, answers, clock, metrics)
    model = "/v2/models/{name}"
    version = f"{model}/versions/{{version}}"
    return [
        Route("/v2", _Endpoint(served.server, "GET")),
        Route("/v2/health/live", _Endpoint(served.live, "GET")),
        Route("/v2/health/ready", _Endpoint(served.ready, "GET")),
        *(Route(path, _Endpoint(served.model, "GET")) for path in (model, version)),
        *(Route(f"{path}/ready", _Endpoint(served.model_ready, "GET")) for path in (model, version)),
        *(Route(f"{path}/infer", _Endpoint(served.infer, "POST")) for path in (model, version)),
        Route("/v2/{rest:path}", _Endpoint(_nothing, None)),
    ]


class _Endpoint:
    """A handler as an ASGI application: every answer, an error's too, has the protocol's form."""

    def __init__(self, handler: _Handler, method: str | None) -> None:
        self._handler = handler
        self._methods = None if method is None else {method} | ({"HEAD"} if method == "GET" else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (await self._respond(Request(scope, receive)))(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        try:
            if self._methods is not None and request.method not in self._methods:
                allowed = {"allow": ", ".join(sorted(self._methods))}
                raise Problem(405, "method_not_allowed", "this path has another method", headers=allowed)
            return await self._handler(request)
        except Problem as problem:
            return refusal(problem)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            logger.exception("a request failed")
            return refusal(Problem(500, "internal_error", "the request failed; the service's log says why"))


class OpenInference:
    """The handlers; they hold no state but their dependencies."""

    def __init__(
        self, pipeline: Pipeline, settings: ServingSettings, answers: Answers, clock: Clock, metrics: Metrics
    ) -> None:
        self._pipeline = pipeline
        self._max_body_bytes = settings.max_body_bytes
        self._answers = answers
        self._clock = clock
        self._metrics = metrics
        self._parser = RequestParser(pipeline.contract, settings.max_rows)

    async def server(self, _: Request) -> Response:
        """Server metadata."""
        return JSONResponse({"name": "stream-trainer", "version": openapi.release(), "extensions": EXTENSIONS})

    async def live(self, _: Request) -> Response:
        """The process answers, therefore it lives."""
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        """Ready with the first version. The protocol's text calls the field `live`, so that one is there as well."""
        ready = bool(self._answers.versions())
        return JSONResponse({"live": True, "ready": ready}, 200 if ready else 503)

    async def model(self, request: Request) -> Response:
        """Model metadata."""
        self._asked_version(request)
        return JSONResponse(model_metadata(self._pipeline, [served.number for served in self._answers.versions()]))

    async def model_ready(self, request: Request) -> Response:
        """A version that can be asked for is ready; without one the model is not."""
        self._asked_version(request)
        ready = bool(self._answers.versions())
        return JSONResponse({"name": self._pipeline.name, "ready": ready}, 200 if ready else 503)

    async def infer(self, request: Request) -> Response:
        """Inference, counted and timed."""
        with Counting(self._metrics):
            return await self._infer(request)

    async def _infer(self, request: Request) -> Response:
        version = self._asked_version(request)
        wish = replace(consistency.wish(request.headers), version=version)
        for encoding in request.headers.getlist("content-encoding"):
            refuse_encoded(encoding)
        body = await read_body(request, self._max_body_bytes)
        requested_at = self._clock()
        header_length = request.headers.get(HEADER_LENGTH)
        inline = len(body) <= INLINE_BYTES
        asked = (
            self._parser.parse(body, header_length)
            if inline
            else await asyncio.to_thread(self._parser.parse, body, header_length)
        )
        wanted = consistency.both(wish, asked.wish)
        answering = self._answers.answer(asked.rows, requested_at, wanted)
        waits = self._answers.busy or wanted.min_version > 0
        outcome = await (unless_gone(request.receive, answering) if waits else answering)
        if inline:
            return answer(self._pipeline.name, asked, outcome)
        return await asyncio.to_thread(answer, self._pipeline.name, asked, outcome)

    def _asked_version(self, request: Request) -> int | None:
        """The version in the path, which can be asked for, or None.

        Raises:
            Problem: 404, the path names another model or a version that cannot be asked for.
        """
        if request.path_params["name"] != self._pipeline.name:
            raise Problem(404, "unknown_model", "there is no model of this name")
        text = request.path_params.get("version")
        if text is None:
            return None
        known = {served.number for served in self._answers.versions()}
        if not _VERSION.fullmatch(text) or int(text) not in known:
            raise Problem(404, "unknown_version", "this version cannot be asked for; the model's metadata names those")
        return int(text)


async def _nothing(_: Request) -> Response:
    raise Problem(404, "not_found", "there is nothing at this path")
