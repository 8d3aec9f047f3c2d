"""One alert to an HTTP endpoint: signed, and counted. When it is tried again is the `forwarding`'s.

An alert may arrive twice, then under the same delivery id.
"""

import hashlib
import hmac
import logging
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
    """Posts alerts, and counts what became of each.

    Args:
        send: sends a body under a delivery id, or raises Forbidden or Failed.
        count: told what became of an alert, once that is known.
    """

    def __init__(self, send: Send, count: Count) -> None:
        self._send = send
        self._count = count

    def post(self, body: bytes, *, last: bool = False) -> Outcome | None:
        """Try once. None: a later try may help, unless this was the `last` one; otherwise it is counted.

        A name may lead to a forbidden address for a while, so what is refused is tried again too.
        """
        outcome, again = self._try(delivery(body))
        if again and not last:
            return None
        self._count(outcome)
        return outcome

    def _try(self, taken: Delivery) -> tuple[Outcome, bool]:
        try:
            self._send(*taken)
        except Forbidden as error:
            _log.error("an alert was not posted: %s", error)
            return "refused", True
        except Failed as error:
            _log.warning("an alert was not posted: %s", error)
            return "failed", error.again
        except Exception:  # noqa: BLE001 - the next alert is posted, whatever this one does
            _log.exception("an alert could not be posted")
            return "failed", True
        return "delivered", False


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
