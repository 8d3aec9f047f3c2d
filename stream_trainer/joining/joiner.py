"""The joiner of one pipeline: connect, join until told to stop, begin again when the outside did not answer."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from stream_trainer.joining.commits import Plan
from stream_trainer.joining.recovery import Marker
from stream_trainer.restarting import until_done

logger = logging.getLogger(__name__)

_SAY_SECONDS = 10.0


def _nobody(_: Marker, __: Plan) -> None:
    """Hears nothing."""


class Joining(Protocol):
    """A running query."""

    def check(self) -> None:
        """Nothing while it runs."""

    def stop(self) -> None:
        """Let the batch in hand end, then stop."""


@dataclass(slots=True)
class Status:
    """What the joiner has done since it began, and what waits now."""

    batches: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    oldest_waiting: int | None = None

    def add(self, _: Marker, todo: Plan) -> None:
        """A batch that was written."""
        self.batches += 1
        for name, count in todo.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self.waiting = sum(todo.waiting.values())
        self.oldest_waiting = min(todo.waiting, default=None)

    def fields(self) -> Mapping[str, Any]:
        """For a log line."""
        return {
            "batches": self.batches,
            **self.counts,
            "waiting": self.waiting,
            "oldest_waiting_ms": self.oldest_waiting,
        }


@dataclass(slots=True, kw_only=True)
class Joiner:
    """`connect` starts a query, each attempt anew, and is told where to report batches; `wrote` hears of them too."""

    connect: Callable[[Callable[[Marker, Plan], None]], Joining]
    max_restarts: int
    stop: threading.Event = field(default_factory=threading.Event)
    status: Status = field(default_factory=Status)
    poll_seconds: float = 0.1
    wrote: Callable[[Marker, Plan], None] = _nobody

    def run(self) -> None:
        """Join until `stop` is set.

        Raises:
            Fatal: see `errors`; the exit code tells which.
        """
        until_done(
            self._attempt,
            position=lambda: self.status.batches,
            most=self.max_restarts,
            stop=self.stop,
            again="joining again from the checkpoint",
        )

    def _attempt(self) -> None:
        running = self.connect(self._add)
        try:
            self._watch(running)
        finally:
            running.stop()

    def _add(self, marker: Marker, todo: Plan) -> None:
        self.status.add(marker, todo)
        self.wrote(marker, todo)

    def _watch(self, running: Joining) -> None:
        said = time.monotonic()
        while not self.stop.wait(self.poll_seconds):
            running.check()
            if time.monotonic() - said > _SAY_SECONDS:
                said = time.monotonic()
                logger.info("joined: %s", self.status.fields())
