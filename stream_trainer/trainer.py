"""The trainer as a process part: opens the lineage, learns what a crash left behind, then follows the stream.

A failure that may pass (broker, store) restarts the stream from the store's head, a bounded number of times with growing
pauses; anything else ends it. Nothing that is in memory survives a restart on purpose.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from stream_trainer import history, microbatch, warm_start
from stream_trainer.crashpoints import crashpoint
from stream_trainer.errors import InputLost, UsageError
from stream_trainer.learning import Cut
from stream_trainer.lineage import Lineage
from stream_trainer.microbatch import CommitPolicy, Context
from stream_trainer.offsets import Offsets
from stream_trainer.opening import Opened, open_lineage
from stream_trainer.outside import Outside, Running, Source
from stream_trainer.pipeline import Pipeline
from stream_trainer.promotion import appoint
from stream_trainer.restarting import until_done
from stream_trainer.settings import Settings
from stream_trainer.source import describe
from stream_trainer.start import Start
from stream_trainer.store import Version, retention
from stream_trainer.strategies import local

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Trainer:
    """One pipeline being trained in this process. `stop` may be set from a signal handler or another thread.

    `connect` opens the outside: for each attempt anew.
    """

    pipeline: Pipeline
    settings: Settings
    connect: Callable[[], Outside]
    start: Start = field(default_factory=Start)
    stop: threading.Event = field(default_factory=threading.Event)
    poll_seconds: float = 0.1
    committed: bool = False
    lineage: Lineage | None = None

    def run(self) -> None:
        """Train until `stop` is set, or until the end of the log when the start says so.

        Raises:
            Fatal: see `errors`; the exit code tells which.
        """
        local.prepare()
        until_done(
            self._attempt,
            position=lambda: (self.lineage.number or None) if self.lineage else None,
            most=self.settings.trainer.max_restarts,
            stop=self.stop,
            again="restarting from the newest version",
        )

    def _attempt(self) -> None:
        with self.connect() as outside:
            self._follow(outside)

    def _follow(self, outside: Outside) -> None:
        context = self._context(outside)
        opened = self._open(context)
        self._learn_planned(context, outside, opened)
        goal = outside.source.latest() if self.start.until_caught_up else None
        start = _joined(self._standing.position, outside.source)
        self.lineage = replace(self._standing, position=start)
        running = outside.feed.stream(start, lambda: self._standing.position, self._learner(context))
        try:
            with outside.heartbeat(self._covered):
                self._watch(context, running, goal)
            with running.between():
                self._flush(context)
        finally:
            running.stop()

    def _watch(self, context: Context, running: Running, goal: Offsets | None) -> None:
        while True:
            running.check()
            if goal is not None and _reached(self._standing.position, goal):
                return
            if microbatch.due(context, self._standing):
                with running.between():
                    self._flush(context)
            if self.stop.wait(self.poll_seconds):
                return

    @property
    def _standing(self) -> Lineage:
        assert self.lineage is not None  # noqa: S101 - opened before anything asks
        return self.lineage

    def _context(self, outside: Outside) -> Context:
        trainer = self.settings.trainer
        return Context(
            pipeline=self.pipeline,
            store=outside.store,
            source=outside.source,
            outbox=outside.outbox,
            run_id=outside.run_id,
            clock=outside.clock,
            monotonic=outside.monotonic,
            requests=outside.requests,
            reread=outside.feed.read,
            policy=CommitPolicy(rows=trainer.commit_every_rows, seconds=trainer.commit_every_seconds),
            promotion=trainer.promotion,
        )

    def _open(self, context: Context) -> Opened:
        # The asked origin and the permission to lose hold until a version has come of them; a retry before that keeps
        # the place where it began, also when the log has grown since.
        first = not self.committed
        source = context.source
        earliest, latest = source.earliest(), source.latest()
        begun = self.lineage.position if self.lineage is not None and self.lineage.head is None else None
        opened = open_lineage(context, self.start.origin if first else "earliest", begun or earliest, begun or latest)
        head = opened.lineage.head
        source.expect(head.manifest.topic_ids if head else {})
        appoint(context.store, None, context.promotion, context.clock)
        context.outbox.alert(opened.alerts(context, healed_by=None))
        if head is not None:
            context.outbox.alert(microbatch.alerts_of(context.store, head))
        crashpoint("trainer.opened")
        beyond = [loss for loss in source.missing(opened.planned_end()) if loss.reason == "truncated"]
        losses = source.missing(opened.needed()) or beyond
        if losses and not (first and self.start.accept_data_loss):
            raise InputLost(describe(losses))
        if losses:
            logger.warning("going on without what is gone, as allowed: %s", losses)
            source.expect({})
            before = opened.lineage.number
            self.lineage = microbatch.lose(context, opened.lineage, losses, earliest)
            self._after_commit(context, before)
            return replace(opened, lineage=self.lineage, planned=[])
        source.check(opened.needed())
        self.lineage = opened.lineage
        self._learn_history(context)
        return replace(opened, lineage=self._standing)

    def _learn_history(self, context: Context) -> None:
        """What the files of the start teach becomes the first version; a lineage that has one must have begun with them."""
        if not self.start.history:
            return
        paths = warm_start.files_of(self.start.history)
        head = self._standing.head
        if head is not None:
            self._refuse_other_history(context, head, paths)
            return
        logger.info("learning %d files of history", len(paths))
        standing = self._standing
        learned = warm_start.learn(self.pipeline, standing, paths)
        if not learned.pending.rows.trained:
            raise UsageError(
                f"--history: none of its {learned.pending.rows.seen} rows could be learned "
                f"({learned.pending.rows.rejected} rejected, {learned.pending.rows.quarantined} quarantined)"
            )
        self.lineage = microbatch.commit(context, learned)
        self._after_commit(context, standing.number)

    def _refuse_other_history(self, context: Context, head: Version, paths: list[Path]) -> None:
        begun = history.ancestors(context.store, head.number)[0].manifest.history or []
        if begun != [warm_start.digest(path) for path in paths]:
            raise UsageError(
                f"--history: {context.store.describe()} has versions that did not begin with these files; history can only "
                "begin a new lineage: give the pipeline a new name, or leave --history out"
            )

    def _learn_planned(self, context: Context, outside: Outside, opened: Opened) -> None:
        """Learn exactly what an earlier run had begun to learn and not committed, or committed to files now damaged."""
        for left, cut in zip(range(len(opened.planned) - 1, -1, -1), opened.planned, strict=True):
            logger.info("learning again a cut that was planned for version %d", self._standing.number)
            read = partial(outside.feed.read, cut.ranges)
            self.lineage = microbatch.run(context, self._standing, cut, read, more=left > 0)
            crashpoint("trainer.relearned")
        if opened.damaged and opened.planned:
            self._flush(context)
            context.outbox.alert(opened.alerts(context, healed_by=self._standing.number - 1))

    def _learner(self, context: Context) -> Callable[[Cut, Callable[[], pa.Table]], None]:
        def learn(cut: Cut, fetch: Callable[[], pa.Table]) -> None:
            before = self._standing.number
            self.lineage = microbatch.run(context, self._standing, cut, fetch)
            self._after_commit(context, before)

        return learn

    def _flush(self, context: Context) -> None:
        """Commit what is pending, whatever the policy says."""
        before = self._standing.number
        if microbatch.worth_committing(self._standing):
            self.lineage = microbatch.commit(context, self._standing)
            self._after_commit(context, before)

    def _after_commit(self, context: Context, before: int) -> None:
        head = self._standing.head
        if self._standing.number == before or head is None:
            return
        self.committed = True
        context.outbox.show_progress(head)
        retention.forget(context.store, head.number, self.settings.store)
        crashpoint("trainer.forgotten")
        _log_version(head)

    def _covered(self, source: Source) -> Version | None:
        """The newest version when it covers the whole log and nothing is pending."""
        lineage = self.lineage
        if lineage is None or lineage.head is None or lineage.pending.rows.trained:
            return None
        covered = source.covered(lineage.position)
        return lineage.head if covered and self.lineage is lineage else None


def _joined(position: Offsets, source: Source) -> Offsets:
    """The position, and the start of every partition that it does not know: new ones join from their start."""
    return {topic: {**starts, **position.get(topic, {})} for topic, starts in source.earliest().items()}


def _reached(position: Offsets, goal: Offsets) -> bool:
    return all(position.get(t, {}).get(p, 0) >= end for t, ps in goal.items() for p, end in ps.items())


def _log_version(version: Version) -> None:
    manifest = version.manifest
    logger.info(
        "version %d: %d trained, %d rejected, %d quarantined; prequential %s",
        manifest.version,
        manifest.rows.trained,
        manifest.rows.rejected,
        manifest.rows.quarantined,
        {name: round(value, 4) for name, value in manifest.metrics.items() if isinstance(value, float)},
    )
