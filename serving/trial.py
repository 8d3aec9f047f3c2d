"""The trial of a challenger: champion and challenger predict the same labelled rows, and a test decides between them.

The rows are those that neither has learned from, in an order that is a function of the log. So every replica comes to
the same verdict, up to the rounding of a prediction; entries are put if absent, so it takes effect once. A thread of
low priority: never more than `trial.rows_per_second`, and no request waits for it.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa

from serving.append_order import SETTLE_SECONDS, AppendOrder, begins
from serving.clock import Clock
from serving.examples_log import ExamplesLog, KafkaExamples
from serving.lone_threads import lone_thread
from serving.metrics import Metrics
from serving.model import Refused, Served, as_served, load
from serving.trial_status import Challenger, Pair, Status, show, status_of
from stream_trainer.announcing import announce
from stream_trainer.contest import Contest, Rules
from stream_trainer.errors import InputLost
from stream_trainer.evaluation.counts import fair
from stream_trainer.learning import to_batch
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import Settings, TrialSettings
from stream_trainer.store import ModelStore, Version, open_store
from stream_trainer.store.aliases import CHAMPION, Alias
from stream_trainer.store.challenges import CHALLENGER, Challenge

logger = logging.getLogger(__name__)

TRIAL = "trial"
_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
_ROWS_AT_ONCE = 50
_IDLE_SECONDS = 0.5

# Tells who follows `P.models` whom an alias names by which entry (None: nobody); why it could not, None when it could.
Announce = Callable[[str, Version | None, int], str | None]


@dataclass(slots=True)
class _Run:
    """A comparison under way; `order` None: nothing was read yet."""

    pair: Pair
    champion: Served
    challenger: Served
    contest: Contest
    order: AppendOrder | None = None
    topic_id: str = ""


class Trial:
    """Finds out who challenges, compares, decides. Only its own thread changes anything; anybody may read.

    `challenger` is what requests meet: None while nobody challenges, or that version must not be served. `status` is a
    value that is replaced as a whole.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        store: ModelStore,
        open_log: Callable[[], ExamplesLog],
        announce: Announce,
        metrics: Metrics,
        clock: Clock,
        settings: TrialSettings,
        *,
        poll_seconds: float,
        settle_seconds: float = SETTLE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.challenger: Challenger | None = None
        self.status = Status()
        self._pipeline = pipeline
        self._store = store
        self._open_log = open_log
        self._announce = announce
        self._metrics = metrics
        self._clock = clock
        self._settings = settings
        self._rules = Rules(
            alpha=settings.alpha,
            margin=settings.margin,
            max_rows=settings.max_rows,
            block_rows=settings.block_rows,
            least_reach=settings.least_reach,
        )
        self._poll_seconds = poll_seconds
        self._settle_seconds = settle_seconds
        self._monotonic = monotonic
        self._run: _Run | None = None
        self._log: ExamplesLog | None = None
        self._next_look = self._next_bounds = float("-inf")
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = lone_thread(self._loop, "trial")

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """End the thread; the challenger that requests meet stays."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def wake(self) -> None:
        """Look at the store at once: somebody said that the challenger or the champion is another one."""
        self._wake.set()

    def step(self) -> int:
        """Look at the store when it is time, and compare a few rows; how many.

        Raises:
            InputLost: rows are gone that were to be compared; the comparison begins anew.
            BrokerUnavailable, StoreUnavailable: the next step goes on.
            Corrupt, NoVersion: an entry, or what it names, cannot be read.
        """
        if self._monotonic() >= self._next_look:
            self.look()
        run = self._run
        if run is None or run.contest.verdict is not None:
            return 0
        rows = self._read(run)
        if rows is None:
            self._publish(status_of("running", run.pair, run.contest, unread=run.order.waiting if run.order else 0))
            return 0
        if self._compare(run, rows):
            self.look()  # on what the store says now, not on what it said at the last look
        return int(rows.num_rows)

    def look(self) -> None:
        """Ask the store who is champion and who challenges; begin, go on, decide or end."""
        self._next_look = self._monotonic() + self._poll_seconds
        number, challenge = self._store.challenges.newest()
        if challenge is None or challenge.version is None:
            self._rest(Status(entry=number, detail=challenge.reason if challenge is not None else ""))
            return
        champion_entry, alias = self._store.alias_entry(CHAMPION)
        if alias is None or alias.follows or alias.version is None:
            why = "there is no fixed champion: `models pin` or `models promote` one, or withdraw the challenger"
            named = Status(state="blocked", entry=number, challenger=challenge.version, detail=why)
            self._rest(named)
            return
        pair = Pair(champion_entry=champion_entry, alias=alias, entry=number, challenge=challenge)
        if alias.version == challenge.version:
            self._end_won(pair)
        elif self._run is None or not self._run.pair.is_same(pair):
            self._begin(pair)
        else:
            self._run.pair = pair
            self._decide(self._run)

    def _begin(self, pair: Pair) -> None:
        self._run = None
        try:
            champion, challenger = (
                load(self._store, self._pipeline, number or 0)
                for number in (pair.alias.version, pair.challenge.version)
            )
        except Refused as error:
            self.challenger = None
            self._publish(status_of("refused", pair, detail=str(error)))
            return
        contest = Contest.begin(self._pipeline.spec.task, self._rules)
        self._run = _Run(pair, champion, challenger, contest)
        self.challenger = Challenger(
            served=challenger, entry=pair.entry, mode=pair.challenge.mode, share=pair.challenge.share
        )
        self._publish(status_of("running", pair, contest))
        logger.info("version %s challenges version %s (%s)", challenger.number, champion.number, pair.challenge.mode)

    def _rest(self, status: Status) -> None:
        """Nobody is compared. What the last comparison found stays to be seen until there is another one."""
        self._run, self.challenger = None, None
        self._close_log()
        ended = self.status.state == "decided" and status.state == "idle"
        self._publish(replace(self.status, problem="") if ended else status)

    def _read(self, run: _Run) -> pa.Table | None:
        log = self._opened_log()
        try:
            if run.order is None or self._monotonic() >= self._next_bounds:
                self._extend(run, log)
            most = max(1, min(_ROWS_AT_ONCE, int(self._settings.rows_per_second)))
            order, topic_id = run.order, run.topic_id
            return None if order is None else order.take(most, lambda ranges: log.read(ranges, topic_id))
        except InputLost:
            self._begin_again(run)
            raise
        except Exception:
            self._close_log()
            raise

    def _extend(self, run: _Run, log: ExamplesLog) -> None:
        bounds = log.bounds()
        topic = self._pipeline.topics.examples
        if run.order is None:
            learned = [v.manifest for v in (run.champion, run.challenger)]
            positions = [(m.topic_ids.get(topic), m.next_offsets.get(topic, {})) for m in learned]
            run.topic_id = bounds.topic_id
            run.order = AppendOrder(topic, begins(positions, bounds.topic_id), settle_seconds=self._settle_seconds)
        elif run.topic_id != bounds.topic_id:
            raise InputLost(f"{topic} was re-created: the trial begins anew")
        run.order.extend(bounds)
        self._next_bounds = self._monotonic() + self._poll_seconds

    def _compare(self, run: _Run, rows: pa.Table) -> bool:
        """Whether that decided it. What is compared is what requests are answered, on rows that stand for what was asked."""
        predict, contract = self._pipeline.learner.predict, self._pipeline.contract
        try:
            batch = to_batch(self._pipeline, fair(contract.label.task, contract.label.name, rows))
            one, other = (
                as_served(served, predict(served.state, batch.features)) for served in (run.champion, run.challenger)
            )
            run.contest = run.contest.add(one, other, batch.labels)
        except Exception:
            self._begin_again(run)  # these rows are taken: going on without them would be another trial
            raise
        self._publish(status_of("running", run.pair, run.contest, unread=run.order.waiting if run.order else 0))
        return run.contest.verdict is not None

    def _begin_again(self, run: _Run) -> None:
        run.contest = Contest.begin(run.contest.task, self._rules)
        run.order = None
        self._close_log()

    def _decide(self, run: _Run) -> None:
        verdict, challenge = run.contest.verdict, run.pair.challenge
        if verdict is None:
            return
        if challenge.decide == "manual":
            self._say(run, "a person decides: `models promote` or `models withdraw`")
        elif verdict != "better":
            found = "worse" if verdict == "worse" else "no better"
            self._withdraw(run, f"{found} than version {run.champion.number} {run.contest.summary()}")
        elif run.pair.alias.hold:
            self._say(
                run, "the champion is held and stays; `models release` ends the hold, `models promote` overrides it"
            )
        else:
            self._promote(run)

    def _promote(self, run: _Run) -> None:
        reason = f"better than version {run.champion.number} {run.contest.summary()}"
        now, number = self._clock(), run.challenger.number
        alias = Alias(version=number, reason=reason, by=TRIAL, at=now, promotion=run.pair.alias.promotion)
        appended = self._store.set_alias(CHAMPION, alias, run.pair.champion_entry)
        if appended is None:
            self._next_look = float("-inf")  # somebody decided meanwhile, maybe another replica the same
            return
        logger.info("version %d was promoted: %s", number, reason)
        self._tell(CHAMPION, Version(run.challenger.manifest, run.challenger.sha256), appended)
        self._withdraw(run, f"promoted: {reason}")

    def _withdraw(self, run: _Run, reason: str) -> None:
        if self._append_nobody(run.pair, reason):
            self._say(run, reason)
            self._run, self.challenger = None, None
            self._close_log()

    def _end_won(self, pair: Pair) -> None:
        """The challenger has become champion: by a person, by another replica, or by this one before it died."""
        contest = self._run.contest if self._run is not None and self._run.pair.entry == pair.entry else None
        self._rest(status_of("decided", pair, contest, detail="the challenger is champion"))
        if pair.challenge.decide == "auto":
            self._append_nobody(pair, f"promoted: {pair.alias.reason}")

    def _append_nobody(self, pair: Pair, reason: str) -> bool:
        nobody = Challenge(version=None, reason=reason, by=TRIAL, at=self._clock())
        appended = self._store.challenges.append(nobody, pair.entry)
        if appended is None:
            self._next_look = float("-inf")
            return False
        logger.info("version %s does not challenge any more: %s", pair.challenge.version, reason)
        self._tell(CHALLENGER, None, appended)
        return True

    def _tell(self, alias: str, version: Version | None, entry: int) -> None:
        problem = self._announce(alias, version, entry)
        if problem is not None:
            logger.warning("who follows hears of it at the next look at the store: %s", problem)

    def _say(self, run: _Run, detail: str) -> None:
        self._publish(status_of("decided", run.pair, run.contest, detail=detail))

    def _publish(self, status: Status) -> None:
        self.status = status
        show(self._metrics, status)

    def _opened_log(self) -> ExamplesLog:
        if self._log is None:
            self._log = self._open_log()
        return self._log

    def _close_log(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            log.close()

    def _loop(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                rows = self.step()
                failures = 0
                seconds = rows / self._settings.rows_per_second if rows else min(_IDLE_SECONDS, self._poll_seconds)
            except Exception as error:  # noqa: BLE001 - whatever it is, requests are answered and it tries again
                self._note(error)
                seconds = _BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)]
                failures += 1
            if self._wake.wait(seconds):
                self._wake.clear()
                self._next_look = float("-inf")
        self._close_log()

    def _note(self, error: Exception) -> None:
        self._metrics.trial_errors.labels(type(error).__name__).inc()
        self.status = replace(self.status, problem=f"{type(error).__name__}: {error}")
        logger.warning("trial of %s: %s: %s", self._pipeline.name, type(error).__name__, error)


def make_trial(pipeline: Pipeline, settings: Settings, metrics: Metrics, clock: Clock) -> Trial:
    """A trial on the store and the Kafka that the settings name; `start` it, and `stop` it at the end."""
    kafka = settings.kafka

    def tell(alias: str, version: Version | None, entry: int) -> str | None:
        return announce(kafka, pipeline.name, alias, version, entry, clock())

    return Trial(
        pipeline,
        open_store(settings, pipeline.name),
        lambda: KafkaExamples(pipeline.contract, kafka, pipeline.topics.examples, clock),
        tell,
        metrics,
        clock,
        settings.trial,
        poll_seconds=settings.serving.poll_seconds,
    )
