"""Beginning again after a failure that may pass: a bounded number of times in a row, after pauses that grow."""

import logging
import threading
from collections.abc import Callable

from stream_trainer.errors import RetriesExhausted, Retryable

logger = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


def until_done(
    attempt: Callable[[], None],
    *,
    position: Callable[[], int | None],
    most: int,
    stop: threading.Event,
    again: str,
) -> None:
    """Attempt until it returns, or until `stop` is set while it pauses.

    Args:
        attempt: raises `Retryable` for what may pass; whatever else it raises ends this too.
        position: how far it is; one that got further than it began starts the count of failures anew. None: not known yet.
        most: failures in a row that are borne.
        stop: ends a pause.
        again: what the log says is done after it.

    Raises:
        RetriesExhausted: too many failures in a row.
    """
    failures = 0
    while True:
        begun = position()
        try:
            attempt()
        except Retryable as error:
            progressed = begun is not None and (position() or 0) > begun
            failures = 1 if progressed else failures + 1
            if failures > most:
                raise RetriesExhausted(f"gave up after {failures} failures in a row; the last one: {error}") from error
            pause = min(_FIRST_PAUSE * 2**failures, _LONGEST_PAUSE)
            logger.warning("%s in %.1f s: %s", again, pause, error)
            if stop.wait(pause):
                return
        else:
            return
