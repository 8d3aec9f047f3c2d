"""A quiet stream through the monitor's own steps: judge, tell, open and end alerts. No Kafka, no Spark, no model.

What a version has learned when a window is served are the rows before it, over the pipeline's `reference_hours`, as a trainer
that keeps up would have it. Labels come one window late.
"""

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import psutil

from monitors import life
from monitors.alerts import Alert
from monitors.baseline import Baseline
from monitors.batch import patient
from monitors.consequences import telling
from monitors.content import Content
from monitors.deciding import critical_p_value
from monitors.findings import Finding
from monitors.judging import Judge, Judgement
from monitors.life import Life
from monitors.questions import Compared
from monitors.state import MonitorState, Watched
from monitors.windows import Closed
from stream_trainer.monitoring import Monitoring
from stream_trainer.reference import pack
from stream_trainer.reference.counting import Cells
from tests.bench.drift.quiet import FROZEN_ROWS, Stream, Window

LEARNED = timedelta(hours=48)
TIMES = 30
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """After so many windows: bytes that the process holds, and of the state as it is stored."""

    windows: int
    resident: int
    state: int


@dataclass(slots=True, kw_only=True)
class Course:
    """What a stream has shown.

    Attributes:
        windows: judged, of predictions and of labels each.
        opened: alerts opened, by kind.
        rounds: rounds with a finding that began, by kind; "" for those with any.
        often: the same p-values against `TIMES` the stated rate, without `concept`, whose state follows from its rate.
        seconds: CPU of drawing and judging.
    """

    windows: int = 0
    opened: Counter[str] = field(default_factory=Counter)
    rounds: Counter[str] = field(default_factory=Counter)
    often: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    looks: list[Look] = field(default_factory=list)

    def take(self, findings: Sequence[Finding], began: bool, events: Sequence[Alert]) -> None:
        """Count one round; `began`: whether `concept`, which goes on for some rounds, is called drift newly."""
        kinds = {_name(f) for f in findings if f.state == "drift" and (f.kind != "concept" or began)}
        self.rounds.update(kinds | {""} if kinds else ())
        often = {_name(finding) for finding in _at(TIMES, findings)}
        self.often.update(often | {""} if often else ())
        self.opened.update(event.kind for event in events if event.status == "opened")


def watch(stream: Stream, monitoring: Monitoring, windows: int, rows: int, looks: Sequence[int] = ()) -> Course:
    """So many windows of a stream, after those that were learned first."""
    began, course = time.process_time(), Course(windows=windows)
    steps = _Steps(monitoring, course)
    before = max(LEARNED // monitoring.window, -(-FROZEN_ROWS // rows))
    learned: deque[Cells] = deque(maxlen=LEARNED // monitoring.window)
    total = np.zeros(stream.frozen.reference.cells, np.int64)
    late: Window | None = None
    for number, window in enumerate(stream.windows(before + windows, rows)):
        if number >= before:
            served = Baseline(number, stream.frozen, total.copy())
            steps.take(number, window, late, Compared(frozen=stream.frozen, served=served))
            if number + 1 - before in looks:
                course.looks.append(steps.look(number + 1 - before))
        if len(learned) == learned.maxlen:
            total -= learned[0]
        learned.append(window.cells)
        total += window.cells
        late = window
    course.seconds = time.process_time() - began
    return course


class _Steps:
    """Predictions, then the labels of the window before, as the monitor takes them."""

    def __init__(self, monitoring: Monitoring, course: Course) -> None:
        self._judge = Judge(pipeline="quiet", monitoring=monitoring)
        self._policy = patient(monitoring)
        self._state = MonitorState(life=Life())
        self._course = course
        self._lasting = False

    def take(self, number: int, window: Window, late: Window | None, compared: Compared) -> None:
        state = self._state
        told = self._judge.predictions(
            self._closed(number, window, labels=False),
            compared,
            state.predictions.blocks,
            state.performance,
            state.predictions.usual,
        )
        state = self._stepped(
            msgspec.structs.replace(
                state, predictions=Watched(blocks=told.blocks, usual=told.usual), performance=told.performance
            ),
            told,
        )
        if late is not None:
            closed = self._closed(number, late, labels=True)
            told = self._judge.examples(
                closed, compared, state.examples.blocks, state.performance, state.examples.usual
            )
            after = msgspec.structs.replace(
                state, examples=Watched(blocks=told.blocks, usual=told.usual), performance=told.performance
            )
            state = self._stepped(after, told)
        self._state = state

    def look(self, windows: int) -> Look:
        stored = len(msgspec.msgpack.encode(self._state))
        return Look(windows=windows, resident=psutil.Process().memory_info().rss, state=stored)

    def _stepped(self, state: MonitorState, found: Judgement) -> MonitorState:
        now = state.life or Life()
        for told in found.rounds:
            now, events = life.step(now, telling(told.findings, now.open), told.seen, self._policy)
            errors = [finding for finding in told.findings if finding.kind == "concept"]
            lasts = errors[0].state == "drift" if errors else self._lasting
            self._course.take(told.findings, lasts and not self._lasting, events)
            self._lasting = lasts
        return msgspec.structs.replace(state, life=now)

    def _closed(self, number: int, window: Window, *, labels: bool) -> Closed:
        length = self._judge.monitoring.window
        start = _EPOCH + number * length
        content = Content(
            rows=window.rows,
            first=start,
            last=start,
            versions={1: window.rows},
            digest="quiet",
            counts=pack(window.cells),
            tally=window.tally if labels else Content().tally,
        )
        return Closed(number=number, start=start, end=start + length, content=content)


def _at(times: float, findings: Sequence[Finding]) -> list[Finding]:
    """What would be drift at so many times the rate, by the same rule."""
    tested = [f for f in findings if f.state != "not enough data" and f.kind != "concept"]
    if not tested or any(finding.kind in ("estimate", "loss") for finding in tested):
        return [finding for finding in tested if finding.p_value <= times * finding.threshold]
    found = sum(finding.state == "drift" for finding in tested)
    budget = tested[0].threshold * len(tested) / max(1, found)
    threshold = critical_p_value(np.array([finding.p_value for finding in tested]), times * budget)
    return [finding for finding in tested if finding.p_value <= threshold]


def _name(finding: Finding) -> str:
    return f"{finding.kind} ({finding.against})" if finding.kind == "drift" else finding.kind
