"""Something that is called every few seconds, whether or not there is data, from a thread of its own."""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

_log = logging.getLogger(__name__)


class Ticker:
    """Calls `call` at once and then every `seconds`, until it is closed. What it raises is logged; the next call comes.

    Args:
        call: what to do; it runs in this thread only, never twice at a time. It guards what it shares with others.
        seconds: between the end of a call and the next one.
        name: of the thread.
    """

    def __init__(self, call: Callable[[], object], *, seconds: float, name: str = "presence") -> None:
        self._call = call
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Returns when the call in hand has ended; there is none after it. A further call does nothing."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._call()
            except Exception:  # noqa: BLE001 - the next call comes, whatever this one met
                _log.exception("the look at the clock failed")
            self._stop.wait(self._seconds)
