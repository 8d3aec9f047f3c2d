"""HTTP/1.1 where a connection that asks nothing ends: uvicorn counts it among its few and waits for its first request for ever."""

import asyncio
from asyncio import TimerHandle

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle


class PageProtocol(H11Protocol):
    """One connection. It is looked at every so often; without an answer under way or a request since the last look it is closed."""

    look_seconds = 10.0
    _timer: TimerHandle | None = None
    _seen: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected: its first request has to come in time."""
        super().connection_made(transport)
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave no timer behind."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _look_later(self) -> None:
        self._timer = self.loop.call_later(self.look_seconds, self._look)

    def _look(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if not answering and self.cycle is self._seen:
            self.transport.close()
            return
        if not answering:
            self._seen = self.cycle
        self._look_later()
