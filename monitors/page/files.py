"""The files of the page: its own, and plotly.js out of the plotly wheel, so nothing is fetched from elsewhere.

Names of scripts and styles hold a digest, so browsers keep them for good and still get a new one at once.
"""

import gzip
import hashlib
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

_OWN = {
    "page.css": "text/css",
    "plotly.css": "text/css",
    "theme.js": "text/javascript",
    "page.js": "text/javascript",
    "asking.js": "text/javascript",
    "alerts.js": "text/javascript",
    "heat.js": "text/javascript",
    "cell.js": "text/javascript",
    "plots.js": "text/javascript",
    "words.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_PLOTLY = "plotly.js"
_KEPT = {"cache-control": "public, max-age=31536000, immutable"}
_ASKED = {"cache-control": "no-cache"}


def add_files(app: Starlette) -> None:
    """Add `/` and `/static/REVISION/NAME`; the revision is of all files together, so modules find their neighbours."""
    contents = _contents()
    revision = hashlib.sha256(b"".join(contents[name] for name in sorted(contents))).hexdigest()[:16]
    index = files("monitors.page").joinpath("index.html").read_bytes().replace(b"REVISION", revision.encode())
    app.add_route("/", _answer(index, "text/html", _ASKED), methods=["GET"])
    for name, content in contents.items():
        kind = _OWN.get(name, "text/javascript")
        app.add_route(f"/static/{revision}/{name}", _answer(content, kind, _KEPT), methods=["GET"])


@cache
def _contents() -> dict[str, bytes]:
    own = {name: files("monitors.page").joinpath(name).read_bytes() for name in _OWN}
    return {**own, _PLOTLY: files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()}


def _answer(content: bytes, kind: str, headers: dict[str, str]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        if "gzip" in request.headers.get("accept-encoding", ""):
            zipped = {**headers, "content-encoding": "gzip", "vary": "accept-encoding"}
            return Response(_zipped(content), media_type=kind, headers=zipped)
        return Response(content, media_type=kind, headers={**headers, "vary": "accept-encoding"})

    return answer


@cache
def _zipped(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=6, mtime=0)
