"""Who asks: keys that are looked up by their id and compared by their digest, as the file of keys has them now.

The file is looked at by a thread of its own about once a second, never by a request. A file that becomes unusable leaves
the last good keys in force and is counted. A whole check costs about two microseconds, so none is remembered: there is
no cache that could outlive a revocation.
"""

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path

from serving.metrics import Metrics
from serving.rate_limit import Bucket
from stream_trainer.api_keys import ID_BYTES, PREFIX, SCOPES, SECRET_BYTES, Key, digest, read_keys
from stream_trainer.errors import UsageError

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
_ID = slice(len(PREFIX) + 1, len(PREFIX) + 1 + 2 * ID_BYTES)
_LENGTH = len(PREFIX) + 2 + 2 * (ID_BYTES + SECRET_BYTES)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the id and name of a key, and what it may do."""

    id: str
    name: str
    scopes: frozenset[str]


NOBODY = Caller("", "nobody", frozenset())
ANYBODY = Caller("", "anybody", frozenset(SCOPES))  # without keys, on loopback


@dataclass(frozen=True, slots=True)
class Known:
    """A key as requests meet it; `expires` is in seconds of the epoch."""

    caller: Caller
    digest: bytes
    expires: float
    bucket: Bucket


class KeyRing:
    """The keys in force.

    Args:
        path: the file of keys.
        metrics: counts what could not be read.
        rate: requests a second of a key that names no rate.
        burst: requests at once of a key that names no burst.
        now: seconds of the epoch.

    Raises:
        UsageError: the file cannot be used; nothing is in force yet that could stay.
    """

    def __init__(
        self, path: Path, metrics: Metrics, *, rate: float, burst: int, now: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._metrics = metrics
        self._limits = rate, burst
        self._now = now
        self._seen = _stamp(path)
        self._unknown = Known(NOBODY, secrets.token_bytes(32), 0.0, Bucket(1, 1))
        self._known: Mapping[bytes, Known] = {}
        self._known = self._made_of(read_keys(path))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="keys", daemon=True)

    def verify(self, text: bytes) -> Known | None:
        """Whose key this is; None for everything that is not a key in force.

        How long it takes does not tell which ids exist, nor how much of a key is right.
        """
        if len(text) != _LENGTH:
            return None
        known = self._known.get(text[_ID], self._unknown)
        if compare_digest(digest(text), known.digest) and self._now() < known.expires:
            return known
        return None

    def start(self) -> None:
        """Begin to watch the file."""
        self._thread.start()

    def stop(self) -> None:
        """End that; the keys stay in force."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def look(self) -> None:
        """Take over what the file says now, if it changed."""
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            keys = read_keys(self._path)
        except UsageError as error:
            self._metrics.keys_refused.inc()
            logger.error("the %d keys known so far stay in force: %s", len(self._known), error)  # noqa: TRY400
            return
        self._known = self._made_of(keys)
        logger.info("%d API keys are in force", len(keys))

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:
                self._metrics.keys_refused.inc()
                logger.exception("the file of keys could not be looked at")

    def _made_of(self, keys: tuple[Key, ...]) -> dict[bytes, Known]:
        return {key.id.encode(): self._known_of(key) for key in keys}

    def _known_of(self, key: Key) -> Known:
        rate, burst = self._limits
        bucket = Bucket(key.rate or rate, key.burst or burst)
        before = self._known.get(key.id.encode())
        if before is not None and before.bucket.shape == bucket.shape:
            bucket = before.bucket  # a change of the file gives nobody a new burst
        expires = float("inf") if key.expires is None else key.expires.timestamp()
        caller = Caller(key.id, key.name, frozenset(key.scopes))
        return Known(caller, bytes.fromhex(key.sha256), expires, bucket)


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes with the file; its mode too, so that `chmod` is noticed."""
    try:
        found = os.stat(path)  # noqa: PTH116 - one call
    except OSError as error:
        return (error.errno or 0,)
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode, found.st_uid
