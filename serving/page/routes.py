"""The page's routes. Its files may do nothing but what a page of this origin needs: no inline code, no other host."""

from collections.abc import Awaitable, Callable
from importlib.resources import files

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from serving.follower import Follower
from serving.page.form import Examples, form
from serving.page.state import PageState
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import ServingSettings
from stream_trainer.store import ModelStore

STATIC = {
    "/": ("index.html", "text/html"),
    "/static/page.js": ("page.js", "text/javascript"),
    "/static/page.css": ("page.css", "text/css"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_PRIVATE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

Endpoint = Callable[[Request], Awaitable[Response]]


def add_page(
    app: Starlette,
    pipeline: Pipeline,
    settings: ServingSettings,
    state: PageState,
    *,
    follower: Follower,
    store: ModelStore,
    address: str | None = None,
) -> None:
    """Add `/` and everything below `/page/` to an application; `address` is the pipeline's, for commands to copy."""
    examples = Examples(pipeline.contract, store, follower)
    development = settings.profile == "development"

    async def answer_state(_: Request) -> Response:
        return Response(state.encoded(), media_type="application/json", headers=_PRIVATE)

    async def answer_contract(_: Request) -> Response:
        rows = await examples.rows() if development else []
        content = msgspec.json.encode(form(pipeline, address, rows))
        return Response(content, media_type="application/json", headers=_PRIVATE)

    for path, (name, media_type) in STATIC.items():
        app.add_route(path, _static(name, media_type), methods=["GET"])
    app.add_route("/page/state", answer_state, methods=["GET"])
    app.add_route("/page/contract", answer_contract, methods=["GET"])


def _static(name: str, media_type: str) -> Endpoint:
    content = files("serving.page").joinpath(name).read_bytes()

    async def answer(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return answer
