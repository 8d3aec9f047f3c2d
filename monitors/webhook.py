"""One alert to an HTTP endpoint: signed, tried a few times with growing pauses, and counted.

What is refused or fails for good is given up; the alerts topic stays the record. An alert may arrive twice, then under
the same delivery id.
"""

import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from monitors import outgoing
from monitors.outgoing import Failed, Forbidden, Target
from stream_trainer.errors import UsageError
from stream_trainer.settings import MonitorSettings

Outcome = Literal["delivered", "failed", "refused"]
Send = Callable[[bytes, str], object]
Count = Callable[[Outcome], None]

PAUSES = (1.0, 4.0, 15.0, 60.0)
_log = logging.getLogger(__name__)


class Delivery(NamedTuple):
    """One alert as it is sent; the same alert always has the same id."""

    body: bytes
    id: str


def delivery(body: bytes) -> Delivery:
    """The value of a record of `P.alerts` as it stands there, and its id."""
    return Delivery(body, hashlib.sha256(body).hexdigest()[:32])


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
    """Posts one alert after the other, each a few times.

    Args:
        send: sends a body under a delivery id, or raises Forbidden or Failed.
        count: told what became of each alert.
        pauses: seconds before the second try, the third, and so on.
    """

    def __init__(self, send: Send, count: Count, *, pauses: Sequence[float] = PAUSES) -> None:
        self._send = send
        self._count = count
        self._pauses = tuple(pauses)

    def post(self, body: bytes, stop: threading.Event) -> bool:
        """Post one alert and count what became of it; False when `stop` was set while it waited for another try."""
        try:
            outcome = self._deliver(delivery(body), stop)
        except Exception:  # noqa: BLE001 - the next alert is posted, whatever this one does
            _log.exception("an alert could not be posted")
            outcome = "failed"
        if outcome is not None:
            self._count(outcome)
        return outcome is not None

    def _deliver(self, taken: Delivery, stop: threading.Event) -> Outcome | None:
        for pause in (*self._pauses, None):
            try:
                self._send(*taken)
            except Forbidden as error:
                _log.error("an alert was not posted: %s", error)
                return "refused"
            except Failed as error:
                if not error.again or pause is None:
                    _log.warning("an alert was not posted: %s", error)
                    return "failed"
                if stop.wait(pause):
                    return None
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
