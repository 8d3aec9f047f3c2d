"""One micro-batch of predictions, from summaries to published alerts: the map of this package. No Spark, no disk."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import msgspec

from monitors.alerts import Alert, Open, WindowSpan, with_report
from monitors.baseline import Baseline, Baselines, Frozen
from monitors.drift import AlertPolicy, DriftPolicy, Evidence, Streaks, judge, step
from monitors.reports import Reports, report_job
from monitors.state import MonitorState, StateFiles
from monitors.status import Metrics
from monitors.summary import Summarise, Summary, add, without_samples
from monitors.windows import Window, WindowPolicy, closing, extend
from stream_trainer.errors import StoreUnavailable
from stream_trainer.pipeline import Pipeline
from stream_trainer.reference import table_from_bytes
from stream_trainer.settings import MonitorSettings

Publish = Callable[[Sequence[Alert]], None]

_MIN_ROWS = 200
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """When windows close, what counts as drift and how alerts live."""

    window: WindowPolicy
    drift: DriftPolicy = field(default_factory=DriftPolicy)
    alerts: AlertPolicy = field(default_factory=AlertPolicy)

    @classmethod
    def of(cls, settings: MonitorSettings) -> "Policies":
        """Provisional thresholds for the configured windows; a small window is judged with as few rows as it has."""
        least = min(_MIN_ROWS, settings.window_rows)
        window = WindowPolicy(
            rows=settings.window_rows,
            seconds=settings.window_seconds,
            min_rows=least,
            sample_rows=settings.report_rows,
        )
        return cls(window=window, drift=DriftPolicy(min_rows=least))


class Monitor:
    """The monitor of one pipeline; called by one thread, batch after batch.

    `open_alerts` are those that `P.alerts` knew at the start. Errors of the broker go to the caller: the batch then
    comes back and publishes the same events again.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        policies: Policies,
        *,
        baselines: Baselines,
        states: StateFiles,
        publish: Publish,
        reports: Reports,
        report_folder: Path,
        metrics: Metrics,
        open_alerts: Open,
    ) -> None:
        self._pipeline = pipeline
        self._policies = policies
        self._baselines = baselines
        self._states = states
        self._publish = publish
        self._reports = reports
        self._report_folder = report_folder
        self._open = open_alerts
        self.metrics = metrics
        metrics.alerts((), len(open_alerts))

    def run(self, batch: int, summarise: Callable[[Summarise], Iterable[Summary]]) -> None:
        """Take in one micro-batch; `summarise` reads its records, once."""
        began = time.monotonic()
        # 1. Where the last batch ended.
        state = self._states.before(batch)
        # 2. The frozen bins, and the records counted in them: the only Spark action.
        frozen = self._frozen()
        summary = self._total(summarise(self._worker(frozen)))
        self.metrics.read(summary)
        # 3. The window they belong to; without bins they were only counted.
        window = state.window
        if frozen is not None and summary.rows:
            window = extend(window, summary, frozen.digest, self._policies.window)
        # 4. A window that closes is judged, and alerts open, go on or are resolved.
        window, streaks = self._close(window, state.streaks)
        # 5. A report that was written meanwhile is added to its alerts.
        self._add_report()
        # 6. Only now the state: Spark commits the offsets after it.
        self._states.save(batch, MonitorState(window=window, streaks=streaks))
        self.metrics.batch(time.monotonic() - began)

    def _frozen(self) -> Frozen | None:
        try:
            return self._baselines.frozen()
        except StoreUnavailable as error:
            _log.warning("predictions are only counted: %s", error)
            return None

    def _worker(self, frozen: Frozen | None) -> Summarise:
        return Summarise(
            contract=self._pipeline.contract,
            reference=without_samples(frozen.reference) if frozen else None,
            sample_rows=self._policies.window.sample_rows,
        )

    def _total(self, summaries: Iterable[Summary]) -> Summary:
        rows = self._policies.window.sample_rows
        return reduce(lambda a, b: add(a, b, sample_rows=rows), summaries, Summary())

    def _close(self, window: Window, streaks: Streaks) -> tuple[Window, Streaks]:
        why = closing(window, self._policies.window)
        if why is None:
            return window, streaks
        if why == "insufficient data":
            self.metrics.judged(why, ())
            return Window(), streaks
        try:
            baseline = self._baselines.of(window.content.version)
        except StoreUnavailable as error:
            _log.warning("a window stays open until the store answers: %s", error)
            return window, streaks
        if baseline is None or baseline.frozen.digest != window.reference:
            self.metrics.judged("other reference", ())
            return Window(), streaks
        return Window(), self._judge(window, baseline, streaks, why)

    def _judge(self, window: Window, baseline: Baseline, streaks: Streaks, why: str) -> Streaks:
        content = window.content
        if content.histogram is None or content.start is None or content.end is None:
            return streaks
        counted = table_from_bytes(content.histogram)
        verdicts = judge(baseline.frozen.reference, baseline.learned, counted, self._policies.drift)
        self.metrics.judged(why, verdicts)
        evidence = Evidence(
            pipeline=self._pipeline.name,
            window=WindowSpan(start=content.start, end=content.end, rows=content.rows),
            model_version=baseline.version,
        )
        now_open, streaks, events = step(self._open, streaks, verdicts, evidence, self._policies.alerts)
        self._send(events, now_open)
        opened = [event for event in events if event.status == "opened"]
        if opened and content.sample is not None:
            rows = self._policies.window.sample_rows
            sample = table_from_bytes(content.sample)
            self._reports.ask(report_job(self._report_folder, opened, sample, baseline.frozen.reference, rows))
        return streaks

    def _send(self, events: Sequence[Alert], now_open: Open) -> None:
        if events:
            self._publish(events)
        self._open = now_open
        self.metrics.alerts(events, len(now_open))
        for event in events:
            _log.log(
                logging.INFO if event.status == "resolved" else logging.WARNING,
                "alert %s %s (%s): %s",
                event.alert_key,
                event.status,
                event.severity,
                event.message,
            )

    def _add_report(self) -> None:
        outcome = self._reports.finished()
        if outcome is None:
            return
        self.metrics.report("written" if outcome.written else "failed")
        if not outcome.written:
            _log.warning("no report %s: %s", outcome.job.out.name, outcome.detail)
            return
        _log.info("drift report written: %s", outcome.job.out)
        found = (with_report(self._open, key, at, str(outcome.job.out)) for key, at in outcome.job.alerts)
        events = [event for event in found if event is not None]
        self._send(events, {**self._open, **{event.alert_key: event for event in events}})


def decode_summary(payload: bytes) -> Summary:
    """A worker's payload."""
    return msgspec.msgpack.decode(payload, type=Summary)
