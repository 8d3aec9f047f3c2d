"""The outermost layer: who may ask, and what every answer says to the browser.

The page has no keys. On loopback only requests that name this machine are answered (DNS rebinding), and none that come
from a page of elsewhere; wherever it is bound, it only reads.
"""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitors.page.problems import problem
from stream_trainer.near import is_near, is_near_page

# plotly.js 2.35 brings the style of a kind of map that is not used here, empty first, then filled: named, so that the
# browser's console says only what matters. Another plotly.js is stopped from it, and draws all the same.
_PLOTLY_STYLES = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-gG0b4ixT/IQUp7JJLbyKcpYcYDjq2Wp8NGv3f+aasqo='"
)
POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {_PLOTLY_STYLES}; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Lets through what may pass. `near_only`: the port is bound to loopback."""

    def __init__(self, app: ASGIApp, *, near_only: bool) -> None:
        self.app = app
        self._near_only = near_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        app = self._refusal(scope) or self.app
        await app(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        if scope["method"] not in ("GET", "HEAD"):
            return problem(405, "method_not_allowed", "this page only reads: use GET", {"allow": "GET, HEAD"})
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        origins = [value for name, value in scope["headers"] if name == b"origin"]
        if self._near_only and not (len(hosts) == 1 and is_near(hosts[0])):
            return problem(421, "misdirected", "only a loopback name or address is answered")
        if self._near_only and not all(is_near_page(origin) for origin in origins):
            return problem(403, "foreign_origin", "only pages of this machine are answered")
        return None
