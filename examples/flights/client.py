"""Asks the service for predictions: over HTTP only, with timeouts, trying again while it is being restarted."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

RETRY_SECONDS = 10.0
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
TIMEOUT = httpx.Timeout(5.0, connect=2.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said of one instance; without a version yet, only the id under which it was logged."""

    prediction_id: str
    model_version: int | None = None
    output: Any = None


class PredictionFailed(Exception):
    """The service gave no usable answer in time."""


class _TryAgain(Exception):
    """Worth another request."""


class PredictClient:
    """`predict` answers a batch or raises. A request lost on its way back may be logged twice by the service.

    Trying again ends after `RETRY_SECONDS`, or at once when `stopping` says so.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._http = http
        self._url = url
        self._clock = clock
        self._sleep = sleep
        self._stopping = stopping

    async def predict(self, instances: Sequence[dict[str, Any]]) -> list[Answer]:
        """One answer an instance, in order.

        Raises:
            PredictionFailed: refused, or no usable answer for `RETRY_SECONDS`.
        """
        body = msgspec.json.encode({"instances": instances})
        give_up_at = self._clock() + RETRY_SECONDS
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._ask(body, len(instances))
            except _TryAgain as error:
                if self._stopping() or self._clock() + pause > give_up_at:
                    raise PredictionFailed(str(error)) from error
            await self._sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _ask(self, body: bytes, rows: int) -> list[Answer]:
        try:
            response = await self._http.post(self._url, content=body, headers={"content-type": "application/json"})
        except httpx.RequestError as error:
            raise _TryAgain(f"{self._url}: {type(error).__name__} {error}") from error
        try:
            return _answers(response.status_code, response.content, rows)
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            said = f"{self._url} answered {response.status_code}: {response.text[:200]!r}"
            if response.status_code >= 500 or response.status_code == 429:
                raise _TryAgain(said) from error
            raise PredictionFailed(said) from error


def _answers(status: int, content: bytes, rows: int) -> list[Answer]:
    """The answers in a 200, or the ids in the 503 of a service without a version; anything else is a KeyError."""
    if status not in (200, 503):
        raise KeyError(status)
    body = msgspec.json.decode(content)
    if status == 503:
        answers = [Answer(str(prediction_id)) for prediction_id in body["prediction_ids"]]
    else:
        version = int(body["model_version"])
        answers = [Answer(str(p["prediction_id"]), version, p["output"]) for p in body["predictions"]]
    if len(answers) != rows:
        raise KeyError(f"{len(answers)} answers to {rows} instances")
    return answers
