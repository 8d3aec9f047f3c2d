"""The process whose cost is taken: `ours PIECE`, `evidently` or `windows N`; the last line that it prints is JSON."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pyarrow as pa

from monitors import life, windows
from monitors.baseline import Baseline, Frozen
from monitors.content import Content
from monitors.deciding import Round, decide
from monitors.judging import Judge
from monitors.life import Life, LifePolicy
from monitors.performance.step import PerformanceState
from monitors.questions import Compared, asked_of_predictions
from monitors.state import MonitorState, Watched
from monitors.summary import Part
from monitors.windows import Windows
from stream_trainer.contract import BinaryLabel, Categorical, Contract, Numeric
from stream_trainer.monitoring import Monitoring
from stream_trainer.reference import coded, freeze, pack
from stream_trainer.reference.counting import Cells
from tests.bench.drift import worlds
from tests.bench.drift.cost import FEATURES, ROWS, Course, Spent
from tests.bench.drift.detectors import Rows, categorical

_POOL, _WINDOW_ROWS, _LOOKS = 50, 200, 10
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def contract_of(rows: Rows, segments: list[str]) -> Contract:
    """What a pipeline would say of such columns."""
    features = [Categorical(n, buckets=64) if categorical(v) else Numeric(n) for n, v in rows.items()]
    return Contract(features=features, label=BinaryLabel("hit"), key="id", event_time="at", segments=segments)


def arrow(rows: Rows) -> dict[str, pa.Array]:
    """The columns as our decoder hands them on."""
    return {name: pa.array(values) for name, values in rows.items()}


def spent_on(action: Callable[[], object]) -> Spent:
    """Its CPU, all threads, and the largest growth of this process while it ran."""
    _CLEAR.write_text("5")  # the peak so far is forgotten
    before, started = psutil.Process().memory_info().rss, time.process_time()
    action()
    seconds = time.process_time() - started
    peak = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return Spent(seconds=seconds, grown=int(peak.split()[1]) * 1024 - before)


def frames() -> tuple[Rows, Rows]:
    """The reference and the large frame."""
    rng = np.random.default_rng(0)
    return worlds.frame(rng, worlds.REFERENCE_ROWS, FEATURES), worlds.frame(rng, ROWS, FEATURES)


def ours(piece: int) -> Spent:
    """Count and decide, so many rows at a time."""
    first, frame = frames()
    contract, columns = contract_of(first, []), arrow(frame)
    reference = freeze(contract, arrow(first))
    compared = Compared(frozen=Frozen("bench", reference), served=None)

    def action(rows: int = ROWS) -> None:
        counts = np.zeros(reference.cells, np.int64)
        for start in range(0, rows, piece):
            part = {name: column.slice(start, piece) for name, column in columns.items()}
            counts += coded(contract, reference, part).count()[0]
        content = Content(rows=rows, digest="bench", counts=pack(counts))
        questions = [q for q in asked_of_predictions(content, compared) if q.against == "baseline"]
        decide(questions, Round(budget=0.001))

    if piece < ROWS:
        action(piece)  # what is loaded on first use does not count
    return spent_on(action)


def evidently() -> Spent:
    """The preset, as its documentation runs it."""
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    first, frame = (pd.DataFrame(dict(rows)) for rows in frames())
    Report([DataDriftPreset()]).run(first.head(2_000), first.tail(2_000))  # what it loads on first use does not count
    return spent_on(lambda: Report([DataDriftPreset()]).run(frame, first).dict())


def many_windows(wanted: int) -> Iterator[Course]:
    """Window after window through everything that keeps a state; looks at it now and then."""
    monitoring = Monitoring(window=timedelta(minutes=5), lateness=timedelta(0))
    rng = np.random.default_rng(0)
    first = _two(worlds.frame(rng, worlds.REFERENCE_ROWS, 4))
    contract = contract_of(first, ["rare_3"])
    reference = freeze(contract, arrow(first))
    learned = coded(contract, reference, arrow(first)).count()[0]
    frozen = Frozen("bench", reference)
    compared = Compared(frozen=frozen, served=Baseline(1, frozen, learned))
    changes = [worlds.CHANGES[2] if i % 10 == 0 else worlds.QUIET for i in range(_POOL)]
    drawn = (_two(worlds.frame(rng, _WINDOW_ROWS, 4, change, [0])) for change in changes)
    pool = [coded(contract, reference, arrow(rows)).count()[0] for rows in drawn]
    state, judge, policy = MonitorState(life=Life()), Judge(pipeline="bench", monitoring=monitoring), LifePolicy()
    for number in range(wanted):
        state = _next(state, number, pool[number % _POOL], compared, judge, policy)
        if (number + 1) % max(1, wanted // _LOOKS) == 0:
            stored = len(msgspec.msgpack.encode(state))
            yield Course(windows=number + 1, resident=psutil.Process().memory_info().rss, state=stored)


def _two(rows: Rows) -> Rows:
    return {name: rows[name] for name in ("normal_0", "rare_3")}


def _next(
    state: MonitorState, number: int, counts: Cells, compared: Compared, judge: Judge, policy: LifePolicy
) -> MonitorState:
    length = judge.monitoring.window
    start = _EPOCH + number * length
    at = (number * length + length / 2) // timedelta(microseconds=1)
    content = Content(
        rows=_WINDOW_ROWS, first=start, last=start, versions={1: _WINDOW_ROWS}, digest="bench", counts=pack(counts)
    )
    part = Part(windows={number: content}, highest={"predictions/0": [at] * 5})
    opened = windows.extend(state.predictions.windows, part, sample_rows=0)
    held: Windows
    held, closed = windows.close(opened, length=length, lateness=judge.monitoring.lateness)
    blocks, usual, now = state.predictions.blocks, state.predictions.usual, state.life or Life()
    for one in closed:
        found = judge.predictions(one, compared, blocks, PerformanceState(), usual)
        blocks, usual = found.blocks, found.usual
        for told in found.rounds:
            now, _ = life.step(now, told.findings, told.seen, policy)
    watched = Watched(windows=held, blocks=blocks, usual=usual)
    return msgspec.structs.replace(state, predictions=watched, life=now)


def main(who: str, number: str = "0") -> None:
    """Print what was found."""
    answer: Any
    if who == "windows":
        answer = [asdict(course) for course in many_windows(int(number))]
    else:
        answer = asdict(ours(int(number)) if who == "ours" else evidently())
    print(json.dumps(answer))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
