"""Answers requests with the version that serves: picks it, computes in shared batches, logs. See `answers.Answers`."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from torch import Tensor

from serving.answers import ANY, Outcome, Wish
from serving.batching import Batches, BatchLimits
from serving.clock import Clock
from serving.follower import Follower
from serving.metrics import Metrics
from serving.model import Served, as_served
from serving.prediction_ids import PredictionIds
from serving.prediction_log import PredictionSink
from serving.prediction_records import Answered, Role
from serving.problems import Problem
from serving.rows import Rows
from serving.shadow import Shadow, Shadowed
from serving.trial_status import Challenger
from stream_trainer.features import encode
from stream_trainer.learner import answer
from stream_trainer.pipeline import Pipeline
from stream_trainer.schema import feature_columns, field_names, key_text
from stream_trainer.settings import ServingSettings

if TYPE_CHECKING:
    from serving.tracing import Tracing

_SOON = {"retry-after": "1"}


class Answering:
    """Answers requests; holds no state but its dependencies and those who wait."""

    def __init__(
        self,
        pipeline: Pipeline,
        settings: ServingSettings,
        *,
        log: PredictionSink,
        follower: Follower,
        metrics: Metrics,
        clock: Clock,
        challenger: Callable[[], Challenger | None] = lambda: None,
        tracing: "Tracing | None" = None,
    ) -> None:
        self._log = log
        self._challenger = challenger
        self._key_at = field_names(pipeline.contract, "request").index(pipeline.contract.key)
        self._follower = follower
        self._metrics = metrics
        self._clock = clock
        self._wait_seconds = settings.min_version_wait_seconds
        self._ids = PredictionIds(clock)
        self._arrivals = Arrivals(settings.queue_requests)
        follower.on_swap(lambda *_: self._arrivals.tell())
        limits = BatchLimits(
            batch_rows=settings.batch_rows,
            queue_rows=settings.queue_rows,
            queue_requests=settings.queue_requests,
            seconds=settings.answer_seconds,
        )
        predict = predictor(pipeline)
        self._batches = Batches(predict if tracing is None else tracing.inference(predict), metrics, limits)
        self._outputs = self._batches.outputs if tracing is None else tracing.queue(self._batches.outputs)
        self._shadow = Shadow(predict, log, metrics, max_rows=settings.queue_rows)

    @property
    def busy(self) -> bool:
        """Whether whoever comes now will wait."""
        return self._batches.busy

    def close(self) -> None:
        """Give up what the challenger was still to shadow; count it."""
        self._shadow.close()

    def versions(self) -> list[Served]:
        """See `Answers.versions`."""
        loaded, challenger = self._follower.loaded(), self._challenger()
        if challenger is None or challenger.mode == "shadow":  # which never answers
            return loaded
        known = any(one.number == challenger.served.number for one in loaded)
        return loaded if known else [*loaded, challenger.served]

    async def answer(self, rows: Rows, requested_at: datetime, wish: Wish = ANY) -> Outcome:
        """See `Answers.answer`; without any version yet the request is logged, and its ids are in the problem."""
        ids = self._ids.take(len(rows))
        challenger = self._challenger()
        served, role = await self._answerer(challenger, rows, ids, wish)
        if served is None:
            raise self._no_version(ids, rows, requested_at)
        self._require_fresh(served, wish)
        outputs = await self._outputs(served, rows)
        staleness = self._require_fresh(served, wish)
        number = served.number
        self._log.record(
            Answered(ids=ids, requested_at=requested_at, rows=rows, outputs=outputs, model_version=number, role=role)
        )
        self._metrics.rows.inc(len(rows))
        if challenger is not None and challenger.mode == "shadow" and challenger.served.number != number:
            self._shadow.offer(Shadowed(served=challenger.served, ids=ids, rows=rows, requested_at=requested_at))
        return Outcome(served=served, ids=ids, outputs=outputs, staleness=staleness)

    async def _answerer(
        self, challenger: Challenger | None, rows: Rows, ids: Sequence[str], wish: Wish
    ) -> tuple[Served | None, Role]:
        """Who answers: the canary's keys do not wait for a champion that the canary is ahead of."""
        if challenger is not None and self._is_canary(challenger, rows, ids, wish):
            return challenger.served, "canary"
        served = self._follower.served if wish is ANY else await self._wished(wish)
        by_number = challenger is not None and challenger.mode == "canary" and wish.version == challenger.served.number
        return served, "canary" if by_number else "champion"

    def _is_canary(self, challenger: Challenger, rows: Rows, ids: Sequence[str], wish: Wish) -> bool:
        """Whether the challenger answers: a request has one answerer, found by the key of its first row, or its id."""
        if wish.version is not None or challenger.served.number < wish.min_version:
            return False
        if wish.max_staleness < challenger.served.staleness(self._clock()):
            return False
        key = key_text(rows.first(self._key_at))
        return challenger.answers(ids[0] if key is None else key)

    async def _wished(self, wish: Wish) -> Served | None:
        served = self._follower.served
        if wish.version is not None:
            served = next((one for one in self.versions() if one.number == wish.version), None)
            if served is None:
                raise Problem(404, "unknown_version", f"version {wish.version} is not loaded here")
            if served.number < wish.min_version:
                raise _not_reached(
                    wish, served, f"version {wish.version} is asked for, and one from {wish.min_version} on"
                )
        elif wish.min_version and (served is None or served.number < wish.min_version):
            served = await self._at_least(wish)
        return served

    def _require_fresh(self, served: Served, wish: Wish) -> float:
        staleness = served.staleness(self._clock())
        if staleness > wish.max_staleness:
            detail = f"version {served.number} is {staleness:.3f} s stale, at most {wish.max_staleness:g} s were asked"
            raise Problem(503, "too_stale", detail, headers=_SOON, model_version=served.number)
        return staleness

    async def _at_least(self, wish: Wish) -> Served:
        def there() -> Served | None:
            served = self._follower.served
            return served if served is not None and served.number >= wish.min_version else None

        served = await self._arrivals.until(there, self._wait_seconds)
        if served is None:
            now = self._follower.served
            number = None if now is None else now.number
            detail = f"version {wish.min_version} did not serve within {self._wait_seconds:g} s; it is {number} now"
            raise _not_reached(wish, now, detail)
        return served

    def _no_version(self, ids: Sequence[str], rows: Rows, requested_at: datetime) -> Problem:
        self._log.record(Answered(ids=ids, requested_at=requested_at, rows=rows, outputs=None, model_version=None))
        detail = "nothing has been learned yet; the request was logged, ask again soon"
        return Problem(503, "no_version", detail, headers=_SOON, prediction_ids=ids)


def _not_reached(wish: Wish, served: Served | None, detail: str) -> Problem:
    number = None if served is None else served.number
    status = 409 if wish.conflict else 503
    return Problem(status, "version_not_reached", detail, headers=_SOON, model_version=number)


def predictor(pipeline: Pipeline) -> Callable[[Served, Rows], Tensor]:
    """Parsed rows to outputs, by the same columns and the same features as training."""
    contract, learner = pipeline.contract, pipeline.learner

    def predict(served: Served, rows: Rows) -> Tensor:
        outputs = answer(learner, served.state, encode(contract, feature_columns(contract, rows.columns)))
        return as_served(served, outputs)

    return predict


class Arrivals:
    """Lets requests wait until another version serves; told from any thread."""

    def __init__(self, most: int = 2_000) -> None:
        self._most = most
        self._waiting = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()

    def tell(self) -> None:
        """Something has changed."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has ended, and with it everyone who waited
                loop.call_soon_threadsafe(self._wake)

    async def until(self, found: Callable[[], Served | None], seconds: float) -> Served | None:
        """What `found` gives, asked at once and at every change; None after so many seconds without.

        Raises:
            Problem: 503, too many wait already.
        """
        if self._waiting >= self._most:
            raise Problem(503, "queue_full", "too many requests wait for a version", headers=_SOON)
        self._loop = asyncio.get_running_loop()  # before the first look: a change after it is told
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                while (served := found()) is None:
                    await self._changed.wait()
        except TimeoutError:
            return found()
        finally:
            self._waiting -= 1
        return served

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
