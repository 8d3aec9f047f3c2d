"""Alerts to an HTTP endpoint, beside the alerts topic, which stays the record: a webhook that fails disturbs nothing.

A bounded queue and one thread. Each alert is tried a few times with growing pauses, in order; what does not fit, is
refused or fails for good is counted. An alert may arrive twice, then under the same delivery id.
"""

import hashlib
import hmac
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

import msgspec

from monitors import outgoing
from monitors.alerts import Alert
from monitors.outgoing import Failed, Forbidden, Target
from stream_trainer.errors import UsageError
from stream_trainer.settings import MonitorSettings

Outcome = Literal["delivered", "failed", "refused", "dropped"]
Send = Callable[[bytes, str], object]
Count = Callable[[Outcome], None]

CAPACITY = 1_000
PAUSES = (1.0, 4.0, 15.0, 60.0)
_log = logging.getLogger(__name__)


class Delivery(NamedTuple):
    """One alert as it is sent; the same alert always has the same id."""

    body: bytes
    id: str


def delivery(alert: Alert) -> Delivery:
    """The JSON of an alert as in `P.alerts`, and its id."""
    body = msgspec.json.encode(alert)
    event = f"{alert.pipeline}\n{alert.alert_key}\n{alert.status}\n{alert.updated_at.isoformat()}\n{alert.report or ''}"
    return Delivery(body, hashlib.sha256(event.encode()).hexdigest()[:32])


def signature(secret: bytes, at: int, body: bytes) -> str:
    """`t=<unix seconds>,v1=<HMAC-SHA256 of "<t>." and the body>`: a receiver refuses what is old or not signed so."""
    mac = hmac.new(secret, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={mac}"


class Endpoint:
    """Sends one delivery to one place.

    Args:
        target: where to.
        allow: see `outgoing.choose`.
        secret: signs the body; None: no signature.
        clock: seconds since the epoch, for the signature.
        post: `outgoing.post`.
    """

    def __init__(
        self,
        target: Target,
        *,
        allow: Sequence[str] = (),
        secret: bytes | None = None,
        clock: Callable[[], float] = time.time,
        post: Callable[..., int] = outgoing.post,
    ) -> None:
        self.target = target
        self._allow = tuple(allow)
        self._secret = secret
        self._clock = clock
        self._post = post

    def __call__(self, body: bytes, delivery_id: str) -> None:
        """Send it; raises what `outgoing.post` raises."""
        headers = {
            "content-type": "application/json",
            "user-agent": "stream-trainer",
            "x-stream-trainer-delivery": delivery_id,
        }
        if self._secret is not None:
            headers["x-stream-trainer-signature"] = signature(self._secret, int(self._clock()), body)
        self._post(self.target, body, headers, allow=self._allow)


class Webhook:
    """Takes alerts and never makes its caller wait or fail.

    Args:
        send: sends a body under a delivery id, or raises Forbidden or Failed.
        count: told what became of each alert; may be called from the thread of this object.
        capacity: so many alerts may wait.
        pauses: seconds before the second try, the third, and so on.
    """

    def __init__(self, send: Send, count: Count, *, capacity: int = CAPACITY, pauses: Sequence[float] = PAUSES) -> None:
        self._send = send
        self._count = count
        self._pauses = tuple(pauses)
        self._waiting: queue.Queue[Delivery | None] = queue.Queue(capacity)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def post(self, alerts: Sequence[Alert]) -> None:
        """Take alerts to be sent; called by one thread."""
        if self._thread is None and alerts:
            self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)
            self._thread.start()
        for alert in alerts:
            try:
                self._waiting.put_nowait(delivery(alert))
            except queue.Full:
                self._count("dropped")
                _log.warning("alert %s was not posted: %d others wait", alert.alert_key, self._waiting.maxsize)

    def close(self, seconds: float = 5.0) -> None:
        """Send what waits, once each and within the time; the rest is counted as dropped."""
        self._stop.set()
        with suppress(queue.Full):  # then the thread is awake, and looks at `_stop` after each
            self._waiting.put_nowait(None)
        if self._thread is not None:
            self._thread.join(seconds)
        while True:
            try:
                left = self._waiting.get_nowait()
            except queue.Empty:
                return
            if left is not None:
                self._count("dropped")

    def _run(self) -> None:
        while True:
            try:
                taken = self._waiting.get(timeout=None if not self._stop.is_set() else 0)
            except queue.Empty:
                return
            if taken is None:
                return
            try:
                outcome = self._deliver(taken)
            except Exception:  # noqa: BLE001 - this thread outlives whatever one alert does
                _log.exception("an alert could not be posted")
                outcome = "failed"
            self._count(outcome)

    def _deliver(self, taken: Delivery) -> Outcome:
        for pause in (*self._pauses, None):
            try:
                self._send(*taken)
            except Forbidden as error:
                _log.error("an alert was not posted: %s", error)
                return "refused"
            except Failed as error:
                if not error.again or pause is None or self._stop.wait(pause):
                    _log.warning("an alert was not posted: %s", error)
                    return "failed"
            else:
                return "delivered"
        return "failed"


def webhook_of(settings: MonitorSettings, count: Count) -> Webhook | None:
    """The webhook that the settings ask for, None without one.

    Raises:
        UsageError: its URL is not one that may be called.
    """
    if settings.webhook_url is None:
        return None
    try:
        target = outgoing.parse(settings.webhook_url.get_secret_value())
    except Forbidden as error:
        raise UsageError(f"monitor.webhook_url: {error}") from error
    secret = settings.webhook_secret.get_secret_value().encode() if settings.webhook_secret else None
    return Webhook(Endpoint(target, allow=settings.webhook_allow, secret=secret), count)
