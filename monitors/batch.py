"""One micro-batch, from Kafka's records to published alerts: the map of this package. No Spark, no disk."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from monitors import life
from monitors.alerts import Alert, Open, with_report
from monitors.baseline import Baselines, Frozen
from monitors.consequences import telling
from monitors.content import OLDER, Content
from monitors.explaining import ranked, weighed
from monitors.findings import Finding
from monitors.history import History
from monitors.judging import Judge, Judgement, joined, with_rounds
from monitors.life import Life, LifePolicy
from monitors.links import Publish
from monitors.performance.presence import Labelling, Read
from monitors.questions import Compared, told_apart
from monitors.reports import Reports, report_job
from monitors.retired import why_retired
from monitors.scales import SCALES
from monitors.state import MonitorState, StateFiles, Watched, with_windows_of
from monitors.status import Metrics
from monitors.summary import Part, Summarise, Summary, total
from monitors.windows import Closed, close, extend
from stream_trainer.acting import HoldPromotion
from stream_trainer.errors import StoreUnavailable
from stream_trainer.monitoring import Monitoring
from stream_trainer.pipeline import Pipeline
from stream_trainer.reference import table_from_bytes

Explain = Callable[[Sequence[Finding], Content, Compared], Mapping[str, float]]

_log = logging.getLogger(__name__)


def unexplained(_findings: Sequence[Finding], _window: Content, _compared: Compared) -> Mapping[str, float]:
    """No weights."""
    return {}


class Monitor:
    """The monitor of one pipeline; called by one thread, batch after batch.

    Errors of the broker go to the caller: the batch then comes back and publishes the same events again.

    Args:
        open_alerts: those that `P.alerts` knew at the start; what a kept state says comes first.
        sample_rows: rows of a window that are kept for a report.
        workspace: of Evidently, for reports; None for none.
        explain: the features' weights in the change of the output, for the findings of a round.
        saw: told what a micro-batch has read.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        baselines: Baselines,
        states: StateFiles,
        history: History,
        publish: Publish,
        reports: Reports,
        report_folder: Path,
        workspace: Path | None = None,
        metrics: Metrics,
        open_alerts: Open,
        sample_rows: int = 2_000,
        policy: LifePolicy | None = None,
        explain: Explain = unexplained,
        saw: Callable[[Read], None] = lambda _: None,
    ) -> None:
        self._pipeline = pipeline
        self._monitoring = pipeline.monitoring
        self._judge = Judge(pipeline=pipeline.name, monitoring=pipeline.monitoring)
        self._baselines = baselines
        self._states = states
        self._history = history
        self._publish = publish
        self._reports = reports
        self._report_folder = report_folder
        self._workspace = workspace
        self._known = open_alerts
        self._sample_rows = sample_rows
        self._policy = policy or patient(pipeline.monitoring)
        self._explain = explain
        self._saw = saw
        self.metrics = metrics
        metrics.alerts((), open_alerts.values())

    def run(self, batch: int, summarise: Callable[[Summarise], Iterable[Summary]]) -> None:
        """Take in one micro-batch; `summarise` reads its records, once."""
        began = time.monotonic()
        # 1. Where the last batch ended, and which alerts were open then.
        state = with_windows_of(self._monitoring.window, self._states.before(batch))
        state = msgspec.structs.replace(state, life=self._relieved(state.life or Life(open=self._known)))
        # 2. The frozen bins, and the records counted in them: the only Spark action.
        frozen = self._frozen()
        summary = total(list(summarise(self._worker(state, frozen))), sample_rows=self._sample_rows)
        self.metrics.read(summary)
        state = msgspec.structs.replace(state, labelling=self._seen(summary, state.labelling))
        # 3. Into the windows of event time; those that are over wait to be judged.
        state = msgspec.structs.replace(
            state,
            predictions=self._taken(state.predictions, summary.predictions),
            examples=self._taken(state.examples, summary.examples),
        )
        # 4. Each is compared, alone and with those before it; alerts open, go on or end, and are published.
        state = self._judged(self._judged(state, labels=True), labels=False)
        # 5. A report that was written meanwhile is added to its alerts.
        state = self._with_report(state)
        # 6. Only now the state: Spark commits the offsets after it.
        self._states.save(batch, state)
        self.metrics.batch(time.monotonic() - began)

    def _relieved(self, before: Life) -> Life:
        """Without alerts that nothing will speak for, as the pipeline is now."""
        why = {key: why_retired(alert, self._pipeline) for key, alert in before.open.items()}
        now, events = life.end(before, {key: reason for key, reason in why.items() if reason})
        if events:
            self._send(events, now)
        return now

    def _seen(self, summary: Summary, before: Labelling) -> Labelling:
        predictions = summary.predictions
        labelling = before.after(predictions.appended, summary.examples.appended)
        self._saw(Read(prediction=predictions.appended, offsets=predictions.read, labelling=labelling))
        return labelling

    def _frozen(self) -> Frozen | None:
        try:
            return self._baselines.frozen()
        except StoreUnavailable as error:
            _log.warning("predictions are only counted: %s", error)
            return None

    def _worker(self, state: MonitorState, frozen: Frozen | None) -> Summarise:
        return Summarise(
            contract=self._pipeline.contract,
            topic=self._pipeline.topics.predictions,
            window=self._monitoring.window,
            reference=frozen.reference.without_samples() if frozen else None,
            digest=frozen.digest if frozen else None,
            sample_rows=self._sample_rows,
            predictions=state.predictions.windows.before,
            examples=state.examples.windows.before,
        )

    def _taken(self, watched: Watched, part: Part) -> Watched:
        self.metrics.late(part.late)
        length, lateness = self._monitoring.window, self._monitoring.lateness
        windows = extend(watched.windows, part, sample_rows=self._sample_rows)
        windows, closed = close(windows, length=length, lateness=lateness)
        return msgspec.structs.replace(watched, windows=windows, waiting=[*watched.waiting, *closed])

    def _judged(self, state: MonitorState, *, labels: bool) -> MonitorState:
        """Judge what waits, the oldest first; what the store does not answer for waits on."""
        waiting = (state.examples if labels else state.predictions).waiting
        for done, closed in enumerate(waiting):
            try:
                compared = self._compared(closed)
            except StoreUnavailable as error:
                _log.warning("windows wait until the store answers: %s", error)
                return _waiting(state, waiting[done:], labels=labels)
            state = self._one(state, closed, compared, labels=labels)
        return _waiting(state, [], labels=labels)

    def _compared(self, closed: Closed) -> Compared:
        served = self._baselines.of({v: rows for v, rows in closed.content.versions.items() if v != OLDER})
        several = self._baselines.each(told_apart(closed.content, self._monitoring.min_rows))
        return Compared(frozen=self._baselines.frozen(), served=served, versions=several)

    def _one(self, state: MonitorState, closed: Closed, compared: Compared, *, labels: bool) -> MonitorState:
        # 1. What it shows.
        watched = state.examples if labels else state.predictions
        judge = self._judge.examples if labels else self._judge.predictions
        found = self._weighed(
            judge(closed, compared, watched.blocks, state.performance, watched.usual), closed.content, compared
        )
        schema = watched.schema
        if not labels:
            schema, told = self._judge.unreadable(closed, compared, schema)
            found = with_rounds(found, told)
        # 2. Which alerts that opens, continues and ends; they are published before anything remembers them.
        now, events = self._stepped(state.life or Life(), found, None if labels else closed.end)
        self._send(events, now)
        # 3. For those who look: history, metrics, a report of what was opened.
        before = self._history.get(closed.start)
        same = before is not None and before.end == closed.end  # windows may have been of another length
        self._history.add(joined(before if same else None, found.record, labels=labels))
        half = "labels" if labels else "predictions"
        self.metrics.closed(half)
        self.metrics.evaluated(found.findings, window_end=closed.end, figures=found.record.scores, half=half)
        opened = [event for event in events if event.status == "opened" and event.kind != "schema"]
        self._report(opened, found, closed.content, compared)
        after = msgspec.structs.replace(watched, blocks=found.blocks, usual=found.usual, schema=schema)
        whole = msgspec.structs.replace(state, life=now, performance=found.performance)
        return msgspec.structs.replace(whole, **{"examples" if labels else "predictions": after})

    def _weighed(self, found: Judgement, window: Content, compared: Compared) -> Judgement:
        """What was found, with what the features have done to the model's output."""
        rounds = []
        for told in found.rounds:
            weights = self._explain(told.findings, window, compared)
            seen = replace(told.seen, ranking=ranked(weights))
            rounds.append(replace(told, seen=seen, findings=weighed(told.findings, weights)))
        kept = found.record.findings
        kept = weighed(kept, self._explain(kept, window, compared))
        return replace(found, rounds=rounds, record=msgspec.structs.replace(found.record, findings=kept))

    def _stepped(self, before: Life, found: Judgement, passed: datetime | None) -> tuple[Life, list[Alert]]:
        events: list[Alert] = []
        for told in found.rounds:
            before, said = life.step(before, telling(told.findings, before.open), told.seen, self._policy)
            events += said
        if passed is not None:
            before, said = life.pass_window(before, passed, self._policy)
            events += said
        return before, events

    def _send(self, events: Sequence[Alert], now: Life) -> None:
        if events:
            self._publish(events)
        self.metrics.alerts(events, now.open.values())
        for event in events:
            _log.log(
                logging.INFO if event.status == "resolved" else logging.WARNING,
                "alert %s %s (%s): %s",
                event.alert_key,
                event.status,
                event.severity,
                event.message,
            )

    def _report(self, opened: Sequence[Alert], found: Judgement, window: Content, compared: Compared) -> None:
        if opened and window.sample is not None and compared.frozen is not None:
            job = report_job(
                self._report_folder,
                opened,
                table_from_bytes(window.sample),
                compared.frozen.reference,
                self._sample_rows,
                findings=found.findings,
                workspace=self._workspace,
            )
            self._reports.ask(job)

    def _with_report(self, state: MonitorState) -> MonitorState:
        outcome, now = self._reports.finished(), state.life or Life()
        if outcome is None:
            return state
        self.metrics.report("written" if outcome.written else "failed")
        if not outcome.written:
            _log.warning("no report %s: %s", outcome.job.out.name, outcome.detail)
            return state
        _log.info("drift report written: %s", outcome.job.out)
        found = (with_report(now.open, key, at, outcome.job.out.name) for key, at in outcome.job.alerts)
        events = [event for event in found if event is not None]
        now = msgspec.structs.replace(now, open={**now.open, **{event.alert_key: event for event in events}})
        self._send(events, now)
        return msgspec.structs.replace(state, life=now)


def patient(monitoring: Monitoring) -> LifePolicy:
    """Pauses of a few windows, where windows are long."""
    usual = LifePolicy()
    pause = monitoring.unlabelled or timedelta(0)  # of labels, which may be as late
    repeat_every = max(usual.repeat_every, 10 * monitoring.window)
    if any(isinstance(rule.do, HoldPromotion) for rule in monitoring.actions):  # a hold ends when its alert is told
        repeat_every = min(repeat_every, max(monitoring.hold_at_most, monitoring.window))
    return LifePolicy(
        repeat_every=repeat_every,
        repeat_followed=max(usual.repeat_followed, 10 * monitoring.window),
        cooldown=max(usual.cooldown, 3 * monitoring.window),
        patience=max(12, math.ceil(timedelta(days=1) / monitoring.window)),
        label_patience=max(12, math.ceil(max(pause, timedelta(days=1)) / monitoring.window)),
        remember=max(usual.remember, (SCALES[-1] + 12) * monitoring.window) + pause,
    )


def decode_summary(payload: bytes) -> Summary:
    """A worker's payload."""
    return msgspec.msgpack.decode(payload, type=Summary)


def _waiting(state: MonitorState, closed: Sequence[Closed], *, labels: bool) -> MonitorState:
    if labels:
        return msgspec.structs.replace(state, examples=msgspec.structs.replace(state.examples, waiting=list(closed)))
    return msgspec.structs.replace(state, predictions=msgspec.structs.replace(state.predictions, waiting=list(closed)))
